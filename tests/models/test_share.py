import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from miram import layout, params
from miram.cli import main
from miram.errors import MiramError
from miram.models._timm import create_model
from miram.models.encoder import Encoder
from miram.models.export import save_encoder
from miram.models.share import share_encoder
from miram.provenance import record

ROOT = Path(__file__).parents[2]
SIZES = {"side": 24, "patch": 8, "channels": 3, "width": 32, "depth": 3, "heads": 4, "mlp_ratio": 2.0}
SCALE = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def shared_encoder(tmp_path):
    """An encoder with weights that are all unlike each other, the folder that it is shared in, and images."""
    torch.manual_seed(3)
    encoder = Encoder(**SIZES, drop_path=0.0).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    share_encoder(tmp_path / "encoder.safetensors", tmp_path / "out", **SCALE)
    return encoder, tmp_path / "out", torch.randn(2, 3, 24, 24)


@torch.no_grad()
def test_timm_gives_the_same_tokens_from_the_folder_and_from_the_file(shared_encoder):
    encoder, out, images = shared_encoder
    model = create_model(f"local-dir:{out / 'timm'}", pretrained=True).eval()
    torch.testing.assert_close(model.forward_features(images), encoder(images), **CLOSE)
    torch.testing.assert_close(model(images), encoder(images)[:, 0], **CLOSE)
    assert model.pretrained_cfg["mean"] == [0.5, 0.4, 0.3]
    config = json.loads((out / "timm" / "config.json").read_text())
    path = out / "timm" / "model.safetensors"
    model = create_model(config["architecture"], checkpoint_path=str(path), num_classes=0, **config["model_args"])
    torch.testing.assert_close(model.eval().forward_features(images), encoder(images), **CLOSE)


def vit(state: dict[str, Tensor], config: dict, images: Tensor) -> Tensor:
    """The tokens of a ViT as transformers computes them, by its names of weights and fields."""

    def linear(name: str, tokens: Tensor) -> Tensor:
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, tokens: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(tokens, weight.shape, weight, bias, config["layer_norm_eps"])

    projection = "embeddings.patch_embeddings.projection"
    patches = F.conv2d(images, state[f"{projection}.weight"], state[f"{projection}.bias"], stride=config["patch_size"])
    tokens = patches.flatten(2).mT
    tokens = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), tokens], 1)
    tokens = tokens + state["embeddings.position_embeddings"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        normed = norm(f"{layer}.layernorm_before", tokens)
        heads = [
            linear(f"{layer}.attention.attention.{part}", normed)
            .unflatten(-1, (config["num_attention_heads"], -1))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        ]
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = tokens + linear(f"{layer}.attention.output.dense", mixed)
        inner = F.gelu(linear(f"{layer}.intermediate.dense", norm(f"{layer}.layernorm_after", tokens)))
        tokens = tokens + linear(f"{layer}.output.dense", inner)
    return norm("layernorm", tokens)


@torch.no_grad()
def test_a_plain_vit_by_the_names_of_transformers_gives_the_same_tokens(shared_encoder):
    encoder, out, images = shared_encoder
    config = json.loads((out / "transformers" / "config.json").read_text())
    state = load_file(out / "transformers" / "model.safetensors")
    torch.testing.assert_close(vit(state, config, images), encoder(images), **CLOSE)
    assert config["intermediate_size"] == state["encoder.layer.0.intermediate.dense.bias"].numel()
    assert (config["model_type"], config["image_size"], config["num_channels"]) == ("vit", 24, 3)


@pytest.mark.slow
@torch.no_grad()
def test_transformers_gives_the_same_tokens(shared_encoder):
    # not in the lock: python -m venv V; V/bin/pip install transformers, and this environment's packages on its path
    transformers = pytest.importorskip("transformers")
    encoder, out, images = shared_encoder
    model, told = transformers.ViTModel.from_pretrained(
        out / "transformers", add_pooling_layer=False, output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    torch.testing.assert_close(model.eval()(images).last_hidden_state, encoder(images), **CLOSE)


def test_one_channel_has_one_mean(tmp_path):
    save_encoder(Encoder(**{**SIZES, "channels": 1}, drop_path=0.0), tmp_path / "encoder.safetensors")
    share_encoder(tmp_path / "encoder.safetensors", tmp_path, **SCALE)
    told = json.loads((tmp_path / "transformers" / "preprocessor_config.json").read_text())
    assert told["image_mean"] == [pytest.approx(0.4)] and told["size"] == {"height": 24, "width": 24}
    model = create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert model.patch_embed.proj.weight.shape[1] == 1


def test_a_file_that_is_no_exported_encoder_is_refused(tmp_path):
    torch.save(Encoder(**SIZES, drop_path=0.0).state_dict(), tmp_path / "public.pth")
    with pytest.raises(MiramError, match="is not an encoder exported by miram"):
        share_encoder(tmp_path / "public.pth", tmp_path, **SCALE)


def test_the_command_writes_a_card_from_the_records(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chosen = params.load(ROOT / "params.yaml")
    path = layout.record("pretrain", "demo", "strict", "mae", 0)
    save_encoder(Encoder(**SIZES, drop_path=0.0), path.parent / "encoder.safetensors")
    values = params.stage_values(chosen, "pretrain", "strict", "mae", 0)
    begun = {"inputs": {}, "values": values, "code": "c" * 64, "lock": "1" * 64, "git": {"commit": "abc"}}
    record.finish(path, begun, outputs=[path.parent / "encoder.safetensors"], facts={})
    assert main(["weights", "--method", "mae"]) == 0
    not_measured = "Not measured: the results of its run are missing."
    assert not_measured in Path("weights/README.md").read_text()

    protocol, task, mode = params.headline(chosen)
    row = {
        "protocol": protocol,
        "task": task,
        "mode": mode,
        "method": "mae",
        "seed": None,
        "split": "test",
        "pretrain_seed": None,
    }
    row |= {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.61, "lesions": 91}
    other = {**row, "protocol": "published", "value": 0.9}
    layout.results("demo").mkdir(parents=True)
    metrics_csv = layout.results("demo") / "metrics.csv"
    pd.DataFrame([row, other]).to_csv(metrics_csv, index=False)
    assert main(["weights", "--method", "mae", "--out", "unfinished"]) == 0  # after `so-far`, which keeps no record
    assert not_measured in Path("unfinished/README.md").read_text()
    record.finish(layout.record("evaluate", "demo"), {"inputs": {}}, outputs=[metrics_csv], facts={})
    assert main(["weights", "--method", "mae", "--out", "shared"]) == 0
    card = Path("shared/README.md").read_text()
    for words in ("| accuracy | 50.0 (40.0 to 61.0)", "phantom archive", "objective: mae", "commit: abc", "width: 32"):
        assert words in card, words
    assert "not a medical device" in card and "90.0" not in card
    metrics_csv.write_text("edited")
    assert main(["weights", "--method", "mae", "--out", "edited"]) == 1 and not Path("edited").exists()
    assert main(["weights", "--method", "simclr"]) == 2
