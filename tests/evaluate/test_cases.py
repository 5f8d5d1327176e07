import math

import numpy as np
import pandas as pd
import pytest

from miram.evaluate.cases import measure_cases
from miram.predictions import Predictions, Question

OPTIONS = {"specificity": 0.9, "threshold": 0.5, "bins": 15}
DRAWS = {"resamples": 2000, "seed": 0, "confidence": 0.95, "min_draws_share": 0.9, "positive": None}


def answered(right, patients):
    """A table of benign and malignant lesions in turn, answered with certainty 0.9."""
    truth = np.arange(len(right)) % 2
    malignant = np.where(truth == right, 0.9, 0.1)
    table = pd.DataFrame({"lesion_id": range(len(right)), "patient_id": patients, "split": "test"})
    table["label"] = np.array(["BENIGN", "MALIGNANT"])[truth]
    return table.assign(prob_BENIGN=1 - malignant, prob_MALIGNANT=malignant)


def asked(table, separator=None):
    """The same as predictions of the classes that its columns name."""
    classes = tuple(name.removeprefix("prob_") for name in table if name.startswith("prob_"))
    return Predictions(Question("", "finetune", 0, classes, separator, separator and 0.5), table)


def accuracy(figures, column="", group=""):
    rows = figures.rows.query("method == 'network' and metric == 'accuracy' and column == @column and group == @group")
    return rows.iloc[0]


@pytest.mark.parametrize("copies", [1, 4])
def test_the_interval_is_that_of_so_many_patients_however_many_lesions_each_has(tmp_path, copies):
    right = np.repeat(np.arange(400) % 4 != 3, 2 * copies).astype(int)  # three of four patients
    table = answered(right, np.repeat(np.arange(400), 2 * copies))
    row = accuracy(measure_cases(asked(table), [], tmp_path / "m.csv", options=OPTIONS, **DRAWS))
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (row["value"], row["lesions"], row["patients"]) == (0.75, 800 * copies, 400)
    assert (row["low"], row["high"]) == pytest.approx((0.75 - half, 0.75 + half), abs=0.005)


def test_cases_that_are_all_answered_right_have_no_interval_and_the_note_says_why(tmp_path):
    row = accuracy(
        measure_cases(asked(answered(np.ones(6), range(6))), [], tmp_path / "m.csv", options=OPTIONS, **DRAWS)
    )
    assert row["value"] == 1 and np.isnan(row["low"]) and np.isnan(row["high"])
    assert "no interval where the value is the same in at least 95% of the draws of patients" in row["note"]


def test_groups_have_their_own_figures_and_a_column_of_many_values_is_passed_over(tmp_path):
    table = answered(np.ones(40, int), np.arange(40)).assign(view=["CC", "MLO"] * 20, age=np.arange(40).astype(str))
    table.loc[table["view"] == "CC", ["prob_BENIGN", "prob_MALIGNANT"]] = [0.2, 0.8]  # and those are benign
    figures = measure_cases(asked(table), ["view", "age"], tmp_path / "m.csv", options=OPTIONS, **DRAWS)
    assert accuracy(figures)["value"] == 0.5
    assert [accuracy(figures, "view", group)["value"] for group in ("CC", "MLO")] == [0, 1]
    assert figures.passed_over == {"age": 40} and not figures.absent
    only = figures.rows.query("group == 'CC' and metric == 'macro_auc'").iloc[0]
    assert np.isnan(only["value"]) and "no test lesion of MALIGNANT" in only["note"]
    assert set(figures.rows.query("column == 'view'")["method"]) == {"network"}


def test_calibration_is_the_share_of_right_answers_by_confidence_and_absent_classes_are_named(tmp_path):
    table = answered(np.arange(40) % 4 != 0, np.arange(40)).assign(prob_OTHER=0.0)
    figures = measure_cases(asked(table), [], tmp_path / "m.csv", options=OPTIONS, **DRAWS)
    (bin_,) = figures.calibration.to_dict("records")
    assert bin_ == {"confidence": pytest.approx(0.9), "right": 0.75, "count": 40}
    assert figures.absent == ["OTHER"]
    ece = figures.rows.query("method == 'network' and metric == 'ece'")["value"].iloc[0]
    assert ece == pytest.approx(0.15)
    several = measure_cases(asked(table, "-"), [], tmp_path / "m.csv", options=OPTIONS, **DRAWS)
    assert several.calibration["count"].sum() == 120
