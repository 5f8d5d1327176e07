import numpy as np
import pandas as pd
import pytest
import torch
from tiny_classifier import FOUR, TINY, saved_classifier
from torch import nn

from miram.errors import MiramError
from miram.models.encoder import Encoder
from miram.models.export import load_classifier, save_encoder
from miram.train.explain import explain, principal_plane, relevance


class LooksAtOnePatch(nn.Module):
    """Answers by the brightness of the patch in row 1, column 2 alone."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder(side=16, **TINY, drop_path=0.0)

    def forward(self, images):
        bright = images[:, 0, 4:8, 8:12].mean(dim=(1, 2))
        return torch.stack([bright, -bright], dim=1)


def test_relevance_lies_where_the_network_looks():
    view = np.full((16, 16), 40, np.uint8)
    view[4:8, 8:12] = 255
    found = relevance(LooksAtOnePatch(), view, multi_label=False)
    assert found.shape == (4, 4)
    assert found[1, 2] > 0.1
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
    found, classes, multi_label = load_classifier(tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 16, 16)
    assert (classes, multi_label) == (FOUR, False)
    torch.testing.assert_close(found(images), model(images), rtol=0, atol=0)


def test_what_is_no_classifier_is_refused(tmp_path):
    save_encoder(Encoder(side=16, **TINY, drop_path=0.0), tmp_path / "encoder.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"cut short")
    for name in ("encoder.safetensors", "short.safetensors", "missing.safetensors"):
        with pytest.raises(MiramError, match=f"{name} holds no classifier"):
            load_classifier(tmp_path / name)


@pytest.fixture
def explained(tmp_path, lesions, store_paths):
    """What the stage leaves for two methods, of which one was pre-trained."""
    classifiers = {name: tmp_path / f"{name}.safetensors" for name in ("from-scratch", "mae")}
    for path in classifiers.values():
        saved_classifier(path)
    save_encoder(Encoder(side=16, **TINY, drop_path=0.0), tmp_path / "encoder.safetensors")
    tables = lesions / "lesions.csv", lesions / "splits.csv"
    compute = {"accelerator": "cpu", "precision": "32-true", "threads": 1}
    encoders = {"mae": tmp_path / "encoder.safetensors"}
    facts = explain(
        tmp_path, *store_paths, *tables, classifiers, encoders, task="pathology_4class", encoder=TINY, **compute
    )
    return facts, np.load(tmp_path / "relevance.npz"), pd.read_csv(tmp_path / "embedding.csv")


def test_every_label_of_the_test_split_has_maps_of_every_method(explained):
    facts, maps, _ = explained
    assert maps["lesion_id"].tolist() == ["lesion_09", "lesion_10", "lesion_11"]
    assert facts["lesions"] == 3
    for method in ("from-scratch", "mae"):
        assert maps[method].shape == (3, 4, 4)
        assert np.abs(maps[method]).max() > 0


def test_only_pretrained_methods_have_a_map_of_features(explained):
    points = explained[2]
    assert points["method"].unique().tolist() == ["mae"]
    assert points["lesion_id"].tolist() == ["lesion_09", "lesion_10", "lesion_11"]
    assert points["share"].between(0, 1).all()
