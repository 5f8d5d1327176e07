"""Fixtures that the tests of evaluation and of the report share: predictions, and a study made of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from miram.evaluate.metrics import evaluate
from miram.layout import Cell
from miram.predictions import PROBABILITY, Predictions, Question, write_predictions

SECTIONS = [  # two protocols of the main task, and one of another mode
    ("strict", "pathology_4class", "finetune"),
    ("published", "pathology_4class", "finetune"),
    ("strict", "pathology_4class", "knn"),
]
OPTIONS = {  # few draws, so that the tests are quick
    **{
        "resamples": 100,
        "seed": 0,
        "confidence": 0.95,
        "power": 0.8,
        "min_draws_share": 0.9,
    },
    **{"specificity": 0.9, "threshold": 0.5, "bins": 10, "compared": ["accuracy", "macro_auc"], "reference": "mae"},
}
MAJORITIES = {  # (protocol, task) -> the most frequent label of its training lesions
    **{(protocol, "pathology_4class"): "BENIGN_MASS" for protocol in ("strict", "published")},
    **{(protocol, "pathology"): "BENIGN" for protocol in ("strict", "published")},
    ("strict", "mass_margins"): "CIRCUMSCRIBED",
}
CLASSES = ["BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC"]


def write(path, cell, table, separator=None, pretrain_seed=None):
    """A predictions file of a cell, whose classes are those of the columns."""
    classes = tuple(name.removeprefix(PROBABILITY) for name in table if name.startswith(PROBABILITY))
    question = Question(cell.task, cell.mode, cell.seed, classes, separator, 0.5 if separator else None, pretrain_seed)
    write_predictions(path, Predictions(question, table))


@pytest.fixture
def predictions():
    """Make a predictions table: the same lesions each time, other probabilities with each seed."""

    def make(seed: int, test_labels=tuple(range(4)) * 6) -> pd.DataFrame:
        labels = np.array([*test_labels, 0, 1, 2, 3, 3])
        probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), len(labels)).astype(np.float32)
        table = pd.DataFrame(
            {
                "lesion_id": [f"Mass-Test_P_{number:05d}_LEFT_CC_1" for number in range(len(labels))],
                "patient_id": [f"P_{number // 2:05d}" for number in range(len(labels))],
                "split": ["test"] * len(test_labels) + ["validation"] * 5,
                "label": [CLASSES[number] for number in labels],
            }
        )
        return table.assign(**{f"prob_{name}": probabilities[:, number] for number, name in enumerate(CLASSES)})

    return make


@pytest.fixture
def evaluated():
    """Measure predictions by cell; gives the facts, metrics.csv and differences.csv, which lie in a folder."""

    def run(files, folder, **changed):
        tables = [folder / f"{name}.csv" for name in ("metrics", "differences", "variance")]
        facts = evaluate(files, *tables, **{**OPTIONS, "majority": MAJORITIES, **changed})
        return facts, *(pd.read_csv(table, keep_default_na=False, na_values=[""]) for table in tables[:2])

    return run


@pytest.fixture
def write_record():
    """Write a pre-training record, as far as the table reads it; a keyword replaces or, with None, removes a fact."""

    def write(path, **changed):
        facts = {"parameters": 2_500_000, "seconds": 61.0, "peak_memory_bytes": 3 * 2**20, "peak_memory_kind": "RSS"}
        facts = {name: fact for name, fact in (facts | changed).items() if fact is not None}
        path.write_text(json.dumps({"stage": "pretrain", "inputs": {}, "outputs": {}, "facts": facts}))

    return write


@pytest.fixture
def study(tmp_path, monkeypatch, predictions, write_record):
    """Two pre-trained methods and one from scratch in each of SECTIONS, two seeds each; relative paths, as in a run.

    Gives predictions and records of the classifiers by cell, and lists of pre-training records by (protocol, method).
    """
    monkeypatch.chdir(tmp_path)
    files, pretrain_records, records = {}, {}, {}
    for section in SECTIONS:
        for number, method in enumerate(("from-scratch", "mae", "miram-linformer")):
            for seed in (0, 1):
                cell = Cell(*section, method, seed)
                folder = Path("runs", str(cell))
                folder.mkdir(parents=True)
                files[cell], records[cell] = folder / "predictions.parquet", folder / "record.json"
                write(files[cell], cell, predictions(10 * number + seed + 100 * SECTIONS.index(section)))
                records[cell].write_text("{}")
            if method != "from-scratch":
                place = section[0], method
                path = Path("runs", *place, "record.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_record(path)
                pretrain_records[place] = [path]
    return files, pretrain_records, records
