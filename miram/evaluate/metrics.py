"""Every number of the results, computed only from the Parquet files of the classifiers.

metrics.csv: one row per cell, split and metric, and one without a seed for the mean over a method's seeds
and its sample standard deviation `sd`. On the test split `low` and `high` bound an interval of `confidence` over
patients: in each of `resamples` draws all networks see the same patients, and the mean over seeds is taken inside the
draw. There is none for one patient, or if fewer than `min_draws_share` of the draws have a value. It shows the
variation over patients for these networks; `sd` shows that over seeds. Where methods were pre-trained several times the
interval of a mean is for other pre-trainings as well, see `pretrainings.interval_anew`. The references, which are the
trivial classifiers and the majority class, have one answer and no seed.
differences.csv: `difference_rows`, and the accuracy of each method less that of each trivial classifier.
variance.csv: a row per method and metric of the test split, the standard deviation of its mean by the draws of
patients, and that of one run by source, see `pretrainings.sources`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from miram.errors import MiramError
from miram.evaluate.differences import DIFFERENCE_COLUMNS, Conditions, difference_rows, differs_in, less_trivial
from miram.evaluate.notes import class_notes, draw_notes
from miram.evaluate.predictions import (
    NOTE_SEPARATOR,
    SECTION,
    answers_of,
    check_same_lesions,
    constant,
)
from miram.evaluate.pretrainings import (
    OF_ONE,
    VARIANCE_COLUMNS,
    anew,
    count_pretrainings,
    interval_anew,
    several_pretrainings,
    variance_rows,
)
from miram.evaluate.scores import METRICS, Options
from miram.evaluate.statistics import interval, patient_resamples
from miram.evaluate.weighted import Measured, weighted_scores
from miram.files import write_csv
from miram.layout import TRIVIAL, TRIVIAL_MODE, Cell
from miram.predictions import TEST, Predictions, read_predictions

MAJORITY = "majority class"  # the reference with a constant answer
ALWAYS = (MAJORITY, 0)
SEES = dict(zip(TRIVIAL, ("its size", "its size, its grey levels and its mean gradients"), strict=True))
METRIC_COLUMNS = [
    *(*SECTION, "method", "seed", "pretrain_seed", "split", "metric", "value", "low", "high", "sd"),
    *("lesions", "classes_present", "note"),
]
COUNTED = ["seeds", "pretrainings", "lesions", "patients", "lesions_needed"]  # of differences.csv
Run = tuple[str, int]  # method, seed


class Draws(TypedDict):
    """The draws of patients."""

    resamples: int
    seed: int


class Limits(TypedDict):
    """The confidence of intervals over them, and when there is none."""

    confidence: float
    min_draws_share: float


def evaluate(
    predictions: Mapping[Cell, Path | None],
    metrics_csv: Path,
    differences_csv: Path,
    variance_csv: Path,
    *,
    resamples: int,
    seed: int,
    confidence: float,
    min_draws_share: float,
    power: float,
    specificity: float,
    threshold: float,
    bins: int,
    compared: Sequence[str],
    reference: str,
    majority: Mapping[tuple[str, str], str],
    positive: Sequence[str] | None = None,
    conditions: Conditions = MappingProxyType({}),
    further: Sequence[str] = (),
) -> dict[str, object]:
    """Write the metrics of all cells, the differences of the methods from `reference`, and their variance by source.

    `majority` has the most frequent label of the training lesions of each (protocol, task) that has predictions.
    `positive` names the classes whose sensitivity is measured, none where it is empty; None: those of CBIS-DDSM. The
    methods of `further` are references as well. `predictions` has every cell of the tables, and those of the trivial
    classifiers, which are in every section of their protocol and task. One whose file is None or missing is a gap,
    named in the notes and in the returned facts. Raises MiramError if there is no file, one is damaged, or two of a
    section disagree about lesions or classes.
    """
    finished = {cell: path for cell, path in predictions.items() if path is not None and path.exists()}
    if not finished:
        raise MiramError("There are no predictions to evaluate.", "Run the fine-tuning first.")
    options: Options = {"specificity": specificity, "threshold": threshold, "bins": bins}
    draws: Draws = {"resamples": resamples, "seed": seed}
    limits: Limits = {"confidence": confidence, "min_draws_share": min_draws_share}
    compare = partial(difference_rows, compared=compared, power=power, options=options, **draws, **limits)
    metric_rows, differences, variances = (list[dict[str, object]]() for _ in range(3))
    for section in dict.fromkeys(cell[:3] for cell in predictions if cell.mode != TRIVIAL_MODE):
        place = dict(zip(SECTION, section, strict=True))
        runs, trivial = (
            [(cell.method, int(cell.seed)) for cell in predictions if cell[:3] == (*section[:2], mode)]
            for mode in (section[2], TRIVIAL_MODE)
        )
        own = {cell: path for cell, path in finished.items() if cell[:3] in (section, (*section[:2], TRIVIAL_MODE))}
        label = majority[section[:2]] if own else ""
        for split, parts in _by_split(own, label).items():
            measured = _measured(parts, draws if split == TEST else None, options, positive)
            patients = next(iter(parts.values())).table["patient_id"].to_numpy() if parts else np.array([], dtype=str)
            rows = _method_rows(measured, runs, split, patients, limits)
            rows += _reference_rows(measured, trivial, label, split, patients, limits)
            metric_rows += [place | row for row in rows]
            if split == TEST:
                found = _differences(measured, runs, trivial, patients, compare, (reference, *further), conditions)
                differences += [place | {"split": split} | row for row in found]
                variances += [place | row for row in variance_rows({r: measured[r] for r in runs if r in measured})]
    _write(metrics_csv, metric_rows, METRIC_COLUMNS, ["seed", "pretrain_seed", "lesions", "classes_present"])
    _write(variance_csv, variances, [*SECTION, *VARIANCE_COLUMNS], ["seeds", "pretrainings"])
    _write(differences_csv, differences, [*SECTION, "split", *DIFFERENCE_COLUMNS], COUNTED)
    return {"cells": len(finished), "missing_cells": [str(cell) for cell in predictions if cell not in finished]}


def _differences(
    measured: Mapping[Run, Measured],
    runs: Sequence[Run],
    trivial: Sequence[Run],
    patients: np.ndarray,
    compare: Callable[..., list[dict[str, object]]],
    references: Sequence[str],
    conditions: Conditions,
) -> list[dict[str, object]]:
    """The rows of differences.csv of one section; `compare` is `difference_rows`."""
    found = [row for name in references for row in compare(measured, runs, patients, reference=name)]
    found += less_trivial(measured, runs, patients, trivial, compare)
    return [row | {"differs_in": differs_in(str(row["first"]), str(row["second"]), conditions)} for row in found]


def _by_split(files: Mapping[Cell, Path], label: str) -> dict[str, dict[Run, Predictions]]:
    """Split -> the predictions of each classifier that has some, and of always `label`; the test split in any case."""
    read = {cell: read_predictions(path, cell) for cell, path in files.items()}
    check_same_lesions({files[cell]: own for cell, own in read.items()})
    found = {(cell.method, int(cell.seed)): own for cell, own in read.items()}
    splits = sorted({TEST}.union(*(own.table["split"] for own in found.values())))
    if found:
        found[ALWAYS] = constant(next(iter(found.values())), label)
    parts = {split: {run: own.of(split) for run, own in found.items()} for split in splits}
    return {split: {run: part for run, part in own.items() if len(part.table)} for split, own in parts.items()}


def lesion_rows(
    parts: Sequence[Predictions],
    method: str,
    *,
    draws: Draws,
    limits: Limits,
    options: Options,
    positive: Sequence[str] | None,
    metrics: Sequence[str] = METRICS,
    notes: Sequence[str] = (),
) -> list[dict[str, object]]:
    """The rows of metrics.csv about a method on test lesions; see `evaluate`.

    `parts` are the predictions of its networks for the same lesions, of which the mean is taken.
    `draws`: resamples and seed; `limits`: confidence and min_draws_share; `metrics`: those that have a row.
    """
    measured = _measured(
        {(method, number): part for number, part in enumerate(parts)}, draws, options, positive, metrics
    )
    patients = parts[0].table["patient_id"].to_numpy()
    return _rows(method, None, TEST, list(measured.values()), patients, limits, notes)


def _measured(
    parts: Mapping[Run, Predictions],
    draws: Draws | None,
    options: Options,
    positive: Sequence[str] | None,
    metrics: Sequence[str] = METRICS,
) -> dict[Run, Measured]:
    """The networks on one split, all in the same draws of its patients; without `draws` there are no intervals."""
    if not parts:
        return {}
    patients = next(iter(parts.values())).table["patient_id"]
    weights = np.ones((len(patients), 1))  # the metrics themselves
    if draws:
        weights = np.hstack([weights, patient_resamples(patients, **draws)])
    found = {}
    for run, part in parts.items():
        answers = answers_of(part)._replace(positive=None if positive is None else tuple(positive))
        values = weighted_scores(answers, weights, metrics, **options)
        drawn = {metric: own[1:] for metric, own in values.items()} if draws else {}
        start = part.question.pretrain_seed
        found[run] = Measured(answers, {metric: float(own[0]) for metric, own in values.items()}, drawn, start)
    return found


def _method_rows(
    measured: Mapping[Run, Measured],
    runs: Sequence[Run],
    split: str,
    patients: np.ndarray,
    limits: Limits,
) -> list[dict[str, object]]:
    """Rows of each method: its seeds, then their mean, whose note names the seeds that are missing."""
    several, rows = several_pretrainings(measured), []
    for method in dict.fromkeys(method for method, _ in runs):
        seeds = [seed for name, seed in runs if name == method]
        networks = {seed: measured[method, seed] for seed in seeds if (method, seed) in measured}
        for seed, network in networks.items():
            rows += _rows(method, seed, split, [network], patients, limits, [])
        gaps = [f"no {split} predictions of seed {seed}" for seed in seeds if seed not in networks]
        every = list(networks.values())
        of_one = several and count_pretrainings(every) == 1
        gaps += [OF_ONE] if of_one else []
        rows += _rows(method, None, split, every, patients, limits, gaps, several=several and not of_one)
    return rows


def _reference_rows(
    measured: Mapping[Run, Measured],
    trivial: Sequence[Run],
    label: str,
    split: str,
    patients: np.ndarray,
    limits: Limits,
) -> list[dict[str, object]]:
    """Rows of what is no network, with a note on each; that of always `label` only where others have predictions."""
    told = {run: f"sees of a crop only {SEES[run[0]]}" for run in trivial}
    if measured:
        told[ALWAYS] = f"always answers {label}, the most frequent class of the training lesions"
    rows = []
    for run, note in told.items():
        networks = [measured[run]] if run in measured else []
        gaps = [] if networks else [f"no {split} predictions"]
        rows += _rows(run[0], None, split, networks, patients, limits, [note, *gaps])
    return rows


def _rows(
    method: str,
    seed: int | None,
    split: str,
    networks: Sequence[Measured],
    patients: np.ndarray,
    limits: Limits,
    notes: Sequence[str],
    *,
    several: bool = False,
) -> list[dict[str, object]]:
    """One row per metric: the mean over `networks` (empty if all are missing), and notes that limit its meaning.

    `several`: whether its interval is for other pre-trainings too.
    """
    rows = []
    for metric in networks[0].values if networks else METRICS:
        row: dict[str, Any] = {"method": method, "seed": seed, "split": split, "metric": metric}
        row["note"] = NOTE_SEPARATOR.join(notes)
        if networks:
            values = np.array([network.values[metric] for network in networks])
            row["value"] = values.mean()
            row["sd"] = values.std(ddof=1) if len(values) > 1 else np.nan
            truth = networks[0].answers.truth
            row |= {"lesions": len(truth), "classes_present": int(truth.any(axis=0).sum())}
            row["pretrain_seed"] = None if seed is None else networks[0].pretrain_seed
            row["note"] = NOTE_SEPARATOR.join([*notes, *class_notes(networks[0].answers, metric, split, values)])
        if networks and networks[0].drawn:
            drawn = np.mean([network.drawn[metric] for network in networks], axis=0)
            bounds = interval(values.mean(), drawn, **limits)
            if several:
                bounds = interval_anew(values.mean(), drawn, [anew(networks, metric)], **limits)
            row["low"], row["high"] = np.clip(bounds, 0, 1)
            more = draw_notes(networks[0].answers, metric, values, drawn, patients, **limits)
            row["note"] = NOTE_SEPARATOR.join(filter(None, [row["note"], *more]))
        rows.append(row)
    return rows


def _write(path: Path, rows: list[dict[str, object]], columns: list[str], whole_numbers: list[str]) -> None:
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(whole_numbers, "Int64"))
    write_csv(table, path, float_format="%.6f")
