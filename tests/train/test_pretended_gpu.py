"""What trains or asks a network, on a pretended GPU: no tensor is left on the other device, no cast is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from plain_values import of_values
from pretend_gpu import pretended_gpu
from test_finetune import tune  # noqa: F401
from test_probe import fit  # noqa: F401
from tiny_classifier import TINY, saved_classifier
from torch.nn.functional import linear

from miram import params
from miram.cli.stage import recipes
from miram.models.attention import pinv
from miram.models.encoder import Encoder
from miram.models.export import save_encoder
from miram.models.mocov3 import MoCoV3
from miram.planning.memory import parts_that_fit
from miram.recipe import Decoder, Explaining, Highres
from miram.recipe import Encoder as Sizes
from miram.train import device_views
from miram.train import trial as module
from miram.train.explain import explain
from miram.train.predict import predict, predict_folder
from miram.train.pretrain import pretrain

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
METHODS = recipes(params.load(Path(__file__).parents[2] / "params.yaml", "paper"))
METHODS["native"] = replace(METHODS["miram-full"], highres=Highres(2, "native"))
SMALLER = {"rank": 4, "landmarks": 4, "redraw_interval": 1}  # options
COMPUTE = {"accelerator": "cuda", "precision": "bf16-mixed", "threads": 1}


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch):
        yield


@pytest.fixture
def train(tmp_path, store_paths, lesion_ids):
    """train(method, accelerator, precision) pre-trains a method of the paper at the smallest sizes."""

    def run(method, accelerator="cuda", precision="bf16-mixed"):
        paper = METHODS[method]
        small = replace(
            paper,
            encoder=Sizes(8, 3, 16, 1, 2, 2.0),
            decoder=paper.decoder and Decoder(16, 1, 2, 2.0),
            moco=paper.moco and replace(paper.moco, projector_width=16, projector_out=8),
            options=paper.options and {name: SMALLER.get(name, value) for name, value in paper.options.items()},
            **{"side": 32, "batch": 6, "accumulate": 2, "epochs": 1, "warmup_epochs": 0, "precision": precision},
        )
        compute = {"checkpoint_every_epochs": 1, "accelerator": accelerator, "threads": 1, "devices": 1}
        compute["divide"] = parts_that_fit
        return pretrain(tmp_path / accelerator, *store_paths, lesion_ids, lesion_ids[:2], small, **compute)

    return run


@pytest.mark.parametrize("method", METHODS)
def test_every_method_pretrains_there_to_the_loss_of_the_cpu(method, train, monkeypatch):
    with pretended_gpu(monkeypatch):
        facts = train(method, precision="auto")
    assert (facts["precision"], facts["device"]) == ("bf16-mixed", "Pretended")
    monkeypatch.undo()
    assert facts["loss"] == pytest.approx(train(method, "cpu", "32-true")["loss"], rel=0.02)


@pytest.mark.parametrize("method", ["miram-nystrom", "miram-performer", "mocov3"])
@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_the_other_precisions_run_there(method, precision, train, gpu):
    assert train(method, precision=precision)["precision"] == precision


@pytest.mark.parametrize(
    "changes",
    [{}, {"mixup": 0.8, "layer_decay": 0.7}, {"task": "mass_margins"}, {"pool": "class", "lr": [0.01, 0.02]}],
    ids=str,
)
def test_a_fine_tuning_there_predicts_as_on_the_cpu(changes, tune, tmp_path, monkeypatch):  # noqa: F811
    with pretended_gpu(monkeypatch):
        tune("there", accelerator="cuda", epochs=1, **changes)
    monkeypatch.undo()
    tune("here", epochs=1, **changes)
    there, here = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("there", "here"))
    for name in here.filter(like="prob_"):
        assert there[name].to_numpy() == pytest.approx(here[name].to_numpy(), abs=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", None])
def test_networks_of_timm_and_ours_are_tuned_and_probed_in_mixed_precision(name, tune, fit, gpu):  # noqa: F811
    theirs = {**COMPUTE, **({"encoder": {"timm": name, "weights": None}, "pool": "own", "side": 64} if name else {})}
    tune("tuned", epochs=1, **theirs)
    fit("probed", "linear", **theirs)


@pytest.mark.parametrize("mode", ["linear", "knn"])
def test_features_there_are_those_of_the_cpu(mode, fit, tmp_path, monkeypatch):  # noqa: F811
    with pretended_gpu(monkeypatch):
        fit("there", mode, accelerator="cuda")
    monkeypatch.undo()
    fit("here", mode)
    there, here = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("there", "here"))
    for name in here.filter(like="prob_"):
        assert there[name].to_numpy() == pytest.approx(here[name].to_numpy(), abs=1e-3)


def test_networks_are_explained_and_asked_there(lesions, store_paths, tmp_path, gpu):
    saved_classifier(tmp_path / "model.safetensors")
    save_encoder(Encoder(side=16, **TINY, drop_path=0.0), tmp_path / "encoder.safetensors")
    tables = lesions / "lesions.csv", lesions / "splits.csv"
    files = {"mae": tmp_path / "model.safetensors"}, {"mae": tmp_path / "encoder.safetensors"}
    explain(tmp_path, *store_paths, *tables, *files, of_values(Explaining, {"task": "pathology_4class", **COMPUTE}))
    assert np.isfinite(np.load(tmp_path / "relevance.npz")["mae"]).all()
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "pictures" / "crop.png")
    answer = predict(tmp_path / "model.safetensors", tmp_path / "pictures" / "crop.png", None, **COMPUTE)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert not predict_folder(
        tmp_path / "model.safetensors", tmp_path / "pictures", tmp_path / "answers.csv", **COMPUTE
    )


def around(original, fault):
    return lambda *given: fault(original, *given)


def with_a_constant_of_the_cpu(original, self, images):
    return original(self, images * torch.ones(images.shape[-1]))


def with_a_matrix_of_the_cpu(original, y):
    return tuple(part + torch.eye(y.shape[-1]) for part in original(y))


def with_sizes_of_the_cpu(original, lengths, side, device):
    return original(lengths, side, torch.device("cpu"))


def with_keys_of_the_cpu(original, self, momentum):
    self.key_projector.to("cpu")
    return original(self, momentum)


def without_a_cast(original, self, images):
    tokens = original(self, images)
    with torch.autocast(tokens.device.type, enabled=False):
        return linear(tokens.bfloat16(), torch.eye(tokens.shape[-1], device=tokens.device))


def reading_an_array(original, self, images):
    images.numpy()
    return original(self, images)


def with_weights_of_the_cpu(original, logits, targets, weights):
    return original(logits, targets, weights.cpu())


DEVICES, CAST = "on the same device", "same dtype"
PLANTED = {
    "a constant": ("mae", Encoder, "patchify", with_a_constant_of_the_cpu, DEVICES),
    "a matrix in a backward pass of ours": ("miram-nystrom", pinv, "_polynomial", with_a_matrix_of_the_cpu, DEVICES),
    "sizes of the views": ("mae", device_views, "_bicubic", with_sizes_of_the_cpu, DEVICES),
    "the keys of MoCo-v3": ("mocov3", MoCoV3, "update_keys", with_keys_of_the_cpu, DEVICES),
    "a cast": ("mae", Encoder, "patchify", without_a_cast, CAST),
    "an array": ("mae", Encoder, "patchify", reading_an_array, "numpy"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_fault_that_is_planted_is_found(planted, train, gpu, monkeypatch):
    method, place, name, fault, said = PLANTED[planted]
    monkeypatch.setattr(place, name, around(getattr(place, name), fault))
    with pytest.raises((RuntimeError, TypeError), match=said):
        train(method)


def test_class_weights_on_the_other_device_are_found(tune, gpu, monkeypatch):  # noqa: F811
    original = module.loss_of
    monkeypatch.setattr(module, "loss_of", lambda *given: with_weights_of_the_cpu(original, *given))
    with pytest.raises(RuntimeError, match=DEVICES):
        tune("run", accelerator="cuda")
