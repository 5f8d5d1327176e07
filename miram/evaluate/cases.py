"""The metrics of one network on external cases: for all, and for each group by a column of their table."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from miram.evaluate.metrics import MAJORITY, Draws, Limits, lesion_rows
from miram.evaluate.predictions import answers_of, constant, most_frequent
from miram.evaluate.scores import Options, calibration
from miram.evaluate.subgroups import group_rows
from miram.files import write_csv
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
    question = answered.question
    label = most_frequent(table["label"], question.classes, question.separator)
    told = [f"always answers {label}, the most frequent class of these cases"]
    majority = measure([constant(answered, label)], method=MAJORITY, notes=told)
    every = [{**row, **place} for row in measure([answered]) + majority]
    passed_over = {name: count for name in groups if (count := table[name].nunique()) > MOST_GROUPS}
    for column in groups:
        if column not in passed_over:
            every += group_rows([answered], column, measure)
    figures = pd.DataFrame(every, columns=COLUMNS)
    write_csv(figures, metrics_csv, float_format="%.6f")
    here = {name for label in table["label"] for name in question.classes_of(label)}
    absent = [name for name in question.classes if name not in here]
    calibrated = calibration([answers_of(answered)], options["threshold"], options["bins"])
    return Figures(figures, passed_over, calibrated, absent)
