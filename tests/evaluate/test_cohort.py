"""Who is in the data, and how results differ by group."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from study_fixtures import write

from miram.evaluate.cohort import cohort
from miram.layout import Cell

VALUES = {
    **{"resamples": 2000, "seed": 0, "confidence": 0.95, "min_draws_share": 0.9},
    **{"specificity": 0.9, "threshold": 0.5, "bins": 15, "compared": ["accuracy"]},
}
PATIENTS = 400  # two test lesions each


@pytest.fixture
def described(tmp_path):
    """Of 800 test lesions half are dense: there all answers are right, elsewhere those of half of the patients."""
    numbers = np.arange(2 * PATIENTS)
    dense = numbers // 2 % 2 == 0
    table = pd.DataFrame(
        {"lesion_id": [f"L{n:04d}" for n in numbers], "patient_id": [f"P{n // 2:03d}" for n in numbers]}
    )
    truth = numbers % 2
    right = dense | (numbers // 4 % 2 == 0)
    malignant = np.where(truth == right, 1.0, 0.0)
    lesions = table.assign(
        abnormality="mass", pathology=np.array(["BENIGN", "MALIGNANT"])[truth], breast_density=np.where(dense, "4", ""),
        assessment="", subtlety="", view="CC", film_uid=table["lesion_id"], crop_rows=numbers + 1, crop_columns=10,
    )  # fmt: skip
    more = lesions.head(3).assign(lesion_id=["T1", "T2", "T3"], patient_id=["Q1", "Q1", "Q2"], film_uid=["F", "F", "G"])
    lesions = pd.concat([lesions, more])
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    splits = lesions[["lesion_id"]].assign(split=["test"] * len(table) + ["train", "train", "excluded"])
    splits.to_csv(tmp_path / "splits.csv", index=False)
    pd.DataFrame({"lesion_id": ["A", "B"], "reason": "empty"}).to_csv(tmp_path / "set_aside.csv", index=False)
    files = {}
    for seed in (0, 1):
        cell = Cell("strict", "pathology", "finetune", "mae", seed)
        files[cell] = tmp_path / f"{seed}.parquet"
        answers = table.assign(split="test", label=lesions["pathology"].head(len(table)))
        write(files[cell], cell, answers.assign(prob_BENIGN=1 - malignant, prob_MALIGNANT=malignant))
    outputs = tuple(tmp_path / name for name in ("cohort.csv", "subgroups.csv", "leak.csv", "cohort.md"))
    tables = tmp_path / "lesions.csv", tmp_path / "set_aside.csv", {"strict": tmp_path / "splits.csv"}
    facts = cohort(*tables, files, outputs, listed={"series": 1606}, preset="demo", **VALUES)
    return facts, pd.read_csv(outputs[0]), pd.read_csv(outputs[1]), outputs[3].read_text()


def test_the_rows_of_each_characteristic_add_up_to_the_split(described):
    counts = described[1]
    every = counts[counts["characteristic"] == "all"].set_index("split")
    assert every["lesions"].to_dict() == {"excluded": 1, "test": 800, "train": 2}
    assert every.loc["train", ["patients", "films"]].to_list() == [1, 1]
    assert set(counts["characteristic"]) == {
        "all",
        "kind",
        "pathology",
        "density",
        "view",
        "crop size",
    }  # not blank ones
    sums = counts.groupby(["characteristic", "split"])["lesions"].sum().unstack()
    assert (sums == every["lesions"]).all().all()
    density = counts[(counts["characteristic"] == "density") & (counts["split"] == "test")].set_index("value")
    assert density["patients"].to_dict() == {"4": 200, "unknown": 200}


def test_the_rows_of_groups_add_up_and_their_intervals_are_those_of_so_many_patients(described):
    facts, _, groups, _ = described
    assert (groups["metric"] == "accuracy").all() and (groups["method"] == "mae").all()
    assert (groups.groupby("column")["lesions"].sum() == 800).all()
    weighted = (groups["value"] * groups["lesions"]).groupby(groups["column"]).sum() / 800
    assert weighted.to_numpy() == pytest.approx(0.75)
    rows = groups[groups["column"] == "density"].set_index("group")
    assert rows.loc["4", "value"] == 1 and rows.loc["4", ["low", "high"]].isna().all()  # all are right in every draw
    half = 1.96 * math.sqrt(0.5 * 0.5 / 200)
    found = rows.loc["unknown"]
    assert (found["value"], found["lesions"], found["patients"], found["sd"]) == (0.5, 400, 200, 0)
    assert (found["low"], found["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)
    assert facts == {"groups": len(groups), "intervals": int(groups["low"].notna().sum())}


def test_the_text_shows_the_way_the_counts_and_how_many_intervals_there_are(described):
    facts, _, _, text = described
    assert "1606 series\n805 lesions listed\n├── 2 set aside (set_aside.md)\n└── 803 with a crop\n" in text
    assert "    └── protocol strict\n        ├── 2 train\n        ├── 800 test\n        └── 1 excluded\n" in text
    assert re.search(r"\| density +\| 4 +\| 2 \(1\) +\| 400 \(200\)", text)
    said = " ".join(text.split())
    assert "EXPLORATORY. Task pathology, protocol strict, finetune" in said
    assert f"These are {facts['intervals']} intervals of {facts['groups']} groups" in said
