import pytest
import torch

from miram.models.encoder import Encoder
from miram.models.mae import MAE
from miram.recipe import Decoder

DECODER = Decoder(width=16, depth=1, heads=2, mlp_ratio=2.0)


def mae(channels: int = 3, mask_ratio: float = 0.75, loss_on: str = "removed") -> MAE:
    encoder = Encoder(side=32, patch=8, channels=channels, width=16, depth=1, heads=2, mlp_ratio=2.0, drop_path=0.0)
    return MAE(encoder, decoder=DECODER, mask_ratio=mask_ratio, loss_on=loss_on)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(channels: int) -> None:
    output = mae(channels)(torch.rand(2, channels, 32, 32), torch.rand(2, 16))
    assert output.loss.shape == () and output.highres_pred is None
    assert output.lowres_pred.shape == (2, 16, 64 * channels)
    assert output.mask.shape == (2, 16) and output.mask.sum() == 2 * 12


def test_predictions_see_the_kept_pixels_and_no_removed_ones() -> None:
    model, images, noise = mae(1), torch.rand(1, 1, 32, 32), torch.rand(1, 16)
    before = model(images, noise)
    removed = before.mask.view(4, 4).repeat_interleave(8, 0).repeat_interleave(8, 1).bool()
    hidden = model(torch.where(removed, torch.rand_like(images), images), noise)
    shown = model(torch.where(removed, images, torch.rand_like(images)), noise)
    assert torch.equal(hidden.lowres_pred, before.lowres_pred)
    assert not torch.allclose(shown.lowres_pred, before.lowres_pred)


def test_the_loss_is_that_of_the_removed_patches_or_of_all() -> None:
    images, noise = torch.rand(2, 3, 32, 32), torch.rand(2, 16)
    model = mae(loss_on="removed")
    output = model(images, noise)
    patches = model.encoder.patchify(images)
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    errors = (output.lowres_pred - target).square().mean(-1)
    torch.testing.assert_close(output.loss, errors[output.mask == 1].mean())
    model.loss_on = "all"
    torch.testing.assert_close(model(images, noise).loss, errors.mean())


def test_every_parameter_learns() -> None:
    model = mae()
    model(torch.rand(2, 3, 32, 32), torch.rand(2, 16)).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_another_loss_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="loss_on 'kept': one of removed, all"):
        mae(loss_on="kept")


@pytest.mark.parametrize("ratio", [0.0, 0.99])
def test_a_mask_that_keeps_or_removes_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio {ratio}"):
        mae(mask_ratio=ratio)(torch.rand(1, 3, 32, 32), torch.rand(1, 16))
