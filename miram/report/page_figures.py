"""The charts and pictures of the report, from predictions, logs, records and arrays; each a list that may be empty."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from miram.evaluate.claims import Limits
from miram.evaluate.predictions import of_section
from miram.evaluate.scores import calibration
from miram.looks import Look, looks_of_classes
from miram.report import charts, curves
from miram.report.about import MAIN, METRICS
from miram.report.efficiency import COSTS, Bench, verdicts
from miram.report.figures import RECONSTRUCTION_COLUMNS
from miram.report.page_tables import between_methods
from miram.report.pictures import overlay, png_uri, read_picture
from miram.report.study import Study
from miram.report.svg import inline_svg
from miram.report.template import readable

KINDS = {  # of curve -> title, x, y, function
    "roc": ("ROC", "false alarms / lesions of other classes", "found / lesions of the class", curves.roc),
    "pr": ("precision-recall", "found / lesions of the class", "true / all alarms", curves.precision_recall),
}
ERRORS = 8  # pictures


def forests(differences: pd.DataFrame | None, headline: tuple[str, str, str], confidence: float) -> list[Markup]:
    """The differences of accuracy and of macro AUC."""
    if differences is None:
        return []
    figures = []
    for metric in MAIN:
        title = METRICS[metric][0]
        rows = between_methods(of_section(differences, headline, metric=metric)).dropna(subset="difference")
        rows = rows.assign(**{name: 100 * rows[name] for name in ("difference", "low", "high")})
        if len(rows):
            text = f"differences in {title} between {len(rows)} pairs of methods, with intervals"
            figures.append(
                inline_svg(charts.forest(rows, title, told=rows["p_holm"] < 1 - confidence), f"forest-{metric}", text)
            )
    return figures


def class_curves(runs: curves.Runs, looks: Mapping[str, Look], kind: str) -> list[Markup]:
    """ROC ("roc") or precision-recall ("pr") of each class."""
    return [
        figure
        for number, name in enumerate(_classes(runs))
        for figure in _curve(kind, f"class-{number}", name, [number], runs, looks)
    ]


def mean_curves(runs: curves.Runs, looks: Mapping[str, Look], task: str) -> list[Markup]:
    """ROC and PR of a task, the mean over its classes."""
    numbers = range(len(_classes(runs)))
    return [figure for kind in KINDS for figure in _curve(kind, task, task, numbers, runs, looks)]


def _classes(runs: curves.Runs) -> Sequence[str]:
    return next((seeds[0].answers.classes for seeds in runs.values()), ())


def _curve(
    kind: str, place: str, name: str, numbers: Sequence[int], runs: curves.Runs, looks: Mapping[str, Look]
) -> list[Markup]:
    """One panel, the mean over the classes `numbers`; none where no class has a curve. `place` tells its ids apart."""
    title, x, y, function = KINDS[kind]
    lines = {}
    for method, seeds in runs.items():
        found = [line for line in (function(seeds, number) for number in numbers) if line is not None]
        if found:
            lines[method] = np.mean(found, axis=0)
    if not lines:
        return []
    figure = charts.curves(f"{readable(name)}: {title}", x, y, curves.GRID, lines, looks, diagonal=kind == "roc")
    return [inline_svg(figure, f"{kind}-{place}", f"{title} of {readable(name)}: {', '.join(lines)}")]


def reliabilities(runs: curves.Runs, looks: Mapping[str, Look], bins: int) -> list[Markup]:
    """One panel per method, with the bins of its expected calibration error; of lesions that have one class each."""
    return [
        inline_svg(
            charts.reliability(method, calibration([run.answers for run in seeds], np.nan, bins), looks[method]),
            f"calibration-{method}",
            f"calibration of {method}",
        )
        for method, seeds in runs.items()
    ]


def learning(logs: Mapping[str, Sequence[pd.DataFrame]], looks: Mapping[str, Look]) -> list[Markup]:
    """Validation and training over the epochs of fine-tuning, mean over the seeds of each method."""
    panels = {"val_macro_auc": "macro AUC on validation", "train_loss": "training loss"}
    return [
        inline_svg(
            charts.learning(
                {m: pd.concat(runs).groupby("epoch")[column].mean() for m, runs in logs.items()}, label, looks
            ),
            f"learning-{column}",
            f"{label} over the epochs of fine-tuning",
        )
        for column, label in panels.items()
        if logs
    ]


def losses(logs: Mapping[str, pd.DataFrame], looks: Mapping[str, Look]) -> list[Markup]:
    """The loss of each pre-training."""
    return [
        inline_svg(
            charts.loss(method, log.set_index("epoch")["loss"], looks[method]), f"loss-{method}", f"loss of {method}"
        )
        for method, log in logs.items()
    ]


def costs(efficiency: pd.DataFrame | None, looks: Mapping[str, Look]) -> list[Markup]:
    """Accuracy against time and memory of pre-training, from efficiency.csv, of the methods that have both."""
    measures = {
        "pretrain_seconds": ("time", "pre-training, s"),
        "pretrain_peak_memory_mib": ("memory", "peak memory of pre-training, MiB"),
    }
    if efficiency is None:
        return []
    known = efficiency.rename(columns=lambda name: name.removeprefix("accuracy_percent_")).dropna(subset="value")
    return [
        inline_svg(
            charts.cost(label, known.rename(columns={column: "cost"}), looks),
            f"cost-{name}",
            f"accuracy of each method against {label}",
        )
        for column, (name, label) in measures.items()
        if len(known)
    ]


def growth(bench: Bench, limits: Limits, number: int) -> dict[str, Any]:
    """Of one bench: what a layer of each attention costs against tokens, and what follows; `number` tells it apart."""
    figures = [
        inline_svg(
            charts.growth(label, bench.layers, column),
            f"growth-{number}-{column}",
            f"{label} against tokens, on {bench.name}",
        )
        for column, label in COSTS.items()
    ]
    return {"name": bench.name, "figures": figures, "rows": verdicts(bench, limits)}


def reconstructions(study: Study, files: Mapping[str, Path]) -> dict[str, list[dict[str, str]]]:
    """The first picture of each masked method, at each of its stages."""
    arrays = {method: study.arrays(path) for method, path in files.items()}
    return {
        method: [
            {"uri": png_uri(found[name][0]), "text": f"{text}, {found[name].shape[2]} px".replace("\n", " ")}
            for name, text in RECONSTRUCTION_COLUMNS.items()
            if name in found
        ]
        for method, found in arrays.items()
        if found is not None
    }


def relevance(study: Study, relevance_npz: Path, crops: Path, runs: curves.Runs) -> list[dict[str, Any]]:
    """For each lesion that was explained: its crop, and the map of each method that has answered, with its answer.

    `relevance_npz` holds lesion_id (N,) and for each method an array (N, g, g).
    """
    arrays = study.arrays(relevance_npz)
    if arrays is None:
        return []
    answers = {method: curves.given(seeds[0]).set_index("lesion_id") for method, seeds in runs.items()}
    lesions = []
    shown = [method for method in arrays if method in answers]
    for i, lesion_id in enumerate(arrays["lesion_id"] if shown else []):
        if any(lesion_id not in answers[method].index for method in shown):
            study.gaps.append(f"{relevance_npz} is outdated: the predictions have no test lesion {lesion_id}")
            continue
        crop = read_picture(crops / f"{lesion_id}.png")
        if crop is None:
            study.gaps.append(f"the crop of {lesion_id} cannot be read")
            continue
        maps = []
        for method in shown:
            given = answers[method].loc[lesion_id]
            maps.append(
                {
                    "method": method,
                    "uri": png_uri(overlay(crop, arrays[method][i])),
                    "answer": given["answer"],
                    "right": given["answer"] == given["label"],
                    "percent": round(100 * given["confidence"]),
                    "label": given["label"],
                }
            )
        lesions.append({"lesion_id": lesion_id, "label": maps[0]["label"], "crop": png_uri(crop), "maps": maps})
    return lesions


def embeddings(points: pd.DataFrame | None) -> dict[str, Any]:
    """A map a method, and the colour of each class.

    `points`: columns method, lesion_id, label, x, y and share, the part of the variance that x and y hold.
    """
    if points is None:
        return {"embeddings": [], "class_keys": {}}
    classes = sorted(points["label"].unique())
    figures = [
        inline_svg(
            charts.embedding(str(method), part, classes),
            f"embedding-{method}",
            f"map of the frozen features of {method}",
        )
        for method, part in points.groupby("method", sort=False)
    ]
    return {
        "embeddings": figures,
        "class_keys": {name: (look.colour, look.symbol) for name, look in looks_of_classes(classes).items()},
    }


def errors(runs: curves.Runs, crops: Path) -> list[dict[Hashable, Any]]:
    """The most confident wrong answers, each with the picture of its lesion, or None where there is none."""
    found = curves.confident_errors(runs, ERRORS) if runs else []
    for error in found:
        picture = read_picture(crops / f"{error['lesion_id']}.png")
        error["crop"] = None if picture is None else png_uri(picture)
        error["percent"] = round(100 * error["confidence"])
        error["methods"] = len(runs)
    return found


def confusions(runs: curves.Runs) -> list[dict[str, Any]]:
    """A matrix a method."""
    return [{"method": method, "rows": curves.confusion(seeds)} for method, seeds in runs.items()]
