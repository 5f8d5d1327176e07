import pytest
import torch

from miram.models.build import build_pretrainer
from miram.models.encoder import Encoder
from miram.models.mae import MAE
from miram.models.miram import MIRAM
from miram.models.mocov3 import MoCoV3

VALUES = {
    "side": 24,
    "encoder": {"patch": 8, "channels": 1, "width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0},
    "decoder": {"width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0},
    "scale": 2,
    "target": "upsampled",
    "loss_on": "removed",
    "mask_ratio": 0.75,
    "moco": {"projector_width": 16, "projector_out": 8, "temperature": 0.2, "jitter_brightness": 0.4},
}
LINFORMER = {"attention": "linformer", "backend": "fused", "options": {"rank": 4}}


@pytest.mark.parametrize(("objective", "kind"), [("mae", MAE), ("miram", MIRAM), ("mocov3", MoCoV3)])
def test_each_objective_builds_its_model_around_an_encoder(objective: str, kind: type) -> None:
    model = build_pretrainer(objective, **VALUES, **(LINFORMER if objective == "miram" else {}))
    assert type(model) is kind and isinstance(model.encoder, Encoder)


@pytest.mark.parametrize("objective", ["mae", "miram", "mocov3"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_float32_loss(objective: str, precision: torch.dtype) -> None:
    model = build_pretrainer(objective, **VALUES, **LINFORMER)
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
        states.append(build_pretrainer(objective, **VALUES, **LINFORMER).encoder.state_dict())
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in state)


def test_an_unknown_objective_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="objective 'simclr': one of mae, miram, mocov3"):
        build_pretrainer("simclr", **VALUES)


def test_an_unknown_attention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'longformer'.*full.*linformer.*performer.*nystrom"):
        build_pretrainer("miram", **VALUES, attention="longformer")
