from functools import partial

import pytest
import torch
from tiny_recipe import recipe

from miram.errors import MiramError
from miram.models.build import build_pretrainer
from miram.models.encoder import Encoder
from miram.models.mae import MAE
from miram.models.miram import MIRAM
from miram.models.mocov3 import MoCoV3
from miram.planning.kept import kept_bytes

VALUES = {
    "side": 24,
    "encoder": {"patch": 8, "channels": 1, "width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0},
    "decoder": {"width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0},
    "highres": {"scale": 2, "target": "upsampled"},
    "encoder_init": None,
    "loss_on": "removed",
    "mask_ratio": 0.75,
    "moco": {"projector_width": 16, "projector_out": 8, "temperature": 0.2},
    "recompute": False,
}
LINFORMER = {"attention": "linformer", "backend": "fused", "options": {"rank": 4}}


@pytest.mark.parametrize(("objective", "kind"), [("mae", MAE), ("miram", MIRAM), ("mocov3", MoCoV3)])
def test_each_objective_builds_its_model_around_an_encoder(objective: str, kind: type) -> None:
    model = build_pretrainer(recipe(objective, **VALUES, **(LINFORMER if objective == "miram" else {})))
    assert type(model) is kind and isinstance(model.encoder, Encoder)


@pytest.mark.parametrize("objective", ["mae", "miram", "mocov3"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_float32_loss(objective: str, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build_pretrainer(recipe(objective, **VALUES, **LINFORMER))
    images, second, noise = torch.rand(8, 1, 24, 24), torch.rand(8, 1, 24, 24), torch.rand(8, 9)
    inputs = (images, second, 1.0) if objective == "mocov3" else (images, noise)
    with torch.autocast("cpu", precision):
        half = model(*inputs).loss
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, model(*inputs).loss, rtol=0.05, atol=0)


def test_the_encoder_starts_equal_for_every_objective_of_one_seed() -> None:
    states = []
    for objective in ("mae", "miram", "mocov3"):
        torch.manual_seed(3)
        states.append(build_pretrainer(recipe(objective, **VALUES, **LINFORMER)).encoder.state_dict())
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in state)


@pytest.mark.parametrize(
    ("objective", "kind", "options"),
    [
        ("mae", None, None),
        ("mocov3", None, None),
        ("miram", "full", {}),
        ("miram", "linformer", {"rank": 4}),
        ("miram", "performer", {"redraw_interval": 0}),
        (
            "miram",
            "nystrom",
            {"landmarks": 7, "pinv_iterations": 6, "pinv_init": "matrix", "residual_kernel": 3},
        ),
    ],
)
def test_recomputing_keeps_less_and_changes_no_number(objective: str, kind: str | None, options: dict | None) -> None:
    backend = "fused" if options else None
    inputs = (torch.rand(4, 1, 24, 24), torch.rand(4, 1, 24, 24), 0.9)
    inputs = inputs if objective == "mocov3" else (inputs[0], torch.rand(4, 9))
    kept, results = [], []
    encoder = {**VALUES["encoder"], "depth": 4}  # MoCo-v3's last block computes the class token alone, as it is
    for recompute in (False, True):
        torch.manual_seed(0)
        values = {
            **VALUES,
            "encoder": encoder,
            "attention": kind,
            "backend": backend,
            "options": options,
            "recompute": recompute,
        }
        model = build_pretrainer(recipe(objective, **values))
        kept.append(kept_bytes(partial(model, *inputs)))
        torch.manual_seed(0)
        model = build_pretrainer(recipe(objective, **values))
        loss = model(*inputs).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert kept[1] < 0.8 * kept[0]
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_blocks_of_a_package_are_not_recomputed() -> None:
    values = {**VALUES, "attention": "linformer", "backend": "package", "options": {"rank": 4}, "recompute": True}
    with pytest.raises(MiramError, match="recompute: true needs backend 'fused'"):
        build_pretrainer(recipe("miram", **values))


def test_an_unknown_attention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MiramError, match=r"'longformer'.*full.*linformer.*performer.*nystrom"):
        build_pretrainer(recipe("miram", **VALUES, **LINFORMER | {"attention": "longformer"}))
