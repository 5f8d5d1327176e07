"""Claims about methods whose difference is known: networks trained on phantom lesions, judged by their predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from plain_values import of_values
from tiny_classifier import SEEN

from miram.evaluate.claims import judge
from miram.evaluate.metrics import evaluate
from miram.evaluate.rules import NOT_REPRODUCED, OPEN, REPRODUCED
from miram.layout import Cell
from miram.phantom.lesions import draw_lesion
from miram.recipe import Tuning
from miram.train.classifiers import Lesions, resized_to
from miram.train.finetune import finetune
from miram.train.seen import Seen
from miram.train.store import pack

PAPER = Path(__file__).parents[1] / "workflow" / "resources" / "paper.csv"
SPLITS = ["train"] * 120 + ["validation"] * 60 + ["test"] * 240
CLASSES = ("BENIGN", "MALIGNANT")
NOISE = 0.25  # share of the test lesions that show the other class to the method `noisy`
CONTRAST, GRAIN = 200.0, 16.0  # grey levels: about 93 % of the lesions are told right
METHODS = {"clean": (0.0, range(4)), "noisy": (NOISE, range(4)), "alike": (0.0, range(10, 14))}  # noise, seeds
TRAINING = {
    **{"encoder": {"patch": 8, "channels": 1, "width": 32, "depth": 2, "heads": 2, "mlp_ratio": 2.0}, "side": 48},
    **{"pool": "mean", "task": "pathology", "batch": 12, "epochs": 8, "warmup_epochs": 1, "lr": [2.0e-3]},
    **{"weight_decay": 0.0, "layer_decay": 1.0, "mixup": 0.0, "drop_path": 0.0, "head_init_std": 0.02},
    "threshold": 0.5,
    **{"keep_network": False, "accelerator": "cpu", "precision": "32-true", "threads": 1},
    **{"rotation_degrees": 0.0, "zoom_min": 1.0, "zoom_max": 1.0, "intensity_shift": 0.0},
}
STATISTICS = {
    **{"resamples": 1000, "seed": 0, "confidence": 0.95, "power": 0.8, "min_draws_share": 0.9},
    **{"specificity": 0.9, "threshold": 0.5, "bins": 10, "compared": ["accuracy"]},
}
TOLD = {"source": "this test", "status": "published", "rule": "superiority", "task": "pathology", "metric": "accuracy"}


def phantom(folder: Path, noise: float) -> list[Path]:
    """Masses, two a patient, benign or malignant, packed: the store and its two tables."""
    (folder / "crops").mkdir(parents=True)
    noisy, rows = np.random.default_rng(1).random(len(SPLITS)) < noise, []
    for number, split in enumerate(SPLITS):
        random, label = np.random.default_rng([7, number]), number // 2 % 2
        shown = 1 - label if noisy[number] and split == "test" else label
        lesion = draw_lesion("mass", CLASSES[shown], random)
        grey = 80 + CONTRAST * lesion.grey + random.normal(0, GRAIN, lesion.grey.shape)
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / "crops" / f"l{number:03}.png")
        rows.append((f"l{number:03}", f"p{number // 2:03}", "mass", CLASSES[label], split))
    table = pd.DataFrame(rows, columns=["lesion_id", "patient_id", "abnormality", "pathology", "split"])
    lesions_csv, splits_csv, backgrounds_csv = (folder / f"{name}.csv" for name in ("lesions", "splits", "backgrounds"))
    table.drop(columns="split").to_csv(lesions_csv, index=False)
    table[["lesion_id", "split"]].to_csv(splits_csv, index=False)
    pd.DataFrame(columns=["background_id"]).to_csv(backgrounds_csv, index=False)
    store = folder / "crops.u8", folder / "crops_index.csv"
    images = folder / "crops", lesions_csv, folder / "backgrounds", backgrounds_csv
    pack(*images, *store, store[1].with_name("extra.csv"), extra_images=None, levels="data")
    return [*store, lesions_csv, splits_csv]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The predictions of three methods: `clean`, `alike`, which is the same with other seeds, and `noisy`."""
    folder, predictions = tmp_path_factory.mktemp("effect"), {}
    asked = TRAINING["task"], resized_to(TRAINING["side"])
    data = {noise: Lesions(*phantom(folder / str(noise), noise), *asked) for noise in (0.0, NOISE)}
    for method, (noise, seeds) in METHODS.items():
        for number, seed in enumerate(seeds):
            out = folder / method / str(number)
            finetune(out, data[noise], None, of_values(Tuning, {**TRAINING, "seed": seed}), seen=Seen(**SEEN))
            path = predictions[Cell("strict", "pathology", "finetune", method, number)] = out / "predictions.parquet"
            table = pd.read_parquet(path)
            table.attrs["seed"] = number  # of the cell
            table.to_parquet(path, index=False)
    return predictions


@pytest.fixture
def verdict(trained, tmp_path):
    """The verdict on `method` being better than `other` by so many points, and the row of their difference."""

    def run(method, other, gain_points):
        tables = [tmp_path / f"{name}.csv" for name in ("metrics", "differences", "variance")]
        evaluate(trained, *tables, reference=method, majority={("strict", "pathology"): "BENIGN"}, **STATISTICS)
        claim = {**TOLD, "statement": "s", "method": method, "over": [other], "gain_points": gain_points}
        (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"the-claim": claim}))
        judge(
            tmp_path / "claims.yaml",
            PAPER,
            *tables[:2],
            [],
            tmp_path,
            preset="paper",
            distance=[],
            confidence=0.95,
            power=0.8,
        )
        difference = pd.read_csv(tables[1]).query("second == @other").iloc[0]
        return pd.read_csv(tmp_path / "claims.csv")["verdict"].item(), difference

    return run


def accuracy(trained, method):
    shares = []
    for cell, path in trained.items():
        if cell.method == method:
            tested = pd.read_parquet(path).query("split == 'test'")
            shares.append(((tested["prob_MALIGNANT"] > 0.5) == (tested["label"] == "MALIGNANT")).mean())
    return np.mean(shares)


@pytest.mark.slow
def test_a_known_gain_is_reproduced_a_known_loss_is_not_and_the_amount_is_the_known_one(verdict, trained):
    found, row = verdict("clean", "noisy", gain_points=10.0)
    assert found == REPRODUCED
    known = NOISE * (2 * accuracy(trained, "clean") - 1)  # of the lesions that show the other class, right turns wrong
    assert row["low"] < known < row["high"] and known > 0.2
    assert verdict("noisy", "clean", gain_points=10.0)[0] == NOT_REPRODUCED


@pytest.mark.slow
def test_of_equal_methods_a_large_gain_is_not_reproduced_and_a_small_one_cannot_be_told(verdict):
    assert verdict("clean", "alike", gain_points=20.0)[0] == NOT_REPRODUCED
    assert verdict("clean", "alike", gain_points=0.5)[0] == OPEN
