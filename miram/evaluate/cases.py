"""The metrics of one network on external cases: for all, and for each group by a column of their table."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from miram.evaluate.metrics import Draws, Limits, lesion_rows
from miram.evaluate.predictions import answers_of
from miram.evaluate.scores import Options, confidence_bins, confidences
from miram.evaluate.subgroups import group_rows
from miram.files import atomic_path
from miram.predictions import Predictions

NETWORK = "network"
ALL = ""  # the group of all cases
MOST_GROUPS = 12  # of a column; one with more, such as an age or an id, would give single cases
COLUMNS = [
    *("column", "group", "method", "metric", "value", "low", "high"),
    *("lesions", "patients", "classes_present", "note"),
]


class Figures(NamedTuple):
    """The measurements."""

    rows: pd.DataFrame  # COLUMNS; column and group are ALL for all cases
    passed_over: dict[str, int]  # columns of the table with too many groups, and how many
    calibration: pd.DataFrame  # confidence, right, count: means of each non-empty bin
    absent: list[str]  # classes of the network that no case has


def measure_cases(
    answered: Predictions,
    groups: Sequence[str],
    metrics_csv: Path,
    *,
    resamples: int,
    seed: int,
    confidence: float,
    min_draws_share: float,
    options: Options,
    positive: Sequence[str] | None,
) -> Figures:
    """Measure the predictions of a network, one row per lesion, and write the metrics of all cases and of each group.

    The table of `answered` also has the columns `groups`. The metrics and their intervals over patients are those of
    `metrics.evaluate`; `groups` with more than MOST_GROUPS values are skipped. Blank is a group of its own.
    """
    draws: Draws = {"resamples": resamples, "seed": seed}
    limits: Limits = {"confidence": confidence, "min_draws_share": min_draws_share}
    table = answered.table

    measure = partial(lesion_rows, method=NETWORK, draws=draws, limits=limits, options=options, positive=positive)
    place = {"column": ALL, "group": ALL, "patients": table["patient_id"].nunique()}
    every = [{**row, **place} for row in measure([answered])]
    passed_over = {name: count for name in groups if (count := table[name].nunique()) > MOST_GROUPS}
    for column in groups:
        if column not in passed_over:
            every += [row for row in group_rows([answered], column, measure) if row["method"] == NETWORK]
    figures = pd.DataFrame(every, columns=COLUMNS)
    with atomic_path(metrics_csv) as temporary:
        figures.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    here = {name for label in table["label"] for name in answered.question.classes_of(label)}
    absent = [name for name in answered.question.classes if name not in here]
    return Figures(figures, passed_over, _calibration(answered, options), absent)


def _calibration(answered: Predictions, options: Options) -> pd.DataFrame:
    confidence, outcome = confidences(answers_of(answered), options["threshold"])
    every = pd.DataFrame({"confidence": np.ravel(confidence), "right": np.ravel(outcome), "count": 1})
    grouped = every.groupby(confidence_bins(every["confidence"].to_numpy(), options["bins"]))
    return grouped.agg({"confidence": "mean", "right": "mean", "count": "sum"})
