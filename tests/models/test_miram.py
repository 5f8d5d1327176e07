import pytest
import torch
from torch.nn import functional as F

from miram.models.encoder import Encoder
from miram.models.miram import MIRAM
from miram.recipe import Decoder, Highres

DECODER = Decoder(width=16, depth=1, heads=2, mlp_ratio=2.0)
KINDS = {
    "full": {},
    "linformer": {"rank": 8},
    "performer": {"redraw_interval": 0},
    "nystrom": {"landmarks": 7, "pinv_iterations": 6, "pinv_init": "batch", "residual_kernel": 5},
}


def miram(
    kind: str = "full",
    backend: str | None = None,
    patch: int = 8,
    channels: int = 3,
    scale: int = 2,
    target: str = "upsampled",
    **changes: object,
) -> MIRAM:
    encoder = Encoder(
        side=3 * patch, patch=patch, channels=channels, width=16, depth=1, heads=2, mlp_ratio=2.0, drop_path=0.0
    )
    values = {"mask_ratio": 0.75, "loss_on": "removed", "highres": Highres(scale, target)} | changes
    return MIRAM(encoder, decoder=DECODER, attention=kind, backend=backend, options=KINDS[kind], **values)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_predicts_every_patch_of_the_larger_image_and_every_parameter_learns(kind: str, scale: int) -> None:
    model = miram(kind, None if kind == "full" else "fused", channels=1, scale=scale)
    output = model(torch.rand(2, 1, 24, 24), torch.rand(2, 9))
    assert output.highres_pred.shape == (2, 9 * scale**2, 64)
    assert output.lowres_pred.shape == (2, 9, 64)
    output.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "full"])
def test_the_weights_of_a_model_are_the_same_for_both_backends(kind: str) -> None:
    fused, package = miram(kind, "fused"), miram(kind, "package")
    package.load_state_dict(fused.state_dict())
    fused.load_state_dict(package.state_dict())
    images, noise = torch.rand(2, 3, 24, 24), torch.rand(2, 9)
    torch.testing.assert_close(fused(images, noise).loss, package(images, noise).loss)


@pytest.mark.parametrize("patch", [8, 5])
def test_the_upsampled_target_equals_the_native_one_of_the_enlarged_input(patch: int) -> None:
    images, noise = torch.rand(2, 3, 3 * patch, 3 * patch), torch.rand(2, 9)
    model = miram(patch=patch)
    upsampled = model(images, noise)
    model.target = "native"
    native = model(images, noise, F.interpolate(images, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(upsampled.loss, native.loss)


def test_the_native_target_is_an_image_of_its_own() -> None:
    images, noise = torch.rand(2, 3, 24, 24), torch.rand(2, 9)
    model = miram(target="native")
    native = torch.rand(2, 3, 48, 48)
    first, second = model(images, noise, native), model(images, noise, native.flip(-1))
    assert torch.equal(first.highres_pred, second.highres_pred) and first.loss != second.loss


@pytest.mark.parametrize(
    ("target", "native", "message"),
    [
        ("native", None, "target 'native' takes a native image"),
        ("upsampled", torch.zeros(1, 3, 48, 48), "target 'upsampled' takes no native image"),
        ("native", torch.zeros(1, 3, 24, 24), r"\(3, 24, 24\); this model takes \(3, 48, 48\)"),
    ],
)
def test_the_native_image_must_fit_the_target(target: str, native: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        miram(target=target)(torch.rand(1, 3, 24, 24), torch.rand(1, 9), native)
