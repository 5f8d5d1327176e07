"""The trivial classifiers: what they see of a crop, how they are chosen, and what they leave."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miram.evaluate.metrics import evaluate
from miram.layout import TRIVIAL, TRIVIAL_MODE, Cell, trivial_predictions
from miram.predictions import TEST, Predictions, Question, read_predictions, write_predictions
from miram.recipe import Trivial
from miram.report.trivial import against_trivial
from miram.train.store import pack
from miram.train.trivial import classify_trivially, features

TASK = "pathology"
VALUES = Trivial(
    task=TASK, seed=0, threshold=0.5, bins=32, rounds=[5, 20], linear_c=[0.1, 10.0], linear_iterations=500, threads=1
)
HEADLINE = ("strict", TASK, "finetune")
PARTS = ("train",) * 40 + ("validation",) * 20 + ("test",) * 40


@pytest.fixture
def crops(tmp_path):
    """Write 100 crops, of which `draw(number, random)` gives the pixels; every second lesion is malignant."""

    def write(draw):
        folder, random = tmp_path / "crops", np.random.default_rng(5)
        folder.mkdir()
        ids = [f"Mass-Test_P_{number:05d}_LEFT_CC_1" for number in range(len(PARTS))]
        for number, lesion_id in enumerate(ids):
            Image.fromarray(draw(number, random)).save(folder / f"{lesion_id}.png")
        words = {"abnormality": "mass", "mass margins": "", "mass shape": "", "calc type": "", "calc distribution": ""}
        patients = [lesion_id[10:17] for lesion_id in ids]
        pathology = [("BENIGN", "MALIGNANT")[number % 2] for number in range(len(ids))]
        lesions = pd.DataFrame({"lesion_id": ids, "patient_id": patients, "pathology": pathology, **words})
        tables = tmp_path / "lesions.csv", tmp_path / "splits.csv"
        lesions.to_csv(tables[0], index=False)
        lesions.assign(split=PARTS).to_csv(tables[1], index=False)
        pd.DataFrame(columns=["background_id"]).to_csv(tmp_path / "backgrounds.csv", index=False)
        store = tmp_path / "crops.u8", tmp_path / "crops_index.csv"
        sources = folder, tables[0], tmp_path, tmp_path / "backgrounds.csv"
        pack(*sources, *store, tmp_path / "extra.csv", extra_images=None, levels="stored")
        return *store, *tables

    return write


def by_size(number, random):
    """Noise whose grey says nothing; the crops of malignant lesions are larger."""
    side = int(random.integers(20, 30)) + 15 * (number % 2)
    return random.integers(0, 256, (side, side)).astype(np.uint8)


def by_grey(number, random):
    """Noise whose size says nothing; that of malignant lesions is brighter."""
    side = int(random.integers(20, 45))
    return random.integers(80 * (number % 2), 176 + 80 * (number % 2), (side, side)).astype(np.uint8)


def made(folder, files, values=VALUES):
    folder.mkdir()
    facts = classify_trivially(folder, *files, values)
    cells = {method: Cell("strict", TASK, TRIVIAL_MODE, method, 0) for method in TRIVIAL}
    return facts, {cell: trivial_predictions(folder, method) for method, cell in cells.items()}


def accuracy(path, cell, split=TEST):
    part = read_predictions(path, cell).of(split)
    answers = part.table[part.question.columns].to_numpy().argmax(1)
    return np.mean(
        [part.question.classes[answer] == label for answer, label in zip(answers, part.table["label"], strict=True)]
    )


def test_features_are_size_shares_of_grey_and_mean_steps():
    crop = np.array([[0, 8, 255], [0, 0, 255]], dtype=np.uint8)
    rows, columns, *rest = features(crop, 32)
    assert np.exp([rows, columns]) == pytest.approx([2, 3])
    shares = dict(enumerate(rest[:32]))
    assert {number: share for number, share in shares.items() if share} == {0: 3 / 6, 1: 1 / 6, 31: 2 / 6}
    assert rest[32:] == pytest.approx([8 / 3 / 255, (8 + 247 + 0 + 255) / 4 / 255])
    assert features(np.zeros((1, 4), np.uint8), 32)[-2:].tolist() == [0, 0]


def test_size_alone_is_found_where_it_decides_and_grey_where_that_does(crops, tmp_path):
    facts, files = made(tmp_path / "run", crops(by_size))
    assert [accuracy(path, cell) > 0.95 for cell, path in files.items()] == [True, True]
    assert facts["lesions"] == {"train": 40, "validation": 20, "test": 40}
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert list(log["method"]) == [method for method in TRIVIAL for _ in range(4)]
    for method, own in log.groupby("method"):
        chosen = own[own["candidate"] == facts["chosen"][method]].iloc[0]
        assert chosen["val_macro_auc"] == own["val_macro_auc"].max()


def test_grey_is_seen_by_one_of_the_two_alone(crops, tmp_path):
    _, files = made(tmp_path / "run", crops(by_grey))
    size, grey = (accuracy(path, cell) for cell, path in files.items())
    assert grey > 0.95 and size < 0.75


def test_it_is_the_same_again_and_test_lesions_do_not_choose(crops, tmp_path):
    files = crops(by_size)
    _, first = made(tmp_path / "first", files)
    _, again = made(tmp_path / "again", files)
    for cell, path in first.items():
        assert path.read_bytes() == again[cell].read_bytes()
    lesions = pd.read_csv(files[2], dtype=str, keep_default_na=False)
    test = pd.read_csv(files[3], dtype=str)["split"] == TEST
    lesions.assign(pathology=lesions["pathology"].mask(test, "MALIGNANT")).to_csv(files[2], index=False)
    made(tmp_path / "turned", files)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("first", "turned")]
    assert logs[0] == logs[1]


@pytest.fixture
def judged(crops, tmp_path):
    """What is said of a network whose share of right answers is given, beside trivial classifiers of `draw`."""

    def run(draw, share):
        _, files = made(tmp_path / "run", crops(draw))
        some = read_predictions(*next((path, cell) for cell, path in files.items()))
        random, predictions = np.random.default_rng(1), {**files}
        for seed in (0, 1):
            right = random.random(len(some.table)) < share
            malignant = (some.table["label"] == "MALIGNANT").to_numpy() == right
            columns = {"prob_BENIGN": 1.0 - malignant, "prob_MALIGNANT": malignant.astype(float)}
            cell, path = Cell(*HEADLINE, "mae", seed), tmp_path / f"mae-{seed}.parquet"
            asked = Question(TASK, "finetune", seed, some.question.classes, None, None)
            write_predictions(path, Predictions(asked, some.table.assign(**columns)))
            predictions[cell] = path
        tables = [tmp_path / f"{name}.csv" for name in ("metrics", "differences", "variance")]
        options = {"resamples": 2000, "seed": 0, "confidence": 0.95, "min_draws_share": 0.9, "power": 0.8}
        options |= {"specificity": 0.9, "threshold": 0.5, "bins": 15, "compared": ["macro_auc"], "reference": "mae"}
        evaluate(predictions, *tables, majority={HEADLINE[:2]: "BENIGN"}, **options)
        metrics, differences, _ = (pd.read_csv(table) for table in tables)
        return metrics, differences, against_trivial(metrics, differences, HEADLINE, 0.95)

    return run


def test_where_size_decides_the_trivial_classifier_wins_and_that_is_said(judged):
    metrics, differences, said = judged(by_size, share=0.6)
    own = metrics[(metrics["metric"] == "accuracy") & metrics["seed"].isna() & (metrics["split"] == TEST)]
    assert list(own["method"]) == ["mae", *TRIVIAL, "majority class"]
    assert own.set_index("method").loc["trivial-size", "value"] > 0.95
    assert re_said(said) == ("trivial-size", "mae", "is beaten by it")
    rows = differences[differences["second"] == "trivial-size"]
    assert rows["metric"].to_list() == ["accuracy"] and rows["first"].to_list() == ["mae"]
    row = rows.iloc[0]
    values = own.set_index("method")["value"]
    assert row["difference"] == pytest.approx(values["mae"] - values["trivial-size"], abs=1e-6)
    assert row["low"] <= row["difference"] <= row["high"] < 0 and row["seeds"] == 2
    assert row["corrected_low"] <= row["low"] and row["corrected_high"] >= row["high"]


@pytest.mark.parametrize(("share", "outcome"), [(1.0, "beats it"), (0.55, "cannot be told from it")])
def test_where_it_does_not_the_verdict_is_the_other(judged, share, outcome):
    def nothing(number, random):
        return random.integers(0, 256, (20, 20)).astype(np.uint8)

    assert re_said(judged(nothing, share)[2])[1:] == ("mae", outcome)


def re_said(said):
    """Trivial classifier, network and outcome of the sentence."""
    method = next(name for name in TRIVIAL if f", {name}, " in said)
    network, _, rest = said.partition("The most accurate fine-tuned network, ")[2].partition(", ")
    return method, network, rest.partition(":")[0]


def test_a_missing_trivial_classifier_is_a_gap_with_a_row(judged, tmp_path):
    judged(by_size, share=0.6)
    cells = {
        Cell(*HEADLINE, "mae", 0): tmp_path / "mae-0.parquet",
        Cell("strict", TASK, TRIVIAL_MODE, TRIVIAL[0], 0): None,
    }
    tables = [tmp_path / f"{name}.csv" for name in ("metrics", "differences", "variance")]
    options = {"resamples": 100, "seed": 0, "confidence": 0.95, "min_draws_share": 0.9, "power": 0.8}
    options |= {"specificity": 0.9, "threshold": 0.5, "bins": 15, "compared": ["accuracy"], "reference": "mae"}
    facts = evaluate(cells, *tables, majority={("strict", "pathology"): "BENIGN"}, **options)
    assert facts["missing_cells"] == ["strict/pathology/trivial/trivial-size/seed-0"]
    rows = pd.read_csv(tables[0]).query("method == 'trivial-size' and split == 'test'")
    assert rows["value"].isna().all() and rows["note"].str.contains("no test predictions").all()
