"""What the leak does to accuracy, on answers whose accuracy in both groups is known."""

import math

import numpy as np
import pandas as pd
import pytest

from miram.evaluate.leak import GAP, OTHERS, SEEN, leak_table, leak_text, seen_patients
from miram.predictions import Predictions, Question

PATIENTS, LEAKED = 1000, 200
DRAWS, LIMITS = {"resamples": 2000, "seed": 0}, {"confidence": 0.95, "min_draws_share": 0.9}


def answers(seen_right, others_right, *, seed=0, separator=None):
    """One lesion a patient; the first patients are leaked, and of each group the named share is answered right."""
    at = np.arange(PATIENTS)
    within = np.where(at < LEAKED, at / LEAKED, (at - LEAKED) / (PATIENTS - LEAKED))
    right = within < np.where(at < LEAKED, seen_right, others_right)
    truth = at % 2
    malignant = np.where(right, truth, 1 - truth).astype(float)
    table = pd.DataFrame({"lesion_id": [f"L{n:04d}" for n in at], "patient_id": [f"P{n:04d}" for n in at]})
    table = table.assign(split="test", label=np.array(["BENIGN", "MALIGNANT"])[truth])
    table = table.assign(prob_BENIGN=1 - malignant, prob_MALIGNANT=malignant)
    return Predictions(Question("pathology", "finetune", seed, ("BENIGN", "MALIGNANT"), separator, None), table)


@pytest.fixture
def seen():
    return {"strict": set(), "published": {f"P{n:04d}" for n in range(LEAKED)}}


def test_a_patient_is_seen_only_where_a_protocol_tests_and_trains_on_them():
    lesions = pd.DataFrame({"lesion_id": list("abcdef"), "patient_id": list("PPQQRR")})
    parts = {"published": "train test validation test test test", "strict": "excluded test train train test test"}
    splits = {name: lesions[["lesion_id"]].assign(split=of.split()) for name, of in parts.items()}
    assert seen_patients(lesions, splits) == {"published": {"P", "Q"}, "strict": set()}


def test_the_change_of_the_difference_is_what_the_leak_adds(seen):
    networks = {
        ("mae", "strict"): [answers(0.5, 0.7)],
        ("mae", "published"): [answers(0.8, 0.7), answers(1.0, 0.7, seed=1)],  # 0.9 on the mean
    }
    table = leak_table(networks, seen, draws=DRAWS, limits=LIMITS).set_index(["protocol", "group"])
    expected = {"strict": (0.5, 0.7, -0.2), "published": (0.9, 0.7, 0.2), "published - strict": (0.4, 0.0, 0.4)}
    for protocol, values in expected.items():
        assert table.loc[protocol, "value"].to_dict() == pytest.approx(
            dict(zip((SEEN, OTHERS, GAP), values, strict=True))
        )
    assert table.loc["strict", "lesions"].to_list() == [LEAKED, PATIENTS - LEAKED, PATIENTS]
    parts = {SEEN: 0.25 / LEAKED, OTHERS: 0.21 / (PATIENTS - LEAKED)}
    for group, variance in (parts | {GAP: sum(parts.values())}).items():  # as of independent patients
        row, half = table.loc[("strict", group)], 1.96 * math.sqrt(variance)
        assert (row["low"], row["high"]) == pytest.approx((row["value"] - half, row["value"] + half), abs=0.01)
    change = table.loc[("published - strict", OTHERS)]
    assert change[["low", "high"]].isna().all()  # the same answers of the same lesions


def test_lesions_that_are_all_answered_alike_have_no_interval(seen):
    table = leak_table({("mae", "published"): [answers(0.0, 0.7)]}, seen, draws=DRAWS, limits=LIMITS)
    limits = table.set_index("group")[["low", "high"]]
    assert limits.loc[SEEN].isna().all() and limits.loc[[OTHERS, GAP]].notna().all(axis=None)


def test_a_few_seen_patients_all_answered_alike_have_no_interval_though_some_draws_have_none_of_them():
    few = {"published": {"P0000", "P0001", "P0002"}}
    table = leak_table({("mae", "published"): [answers(0.0, 0.7)]}, few, draws=DRAWS, limits=LIMITS)
    row = table.set_index("group").loc[SEEN]
    assert row["value"] == 0 and row["lesions"] == 3 and np.isnan(row["low"]) and np.isnan(row["high"])


def test_the_text_has_a_row_per_method_and_says_whom_the_protocol_trains_on(seen):
    networks = {("mae", "strict"): [answers(0.5, 0.7)], ("mocov3", "strict"): [answers(0.5, 0.75)]}
    networks |= {("mae", "published"): [answers(0.9, 0.7)]}
    text = leak_text(leak_table(networks, seen, draws=DRAWS, limits=LIMITS), seen, 0.95)
    said = text[0].replace("\n", " ")
    assert "Protocol published trains on patients of 200 lesions (200 patients) of the test split too" in said
    heading, _, mae, mocov3 = text[1].splitlines()
    assert [name.strip() for name in heading.split("|")[2:-1]] == [
        *("strict: patient seen", "strict: others", "published: patient seen", "published: others"),
        "published - strict: change of the difference",
    ]
    assert [cell.split()[0] for cell in mae.split("|")[1:-1]] == ["mae", "50.0", "70.0", "90.0", "70.0", "40.0"]
    assert [cell.split()[0] for cell in mocov3.split("|")[1:-1]] == ["mocov3", "50.0", "75.0", "-", "-", "-"]


@pytest.mark.parametrize("reason", ["no network", "several classes", "nobody seen"])
def test_nothing_is_measured_where_it_has_no_meaning(reason, seen):
    networks = {("mae", "strict"): [answers(0.5, 0.7, separator="-" if reason == "several classes" else None)]}
    patients = {name: set() for name in seen} if reason == "nobody seen" else seen
    table = leak_table({} if reason == "no network" else networks, patients, draws=DRAWS, limits=LIMITS)
    assert table.empty
    said = "No patient is seen." if reason == "nobody seen" else "(protocol published)"
    assert said in leak_text(table, patients, 0.95)[0]
