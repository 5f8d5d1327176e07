import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from plain_values import of_values
from sklearn.linear_model import LogisticRegression

from miram.data.tasks import CLASSES
from miram.errors import MiramError
from miram.layout import Cell
from miram.models._timm import create_model
from miram.models.encoder import Encoder
from miram.models.export import save_encoder
from miram.predictions import Question, read_predictions
from miram.recipe import LinearProbe, NeighbourProbe
from miram.train import probe as module
from miram.train.augment import to_images
from miram.train.classifiers import Lesions, labelled_lesions, read_split, resized_to
from miram.train.probe import Pooled, features, linear_probe, neighbours, probe
from miram.train.store import Store

VALUES = {
    "encoder": {"patch": 8, "channels": 1, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0},
    "pool": "mean",
    "task": "pathology_4class",
    "side": 32,
    "seed": 0,
    "threshold": 0.5,
    "accelerator": "cpu",
    "precision": "32-true",
    "threads": 1,
}
MODES = {"linear": {"linear_c": [0.01, 1.0], "linear_iterations": 1000}, "knn": {"knn_neighbours": 3}}
KINDS = {"linear": LinearProbe, "knn": NeighbourProbe}


@pytest.fixture
def fit(lesions, store_paths, tmp_path):
    """fit(name, mode, encoder_file=None, edit=None, **changes); `edit` changes the lesion table."""

    def run(name, mode, encoder_file=None, edit=None, **changes):
        table = pd.read_csv(lesions / "lesions.csv", keep_default_na=False)
        if edit is not None:
            edit(table)
        lesions_csv = tmp_path / "lesions.csv"
        table.to_csv(lesions_csv, index=False)
        probing = of_values(KINDS[mode], {**VALUES, **MODES[mode], **changes})
        own = Lesions(*store_paths, lesions_csv, lesions / "splits.csv", probing.task, resized_to(probing.side))
        return probe(tmp_path / name, own, encoder_file, probing)

    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", ["pathology_4class", "mass_margins"])
def test_predictions_are_probabilities_of_validation_and_test_lesions(fit, tmp_path, mode, task):
    facts = fit("run", mode, task=task)
    found = read_predictions(
        tmp_path / "run" / "predictions.parquet", Cell("strict", task, mode, "mae", VALUES["seed"])
    )
    answered = ("-", VALUES["threshold"]) if task == "mass_margins" else (None, None)
    assert found.question == Question(task, mode, VALUES["seed"], CLASSES[task], *answered)
    table = found.table
    probabilities = table.filter(like="prob_").to_numpy()
    assert list(table)[:4] == ["lesion_id", "patient_id", "split", "label"]
    assert (probabilities >= 0).all() and (probabilities <= 1).all()
    several = task == "mass_margins"
    assert facts["lesions"] == {
        "train": 3 if several else 6,
        "validation": 2 if several else 3,
        "test": len(table) // 2,
    }
    assert (probabilities.sum(axis=1) == pytest.approx(1)) != several
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"predictions.parquet", "log.csv"}


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_encoder_gives_the_same_answers_with_any_seed_and_a_fresh_one_does_not(fit, tmp_path, mode):
    torch.manual_seed(5)
    save_encoder(Encoder(side=32, **VALUES["encoder"], drop_path=0.0), tmp_path / "encoder.safetensors")
    for seed in (0, 1):
        fit(f"frozen-{seed}", mode, tmp_path / "encoder.safetensors", seed=seed)
        fit(f"fresh-{seed}", mode, seed=seed, pool="class")
    written = {path.name: pd.read_parquet(path / "predictions.parquet") for path in tmp_path.glob("fr*")}
    assert [written[f"frozen-{seed}"].attrs["seed"] for seed in (0, 1)] == [0, 1]
    assert written["frozen-0"].equals(written["frozen-1"])
    assert mode == "knn" or not written["fresh-0"].equals(written["fresh-1"])  # a few neighbours may be the same


def test_the_strength_is_the_best_on_validation_and_test_lesions_have_no_part_in_it(fit, tmp_path):
    def relabelled(table):
        table.loc[table.index[-3:], "pathology"] = "MALIGNANT"

    facts = [fit("whole", "linear"), fit("relabelled", "linear", edit=relabelled)]
    log = pd.read_csv(tmp_path / "whole" / "log.csv")
    assert list(log["candidate"]) == [0.01, 1.0]
    best = log.sort_values(["val_macro_auc", "val_accuracy"], ascending=False, kind="stable").iloc[0]
    assert [f["candidate"] for f in facts] == [best["candidate"]] * 2
    assert (tmp_path / "whole" / "log.csv").read_bytes() == (tmp_path / "relabelled" / "log.csv").read_bytes()


def test_a_probe_rests_on_training_lesions_alone_and_answers_by_the_best_candidate(
    fit, tmp_path, monkeypatch, lesions, store_paths
):
    torch.manual_seed(5)
    encoder = Encoder(side=32, **VALUES["encoder"], drop_path=0.0).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    scores = iter([0.5, 0.9, 0.6])
    monkeypatch.setattr(
        module, "validation_scores", lambda *_, **__: {"val_accuracy": 0.5, "val_macro_auc": next(scores)}
    )
    facts = fit("run", "linear", tmp_path / "encoder.safetensors", linear_c=[0.001, 0.1, 10.0], pool="class")
    assert {"device", "cpu_capability", "threads"} <= facts.keys()
    assert (facts["candidate"], facts["features"]) == (0.1, 16)
    assert list(pd.read_csv(tmp_path / "run" / "log.csv")["candidate"]) == [0.001, 0.1, 10.0]
    table = labelled_lesions(lesions / "lesions.csv", lesions / "splits.csv", VALUES["task"])
    splits = [read_split(Store(*store_paths), table, name, resized_to(32)) for name in ("train", "validation", "test")]
    train, *others = (features(Pooled(encoder, "class"), split.views) for split in splits)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    model.fit((train - train.mean(0)) / train.std(0), splits[0].targets.argmax(1))
    expected = model.predict_proba((np.concatenate(others) - train.mean(0)) / train.std(0))
    found = pd.read_parquet(tmp_path / "run" / "predictions.parquet").filter(like="prob_").to_numpy()
    assert found[:, model.classes_] == pytest.approx(expected, abs=1e-5)


def test_features_are_those_of_the_encoder_after_its_norm():
    torch.manual_seed(0)
    encoder = Encoder(side=32, **VALUES["encoder"], drop_path=0.0).eval()
    views = np.random.default_rng(0).integers(0, 256, (70, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        tokens = encoder(to_images(torch.from_numpy(views), 1)).double().numpy()
    assert features(Pooled(encoder, "mean"), views) == pytest.approx(tokens[:, 1:].mean(axis=1), abs=1e-6)
    assert features(Pooled(encoder, "class"), views) == pytest.approx(tokens[:, 0], abs=1e-5)
    with pytest.raises(ValueError, match="pool 'max': one of mean, class"):
        Pooled(encoder, "max")


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_one_label_is_balanced_multinomial_regression_and_an_absent_class_gets_nothing():
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(60, 5)), np.repeat([0, 0, 2], 20)
    answer = linear_probe(0.5, 3, multi_label=False)(x, np.eye(3)[labels])
    reference = LogisticRegression(C=0.5, class_weight="balanced", max_iter=3).fit(x, labels)
    assert answer(x)[:, [0, 2]] == pytest.approx(reference.predict_proba(x))
    assert (answer(x)[:, 1] == 0).all()


def test_several_labels_are_one_unweighted_regression_each():
    random = np.random.default_rng(0)
    x, targets = random.normal(size=(60, 5)), random.integers(0, 2, (60, 3)).astype(np.float32)
    targets[:, 1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = linear_probe(0.5, 1000, multi_label=True)(x, targets)
    for c in (0, 2):
        reference = LogisticRegression(C=0.5, max_iter=1000).fit(x, targets[:, c])
        assert answer(x)[:, c] == pytest.approx(reference.predict_proba(x)[:, 1])
    assert (answer(x)[:, 1] == 0).all()


def test_neighbours_vote_by_cosine_and_are_all_where_there_are_fewer():
    x = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 1.0], [0.1, 9.0]])
    targets = np.eye(2)[[0, 0, 1, 1]]
    queries = np.array([[0.5, 0.0], [0.0, 100.0]])
    two = neighbours(2)(x, targets)
    assert two(queries).tolist() == [[1, 0], [0, 1]]
    many = neighbours(20)(x, targets)
    assert many(queries).tolist() == [[0.5, 0.5]] * 2


def test_training_lesions_of_one_class_are_refused(fit):
    def one_class(table):
        table.loc[:5, ["abnormality", "pathology"]] = "mass", "BENIGN"

    with pytest.raises(MiramError, match="All train lesions are BENIGN_MASS"):
        fit("run", "linear", edit=one_class)


def test_features_that_are_not_finite_are_refused(fit, monkeypatch, tmp_path):
    monkeypatch.setattr(module.Pooled, "forward", lambda self, images: torch.full((len(images), 16), torch.nan))
    with pytest.raises(MiramError, match="not finite"):
        fit("run", "knn")
    assert not (tmp_path / "run").exists()


def test_features_of_a_network_of_timm_are_what_is_probed(fit, tmp_path):
    torch.save(create_model("test_vit").state_dict(), tmp_path / "weights.pth")
    theirs = {"encoder": {"timm": "test_vit", "weights": "weights.pth"}, "pool": "own"}
    facts = fit("run", "linear", tmp_path / "weights.pth", **theirs)
    assert facts["features"] == 64
