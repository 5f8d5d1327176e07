"""Grades of numbers that two runs measured: each with the smallest step that gives it and the largest that does not."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from miram.errors import MiramError
from miram.evaluate.agreement import (
    AGREES,
    MISSING,
    NUMERICS,
    SAME,
    TOLD_APART,
    _trainings,
    graded,
    read_metrics,
    worst,
)
from miram.evaluate.metrics import METRIC_COLUMNS
from miram.evaluate.statistics import between_runs_margin

PLACE = {"protocol": "strict", "task": "pathology", "mode": "finetune", "method": "mae", "metric": "accuracy"}
COUNTS = {"lesions": "91", "classes_present": "4", "note": "", "pretrain_seed": ""}


def table(value=0.7, low=0.6, high=0.8, sd=0.0, seeds=(0,), validation=0.75, lesions="91", **place):
    """metrics.csv of one number; the seeds stand `sd` about its value."""
    spread = np.array([0.0]) if len(seeds) == 1 else sd * np.array([-1, 1]) / math.sqrt(2)
    rows = [(str(seed), "test", value + step, "") for seed, step in zip(seeds, spread, strict=True)]
    rows += [("", "validation", validation, ""), ("", "test", value, sd if len(seeds) > 1 else "")]
    found = [
        {
            **({**PLACE, **place, **COUNTS, "lesions": lesions}),
            **{"seed": seed, "split": split, "value": "" if math.isnan(number) else f"{number:.6f}"},
            **{"low": f"{low:.6f}", "high": f"{high:.6f}", "sd": sd and f"{sd:.6f}"},
        }
        for seed, split, number, sd in rows
    ]
    return pd.DataFrame(found)[METRIC_COLUMNS].astype(str)


def grade(first, second):
    found = graded(first, second)
    assert graded(second, first)["grade"].tolist() == found["grade"].tolist()  # neither run is the reference
    return found["grade"].tolist()


def test_a_number_is_the_same_only_when_all_its_digits_are_also_those_of_validation():
    assert grade(table(), table()) == [SAME]
    assert grade(table(), table(value=0.700001)) == [NUMERICS]
    assert grade(table(), table(validation=0.750001)) == [NUMERICS]


def test_numerics_end_at_half_of_the_last_digit_of_the_tables():
    assert grade(table(), table(value=0.7005)) == [NUMERICS]
    assert grade(table(), table(value=0.7006)) == [AGREES]
    assert grade(table(), table(high=0.802)) == [AGREES]


def test_numbers_of_other_lesions_are_no_matter_of_numerics():
    assert grade(table(), table(lesions="90")) == [AGREES]


def test_each_value_has_to_lie_in_the_others_interval():
    assert grade(table(), table(value=0.62, low=0.5, high=0.72)) == [AGREES]
    assert grade(table(), table(value=0.59, low=0.49, high=0.72)) == [TOLD_APART]
    assert grade(table(), table(value=0.62, low=0.6, high=0.64)) == [TOLD_APART]


def test_the_spread_of_seeds_widens_the_interval_and_one_run_may_tell_it():
    far = {"value": 0.5, "low": 0.4, "high": 0.6}
    assert grade(table(sd=0.001, seeds=(0, 1)), table(**far, sd=0.001, seeds=(2, 3))) == [TOLD_APART]
    assert grade(table(sd=0.03, seeds=(0, 1)), table(**far, sd=0.03, seeds=(2, 3))) == [AGREES]
    assert grade(table(sd=0.03, seeds=(0, 1)), table(**far)) == [AGREES]


def test_the_margin_of_the_seeds_is_that_at_which_students_test_has_its_level():
    first, second = np.array([0.70, 0.74, 0.71]), np.array([0.60, 0.63])
    sds, seeds = [first.std(ddof=1), second.std(ddof=1)], [3, 2]
    level = ttest_ind(first, second).pvalue
    margin = between_runs_margin(sds, seeds, 1 - level)
    assert margin == pytest.approx(first.mean() - second.mean())
    for no_spread in ([1, 1], [0, 0], [0, 2]):
        assert math.isnan(between_runs_margin([math.nan, math.nan], no_spread, 0.99))
    assert math.isnan(between_runs_margin([0.0, 0.0], [2, 2], 0.99))
    assert between_runs_margin([math.nan, 0.03], [1, 2], 0.99) > 0


def test_other_seeds_are_told_and_compared_by_their_means():
    found = graded(table(seeds=(0, 1), sd=0.02), table(seeds=(2, 3), sd=0.02)).iloc[0]
    assert (found["grade"], found["seeds_1"], found["seeds_2"]) == (AGREES, "0, 1", "2, 3")


def test_what_only_one_run_has_is_missing_and_kept():
    both = pd.concat([table(), table(method="mocov3")])
    assert grade(both, table()) == [SAME, MISSING]
    assert grade(table(), table(value=math.nan)) == [MISSING]
    assert grade(table(value=math.nan), table(value=math.nan, validation=0.7)) == [AGREES]
    assert worst([SAME, MISSING, TOLD_APART]) == MISSING


def test_a_number_without_an_interval_is_never_told_apart_but_the_other_run_may_have_one():
    bare = table(value=0.9).assign(low="", high="")
    assert grade(table().assign(low="", high=""), bare) == [AGREES]
    assert grade(table(), bare) == [TOLD_APART]


def test_other_notes_are_no_other_digits():
    assert grade(table(), table().assign(note="few draws")) == [SAME]


def test_the_spread_of_training_is_that_between_pre_trainings_where_there_are_several():
    rows = [("3", "0", 0.60), ("3", "1", 0.62), ("5", "2", 0.70), ("5", "3", 0.72)]
    names = ["pretrain_seed_1", "seed", "value_1"]
    several = pd.DataFrame([dict(zip(names, row, strict=True)) | PLACE for row in rows])
    found = [_trainings(own, 1).iloc[0].tolist() for own in (several, several.assign(pretrain_seed_1="3"))]
    assert found[0] == pytest.approx([2, 0.1 / math.sqrt(2)])
    assert found[1] == pytest.approx([4, np.std([0.60, 0.62, 0.70, 0.72], ddof=1)])


def test_the_methods_keep_the_order_of_the_table():
    both = pd.concat([table(method="b"), table(method="a")])
    assert graded(both, both)["method"].tolist() == ["b", "a"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", table().assign(value="much").to_csv(index=False)])
def test_what_is_no_table_of_metrics_is_named(tmp_path, text):
    path = tmp_path / "metrics.csv"
    with pytest.raises(MiramError, match="There is no"):
        read_metrics(path)
    path.write_text(text)
    with pytest.raises(MiramError, match=r"metrics\.csv is"):
        read_metrics(path)
    pd.concat([table(), table()]).to_csv(path, index=False)
    with pytest.raises(MiramError, match="duplicate rows"):
        read_metrics(path)
