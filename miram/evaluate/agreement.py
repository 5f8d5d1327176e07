"""Whether two runs agree: every number of one metrics.csv compared with that of another.

A number is a metric of a method in a section (protocol, task, mode): the mean over the method's seeds on the test
split. Its grade is the first of GRADES that holds:

same: all digits are equal, including those of each seed and of the validation split.
numerics: none of these differs by more than NUMERICS_LIMIT, half of the last digit that the tables print.
agrees: each of the two is in the other's interval: that over patients in metrics.csv, widened by the spread of
training if several seeds show it, at CONFIDENCE, since many numbers are tested at once. Agreement shows equality
only up to these intervals.
told apart: one is outside the other's interval. A number without an interval is never told apart.
missing: one of the runs has no such number.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from miram.errors import MiramError
from miram.evaluate.metrics import METRIC_COLUMNS
from miram.evaluate.predictions import SECTION
from miram.evaluate.statistics import between_runs_margin, widened
from miram.predictions import TEST

NUMBER = [*SECTION, "method", "metric"]
ROW = [*NUMBER, "seed", "split"]
MEASURES, COUNTS = ["value", "low", "high", "sd"], ["lesions", "classes_present"]
GRADES = SAME, NUMERICS, AGREES, TOLD_APART, MISSING = ("same", "numerics", "agrees", "told apart", "missing")
NUMERICS_LIMIT = 0.0005
CONFIDENCE = 0.99
LAST_DIGIT = 1e-6  # of metrics.csv


def read_metrics(path: Path) -> pd.DataFrame:
    """A metrics.csv, all as text; raises MiramError if it is missing or malformed."""
    remedy = "Name the folder of a run's results, such as results/demo."
    if not path.is_file():
        raise MiramError(f"There is no {path}.", remedy)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table[MEASURES].apply(pd.to_numeric)
    except (ValueError, KeyError) as error:
        raise MiramError(f"{path} is damaged: {error}", remedy) from error
    if list(table.columns) != METRIC_COLUMNS or table.duplicated(ROW).any():
        raise MiramError(f"{path} is not a table of metrics: other columns, or duplicate rows.", remedy)
    return table


def graded(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row per number of either run: NUMBER, grade, and for both runs `seeds` and MEASURES, suffixes _1 and _2."""
    rows = first.merge(second, on=ROW, how="outer", suffixes=("_1", "_2"), indicator="of", sort=False)
    rows["same"] = (rows["of"] == "both") & _equal(rows, [*MEASURES, *COUNTS])
    for name in MEASURES:
        rows[[f"{name}_1", f"{name}_2"]] = rows[[f"{name}_1", f"{name}_2"]].apply(pd.to_numeric)
    rows["near"] = (rows["of"] == "both") & _equal(rows, COUNTS) & _near(rows)
    whole = rows.groupby(NUMBER)[["same", "near"]].all()
    numbers = rows[(rows["split"] == TEST) & (rows["seed"] == "")].join(whole, on=NUMBER, rsuffix="_everywhere")
    for run in (1, 2):
        trained = rows[(rows["split"] == TEST) & (rows["seed"] != "") & rows[f"value_{run}"].notna()]
        numbers = numbers.join(trained.groupby(NUMBER)["seed"].agg(", ".join).rename(f"seeds_{run}"), on=NUMBER)
        numbers = numbers.join(_trainings(trained, run), on=NUMBER)
    numbers = numbers.fillna({"seeds_1": "", "seeds_2": ""})
    numbers["grade"] = [_grade(row) for row in numbers.to_dict("records")]
    methods = list(dict.fromkeys([*first["method"], *second["method"]]))
    numbers = numbers.sort_values("method", key=lambda names: names.map(methods.index), kind="stable")
    columns = [*NUMBER, "grade", "seeds_1", "seeds_2", *(f"{name}_{run}" for run in (1, 2) for name in MEASURES)]
    return numbers[columns].reset_index(drop=True)


def _trainings(trained: pd.DataFrame, run: int) -> pd.DataFrame:
    """How many independent trainings a run has of each number, and their sd: pre-trainings where there are several."""
    start = trained.groupby(NUMBER)[f"pretrain_seed_{run}"].transform("nunique").gt(1)
    own = trained.assign(start=trained[f"pretrain_seed_{run}"].where(start, trained["seed"]))
    means = own.groupby([*NUMBER, "start"])[f"value_{run}"].mean().groupby(NUMBER)
    return means.agg(["size", "std"]).set_axis([f"trainings_{run}", f"spread_{run}"], axis=1)


def worst(grades: Sequence[str]) -> str:
    """The grade of several numbers together."""
    return max(grades, key=GRADES.index)


def _equal(rows: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    return pd.concat([rows[f"{name}_1"] == rows[f"{name}_2"] for name in names], axis=1).all(axis=1)


def _near(rows: pd.DataFrame) -> pd.Series:
    """Whether no measure differs by more than the limit; measures missing on both sides are equal."""
    steps = [(rows[f"{name}_1"] - rows[f"{name}_2"]).abs() for name in MEASURES]
    absent = [rows[f"{name}_1"].isna() & rows[f"{name}_2"].isna() for name in MEASURES]
    limit = NUMERICS_LIMIT + LAST_DIGIT / 2
    return pd.concat([(s <= limit) | a for s, a in zip(steps, absent, strict=True)], axis=1).all(axis=1)


def _grade(row: dict) -> str:
    if row["same_everywhere"]:
        return SAME
    values = row["value_1"], row["value_2"]
    if row["of"] != "both" or sum(map(math.isnan, values)) == 1:
        return MISSING
    if row["near_everywhere"]:
        return NUMERICS
    if math.isnan(values[0]):
        return AGREES
    within = all(low - LAST_DIGIT <= value <= high + LAST_DIGIT for value, (low, high) in _faced(row))
    return AGREES if within else TOLD_APART


def _faced(row: dict) -> list[tuple[float, tuple[float, float]]]:
    """Each run's value and the interval of the other's; the full range if nothing is known of other patients."""
    counts = [0 if math.isnan(row[f"trainings_{run}"]) else int(row[f"trainings_{run}"]) for run in (1, 2)]
    margin = between_runs_margin([row["spread_1"], row["spread_2"]], counts, CONFIDENCE)
    found = []
    for own, other in ((1, 2), (2, 1)):
        value = row[f"value_{other}"]
        low, high = row[f"low_{other}"], row[f"high_{other}"]
        low, high = (0.0, 1.0) if math.isnan(low) else (low, high)
        found.append((row[f"value_{own}"], widened(value, low, high, 0.0 if math.isnan(margin) else margin)))
    return found
