import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from miram.errors import MiramError
from miram.models._timm import create_model, resample_abs_pos_embed
from miram.models.encoder import Encoder
from miram.models.export import load_encoder, save_encoder

TINY = {"side": 32, "patch": 16, "channels": 3, "width": 192, "depth": 12, "heads": 3, "mlp_ratio": 4.0}


def encoder(**changes: float) -> Encoder:
    """A model of the size of timm's vit_tiny_patch16_224."""
    return Encoder(**TINY | {"drop_path": 0.0} | changes)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Encoder, Path]:
    source = encoder()
    save_encoder(source, tmp_path / "encoder.safetensors")
    return source, tmp_path / "encoder.safetensors"


def test_an_exported_encoder_comes_back_whole(exported: tuple[Encoder, Path]) -> None:
    source, path = exported
    target = encoder(drop_path=0.1)
    load_encoder(target, path)
    assert_same(target.state_dict(), source.state_dict())
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["miram_encoder"]) == TINY
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_an_export_that_fails_half_way_leaves_the_earlier_file(
    exported: tuple[Encoder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(temporary: Path, content: bytes) -> None:
        temporary.touch()
        raise RuntimeError("killed")

    source, path = exported
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(RuntimeError, match="killed"):
        save_encoder(encoder(), path)
    target = encoder()
    load_encoder(target, path)
    assert_same(target.state_dict(), source.state_dict())
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_timm_loads_the_exported_file(exported: tuple[Encoder, Path]) -> None:
    source, path = exported
    timms = create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, checkpoint_path=str(path))
    assert_same(timms.state_dict(), source.state_dict())


def test_positions_are_resampled_when_the_side_differs(exported: tuple[Encoder, Path]) -> None:
    source, path = exported
    target = encoder(side=64)
    load_encoder(target, path)
    expected = resample_abs_pos_embed(source.pos_embed, [4, 4])
    assert torch.equal(target.pos_embed, expected) and not torch.equal(expected, encoder(side=64).pos_embed)
    assert torch.equal(target.cls_token, source.cls_token)


@pytest.mark.parametrize(
    "change", [{"width": 96}, {"depth": 2}, {"heads": 6}, {"mlp_ratio": 2.0}, {"patch": 8}, {"channels": 1}]
)
def test_another_architecture_is_refused_and_named(exported: tuple[Encoder, Path], change: dict) -> None:
    _, path = exported
    (key, value), untouched = next(iter(change.items())), encoder(**change)
    before = {name: tensor.clone() for name, tensor in untouched.state_dict().items()}
    with pytest.raises(MiramError, match=f"{path} holds another architecture: {key} {TINY[key]} instead of {value}"):
        load_encoder(untouched, path)
    assert_same(untouched.state_dict(), before)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_public_vit_starts_the_encoder(tmp_path: Path, wrapped: bool) -> None:
    public = create_model("vit_tiny_patch16_224").state_dict()
    stored = {"model": public | {"mask_token": torch.zeros(1)}, "args": argparse.Namespace(lr=1)} if wrapped else public
    torch.save(stored, tmp_path / "public.pth")
    target = encoder()
    load_encoder(target, tmp_path / "public.pth")
    assert torch.equal(target.blocks[11].mlp.fc2.weight, public["blocks.11.mlp.fc2.weight"])
    assert torch.equal(target.pos_embed, resample_abs_pos_embed(public["pos_embed"], [2, 2]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("vit_small_patch16_224", "width 384 instead of 192"),
        ("vit_tiny_patch16_224.norm_pre", "norm_pre.weight where there is none"),
    ],
)
def test_a_public_file_of_another_architecture_is_refused(tmp_path: Path, model: str, message: str) -> None:
    name, _, extra = model.partition(".")
    state = create_model(name).state_dict()
    if extra:
        state[f"{extra}.weight"] = torch.ones(192)
    torch.save(state, tmp_path / "public.pth")
    with pytest.raises(MiramError, match=f"another architecture: .*{message}"):
        load_encoder(encoder(), tmp_path / "public.pth")


def test_positions_without_a_class_token_are_refused(tmp_path: Path) -> None:
    torch.save(encoder().state_dict() | {"pos_embed": torch.zeros(1, 196, 192)}, tmp_path / "public.pth")
    with pytest.raises(MiramError, match=r"pos_embed \(1, 196, 192\) instead of"):
        load_encoder(encoder(), tmp_path / "public.pth")


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_is_refused_as_such(tmp_path: Path, name: str, share: float) -> None:
    path, source = tmp_path / name, encoder(depth=1)
    if path.suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        save_encoder(source, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MiramError, match=f"{path} cannot be read as a checkpoint: truncated"):
        load_encoder(source, path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "evil.pth")
    with pytest.raises(MiramError, match="cannot be read as a checkpoint"):
        load_encoder(encoder(), tmp_path / "evil.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MiramError, match=f"{tmp_path / 'none.pth'} does not exist"):
        load_encoder(encoder(), tmp_path / "none.pth")
