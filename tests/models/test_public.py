"""Public checkpoints as their training programs save them, with the random weights of a tiny ViT."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from miram.errors import MiramError
from miram.models.encoder import Encoder
from miram.models.export import load_encoder

TINY = {"side": 32, "patch": 16, "channels": 3, "width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "drop_path": 0.0}
State = dict[str, Tensor]


def encoder(**changes: float) -> Encoder:
    return Encoder(**TINY | changes)


@pytest.fixture
def state() -> State:
    """Weights of an encoder, none of them as they begin."""
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in encoder().state_dict().items()}


def under(state: State, *prefixes: str, **others: object) -> dict[str, object]:
    """The weights under each prefix, the first being right and the others wrong by 1."""
    return {
        f"{prefix}{name}": value + wrong for wrong, prefix in enumerate(prefixes) for name, value in state.items()
    } | others


HEAD = {"head.weight": torch.zeros(3, 8), "head.bias": torch.zeros(3)}
ARGS = {"epoch": 7, "args": argparse.Namespace(lr=1.0), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}


def chunked(name: str) -> str:
    return name.replace("blocks.", "blocks.0.") if name.startswith("blocks.") else name


FORMS = {
    "plain": lambda s: s | HEAD,
    "mae": lambda s: {"model": s | {"mask_token": torch.zeros(1)}} | ARGS,
    "moco-v3": lambda s: (
        {
            "arch": "vit_base",
            "state_dict": under(
                s, "module.base_encoder.", "module.momentum_encoder.", **{"module.predictor.0.weight": s["norm.weight"]}
            ),
        }
        | ARGS
    ),
    "moco-v3, momentum alone": lambda s: {"state_dict": under(s, "module.momentum_encoder.")},
    "timm's train.py": lambda s: (
        {"arch": "vit", "state_dict": OrderedDict(s | HEAD), "version": 2, "metric": 0.5} | ARGS
    ),
    "timm's train.py, averaged": lambda s: {
        "state_dict": {name: value + 1 for name, value in s.items()},
        "state_dict_ema": under(s, "module."),
    },
    "DataParallel": lambda s: under(s, "module."),
    "torch.compile": lambda s: {"model": under(s, "_orig_mod.")},
    "torch.compile of each block": lambda s: {
        name.replace("blocks.0.", "blocks.0._orig_mod."): value for name, value in s.items()
    },
    "both": lambda s: {"state_dict": under(s, "module._orig_mod.")},
    "DINO": lambda s: (
        {
            "student": under({name: value + 1 for name, value in s.items()}, "module.backbone."),
            "teacher": under(s, "backbone.", **{"head.mlp.0.weight": torch.zeros(2, 8)}),
        }
        | ARGS
    ),
    "DINO's student alone": lambda s: {"student": under(s, "module.backbone.")},
    "DINOv2": lambda s: {"teacher": {f"backbone.{chunked(name)}": value for name, value in s.items()}},
    "DINOv2, sharded": lambda s: {"model": under(s, "teacher.backbone._fsdp_wrapped_module.", "student.backbone.")},
    "MAE, fine-tuned": lambda s: {
        "model": {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: v for name, v in s.items()}
        | HEAD
    },
    "Lightning": lambda s: {"state_dict": under(s, "model.encoder."), "pytorch-lightning_version": "2"},
    "nested": lambda s: {"model": {"state_dict": {"module": under(s, "backbone.")}}},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_comes_out_of_a_checkpoint_as_it_went_in(form: str, state: State, tmp_path: Path) -> None:
    torch.save(FORMS[form](state), tmp_path / "public.pth.tar")
    target = encoder()
    load_encoder(target, tmp_path / "public.pth.tar")
    loaded = target.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


def test_safetensors_may_have_prefixes_too(state: State, tmp_path: Path) -> None:
    save_file(under(state, "vit."), tmp_path / "public.safetensors")
    target = encoder()
    load_encoder(target, tmp_path / "public.safetensors")
    assert torch.equal(target.norm.weight, state["norm.weight"])


def test_layer_scale_computes_what_it_did(state: State, tmp_path: Path) -> None:
    scales = {f"blocks.{block}.{which}.gamma": torch.randn(8) for block in range(2) for which in ("ls1", "ls2")}
    torch.save(state | scales, tmp_path / "public.pth")
    plain, scaled = encoder().eval(), encoder().eval()
    plain.load_state_dict(state)
    for number, block in enumerate(plain.blocks):
        for layer, which in ((block.attn.proj, "ls1"), (block.mlp.fc2, "ls2")):
            gamma = scales[f"blocks.{number}.{which}.gamma"]
            layer.register_forward_hook(lambda _, __, out, gamma=gamma: out * gamma)
    load_encoder(scaled, tmp_path / "public.pth")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(scaled(images), plain(images))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"model": None}, "holds no weights under its keys model"),
        ({}, "holds no weights under its keys nothing"),
        ({"epoch": 3, "losses": [1.0], "net": {"fc.weight": torch.ones(2)}}, "keys epoch, losses, net"),
        (
            {"conv1.weight": torch.ones(2), "fc.weight": torch.ones(2)},
            r"no patch_embed\.proj\.weight, but conv1\.weight, fc",
        ),
        ([1, 2], "holds a list, no weights by name"),
        (torch.ones(2), "holds a Tensor, no weights by name"),
        ({f"layer{number}": torch.ones(1) for number in range(20)}, "layer7 and 12 more"),
    ],
)
def test_what_is_not_understood_is_named_by_its_keys(checkpoint: object, message: str, tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "public.pth")
    with pytest.raises(MiramError, match=f"public.pth .*{message}[\\s\\S]*a network's weights"):
        load_encoder(encoder(), tmp_path / "public.pth")


def test_of_several_encoders_none_is_guessed(state: State, tmp_path: Path) -> None:
    torch.save(under(state, "left.", "right."), tmp_path / "public.pth")
    with pytest.raises(MiramError, match=r"holds several encoders: left\., right\."):
        load_encoder(encoder(), tmp_path / "public.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 8}, "patch 8 instead of 16"),
        ({"channels": 1}, "channels 1 instead of 3"),
        ({"width": 16}, "width 16 instead of 8"),
        ({"depth": 3}, "depth 3 instead of 2"),
        ({"mlp_ratio": 4.0}, "mlp_ratio 4.0 instead of 2.0"),
    ],
)
def test_the_sizes_of_a_public_file_are_named_as_the_parameters_are(change, message, tmp_path: Path) -> None:
    torch.save({"model": encoder(**change).state_dict()}, tmp_path / "public.pth")
    with pytest.raises(MiramError, match=f"public.pth holds another architecture: {message}"):
        load_encoder(encoder(), tmp_path / "public.pth")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"pos_embed": torch.zeros(5, 8)}, r"pos_embed \(5, 8\) instead of \(1, 5, 8\)"),
        ({"pos_embed": torch.zeros(1, 6, 8)}, r"pos_embed \(1, 6, 8\) instead of \(1, 5, 8\)"),
        ({"register_tokens": torch.zeros(1, 4, 8)}, "register_tokens where there is none"),
    ],
)
def test_positions_and_tokens_of_another_form_are_named(
    state: State, extra: State, message: str, tmp_path: Path
) -> None:
    torch.save(state | extra, tmp_path / "public.pth")
    with pytest.raises(MiramError, match=f"another architecture: {message}"):
        load_encoder(encoder(), tmp_path / "public.pth")
