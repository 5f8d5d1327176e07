import numpy as np
import pandas as pd
import pytest
import torch
from plain_values import of_values
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_classifier import FOUR, TINY, saved_classifier
from torch import nn

from miram.errors import MiramError
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.models.export import load_classifier, load_encoder, save_encoder
from miram.models.timm_encoder import TimmEncoder
from miram.recipe import Explaining
from miram.train.augment import resize, to_images
from miram.train.explain import explain, principal_plane, relevance
from miram.train.probe import Pooled, features
from miram.train.store import Store


class LooksAtOnePatch(nn.Module):
    """Answers by the brightness of the patch in row 1, column 2 alone."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(side=16, **TINY, drop_path=0.0)

    def forward(self, images):
        bright = images[:, 0, 4:8, 8:12].mean(dim=(1, 2))
        return torch.stack([bright, -bright], dim=1)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("around", "at"), [(40, 255), (160, 0)])
def test_relevance_lies_where_the_network_looks_and_is_what_the_answer_loses(around, at, multi_label):
    view = np.full((16, 16), around, np.uint8)
    view[4:8, 8:12] = at
    found = relevance(LooksAtOnePatch(), view, multi_label)
    seen, hidden = to_images(torch.tensor([[[at]], [[round(view.mean())]]]), 3)[:, 0, 0, 0].tolist()
    sign, steepness = (1 if at > around else -1), (1 if multi_label else 2)
    seen, hidden = (1 / (1 + np.exp(-sign * steepness * level)) for level in (seen, hidden))
    assert found.shape == (4, 4)
    assert found[1, 2] == pytest.approx(seen - hidden, abs=1e-6) and found[1, 2] > 0.1
    assert np.count_nonzero(found) == 1


def test_the_principal_plane_keeps_the_two_strongest_directions():
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (40, 5)) * [0.1, 9, 0.1, 4, 0.1]
    lesions = pd.DataFrame({"lesion_id": [str(i) for i in range(40)], "label": "BENIGN", "patient_id": "P"})
    plane = principal_plane(features, lesions)
    assert list(plane) == ["lesion_id", "label", "x", "y", "share"]
    assert abs(np.corrcoef(plane["x"], features[:, 1])[0, 1]) > 0.98
    assert abs(np.corrcoef(plane["y"], features[:, 3])[0, 1]) > 0.98
    assert 0.99 < plane["share"].iloc[0] < 1


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_saved_classifier_answers_as_before(tmp_path, pool):
    model = saved_classifier(tmp_path / "model.safetensors", pool)
    found, classes, multi_label, _ = load_classifier(tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 16, 16)
    assert (classes, multi_label) == (FOUR, False)
    torch.testing.assert_close(found(images), model(images), rtol=0, atol=0)


def test_what_is_no_classifier_is_refused(tmp_path):
    save_encoder(Encoder(side=16, **TINY, drop_path=0.0), tmp_path / "encoder.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"cut short")
    saved_classifier(tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", framework="pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(state | {"head.weight": torch.zeros(9, 16)}, tmp_path / "other.safetensors", metadata)  # of other classes
    renamed = {name: told.replace('"depth"', '"length"') for name, told in metadata.items()}
    save_file(state, tmp_path / "renamed.safetensors", renamed)  # of a version that built another network
    for name in ("encoder", "short", "missing", "other", "renamed"):
        with pytest.raises(MiramError, match=f"{name}.safetensors holds no classifier") as fault:
            load_classifier(tmp_path / f"{name}.safetensors")
        assert fault.value.remedy == "Correct the path, or give a model.safetensors of a fine-tuning."


def explain_two_methods(tmp_path, lesions, store_paths, test=("lesion_09", "lesion_10", "lesion_11")):
    """What the stage leaves for two methods, of which one was pre-trained; the first two test lesions share a label."""
    classifiers = {name: tmp_path / f"{name}.safetensors" for name in ("from-scratch", "mae")}
    saved_classifier(classifiers["from-scratch"], multi_label=True)
    saved_classifier(classifiers["mae"], "class")
    save_encoder(Encoder(side=16, **TINY, drop_path=0.0), tmp_path / "encoder.safetensors")
    table = pd.read_csv(lesions / "lesions.csv", keep_default_na=False)
    table.loc[table["lesion_id"] == "lesion_10", ["abnormality", "pathology"]] = "calcification", "BENIGN"
    table.to_csv(tmp_path / "lesions.csv", index=False)
    splits = pd.read_csv(lesions / "splits.csv")
    splits.loc[(splits["split"] == "test") & ~splits["lesion_id"].isin(test), "split"] = "val"
    splits.to_csv(tmp_path / "splits.csv", index=False)
    tables = tmp_path / "lesions.csv", tmp_path / "splits.csv"
    values = {"task": "pathology_4class", "accelerator": "cpu", "precision": "32-true", "threads": 1}
    encoders = {"mae": tmp_path / "encoder.safetensors"}
    facts = explain(tmp_path, *store_paths, *tables, classifiers, encoders, of_values(Explaining, values))
    return facts, np.load(tmp_path / "relevance.npz"), pd.read_csv(tmp_path / "embedding.csv")


@pytest.fixture
def explained(tmp_path, lesions, store_paths):
    return explain_two_methods(tmp_path, lesions, store_paths)


@pytest.fixture
def test_views(store_paths):
    store = Store(*store_paths)
    return np.stack([resize(store[place], 16) for place in store.places(["lesion_09", "lesion_10", "lesion_11"])])


def test_every_label_of_the_test_split_has_a_map_of_every_method(explained, test_views, tmp_path):
    facts, maps, _ = explained
    assert maps["lesion_id"].tolist() == ["lesion_09", "lesion_11"]
    assert {"device", "cpu_capability", "threads"} <= facts.keys()
    assert facts["lesions"] == 2
    for method in ("from-scratch", "mae"):
        model, _, multi_label, _ = load_classifier(tmp_path / f"{method}.safetensors")
        assert multi_label == (method == "from-scratch") and np.abs(maps[method]).max() > 0
        expected = [relevance(model, view, multi_label) for view in test_views[[0, 2]]]
        assert maps[method] == pytest.approx(np.stack(expected), abs=1e-6)


def test_only_pretrained_methods_have_a_map_of_features_which_are_the_encoders_own(explained, test_views, tmp_path):
    points = explained[2]
    assert points["method"].unique().tolist() == ["mae"]
    assert points["lesion_id"].tolist() == ["lesion_09", "lesion_10", "lesion_11"]
    encoder = Encoder(side=16, **TINY, drop_path=0.0)
    load_encoder(encoder, tmp_path / "encoder.safetensors")
    expected = principal_plane(features(Pooled(encoder, "class"), test_views), points[["lesion_id", "label"]])
    assert points[["x", "y", "share"]].to_numpy() == pytest.approx(
        expected[["x", "y", "share"]].to_numpy(), rel=1e-3, abs=1e-5
    )


def test_a_single_test_lesion_has_its_relevance_and_no_map_of_features(tmp_path, lesions, store_paths):
    facts, maps, points = explain_two_methods(tmp_path, lesions, store_paths, test=("lesion_11",))
    assert maps["lesion_id"].tolist() == ["lesion_11"] and facts["lesions"] == 1
    assert points.empty


def test_a_network_without_patches_has_a_map_of_as_many_squares_as_its_last_feature_map(tmp_path):
    encoder = TimmEncoder(timm="test_resnet", side=80, drop_path=0.0)
    model = Classifier(encoder, classes=2, pool="own", head_init_std=1.0).eval()
    view = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    found = relevance(model, view, False)
    hidden = view.copy()
    hidden[27:53, 53:80] = round(view.mean())
    with torch.no_grad():
        given = model(to_images(torch.from_numpy(np.stack([view, hidden])), 3)).softmax(1).numpy()
    answer = given[0].argmax()
    assert found.shape == (3, 3) and found[1, 2] == pytest.approx(given[0, answer] - given[1, answer], abs=1e-6)
