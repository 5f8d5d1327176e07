import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

CLASSES = ["BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC"]


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
def write_record():
    """Write a pre-training record, as far as the table reads it; a keyword replaces or, with None, removes a fact."""

    def write(path, **changed):
        facts = {"parameters": 2_500_000, "seconds": 61.0, "peak_memory_bytes": 3 * 2**20, "peak_memory_kind": "RSS"}
        facts = {name: fact for name, fact in (facts | changed).items() if fact is not None}
        path.write_text(json.dumps({"stage": "pretrain", "outputs": {}, "facts": facts}))

    return write


@pytest.fixture
def study(tmp_path, monkeypatch, predictions, write_record):
    """Two pre-trained methods and one from scratch, two seeds each; paths relative to the working folder, as in a run.

    Gives predictions and fine-tuning records by (method, seed) and pre-training records by method.
    """
    monkeypatch.chdir(tmp_path)
    files, pretrain_records, finetune_records = {}, {}, {}
    for number, method in enumerate(("from-scratch", "mae", "miram-linformer")):
        for seed in (0, 1):
            folder = Path("runs", method, str(seed))
            folder.mkdir(parents=True)
            files[method, seed] = folder / "predictions.parquet"
            finetune_records[method, seed] = folder / "record.json"
            predictions(10 * number + seed).to_parquet(files[method, seed])
            finetune_records[method, seed].write_text("{}")
        if method != "from-scratch":
            pretrain_records[method] = Path("runs", method, "record.json")
            write_record(pretrain_records[method])
    return files, pretrain_records, finetune_records
