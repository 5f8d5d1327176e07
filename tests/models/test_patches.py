import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from miram.models.patches import (
    enlarge_tokens,
    patch_errors,
    patchify,
    random_masking,
    restore_pixels,
    take,
    unpatchify,
)


@given(grid=st.integers(1, 5), patch=st.integers(1, 6), channels=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_unpatchify_undoes_patchify(grid: int, patch: int, channels: int) -> None:
    images = torch.randn(2, channels, grid * patch, grid * patch)
    assert torch.equal(unpatchify(patchify(images, patch), patch), images)


def test_patches_stand_in_rows_and_their_values_in_the_order_row_column_channel() -> None:
    images = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    patches = patchify(images, 2)
    assert torch.equal(patches[0, 1], images[0, :, :2, 2:].permute(1, 2, 0).flatten())


def test_a_side_that_the_patch_does_not_divide_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="side 50 px is not a multiple of the patch of 8 px"):
        patchify(torch.zeros(1, 1, 48, 50), 8)


@given(tokens=st.integers(2, 200), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_masking_keeps_exactly_the_patches_of_the_smallest_noise(tokens: int, ratio: float, seed: int) -> None:
    noise = torch.rand(3, tokens, generator=torch.Generator().manual_seed(seed))
    keep = int(tokens * (1 - ratio))
    if not 0 < keep < tokens:
        with pytest.raises(ValueError, match="at least 1 must be kept"):
            random_masking(noise, ratio)
        return
    kept, restore, mask = random_masking(noise, ratio)
    assert kept.shape == (3, keep)
    assert torch.equal(mask.sum(dim=1), torch.full((3,), tokens - keep).float())
    assert (mask.gather(1, kept) == 0).all()
    for row in range(3):
        assert noise[row][mask[row] == 0].max() <= noise[row][mask[row] == 1].min()
    order = torch.cat([kept, noise.argsort(dim=1)[:, keep:]], dim=1)
    assert torch.equal(order.gather(1, restore), torch.arange(tokens).expand(3, -1))


def test_take_picks_tokens_per_sample() -> None:
    tokens = torch.randn(2, 5, 3)
    picked = take(tokens, torch.tensor([[4, 0], [1, 1]]))
    assert torch.equal(picked, torch.stack([tokens[0, [4, 0]], tokens[1, [1, 1]]]))


def test_errors_use_the_unbiased_variance_of_each_target_patch() -> None:
    predicted, patches = torch.randn(2, 4, 12), torch.rand(2, 4, 12)
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    torch.testing.assert_close(patch_errors(predicted, patches, 3), (predicted - target).square().mean(-1))


def test_a_prediction_of_the_normalised_target_is_restored_to_the_targets_pixels() -> None:
    patches = torch.rand(2, 4, 12)
    normalised = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    torch.testing.assert_close(restore_pixels(normalised, patches), patches)
    assert patch_errors(normalised, patches, 3).max() < 1e-10


def test_a_flat_patch_has_a_finite_error() -> None:
    assert patch_errors(torch.zeros(1, 1, 4), torch.full((1, 1, 4), 0.7), 1).item() == 0


@pytest.mark.parametrize(("patch", "scale", "channels"), [(4, 2, 3), (8, 4, 1), (6, 3, 2)])
def test_errors_against_the_small_target_equal_those_against_its_enlarged_copy(
    patch: int, scale: int, channels: int
) -> None:
    images = torch.rand(2, channels, 2 * patch, 2 * patch, dtype=torch.float64)
    predicted = torch.randn(2, (2 * scale) ** 2, patch**2 * channels, dtype=torch.float64)
    enlarged = patchify(F.interpolate(images, scale_factor=scale, mode="nearest"), patch)
    torch.testing.assert_close(
        patch_errors(predicted, patchify(images, patch // scale), channels),
        patch_errors(predicted, enlarged, channels),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("scale", [2, 4])
def test_enlarged_tokens_are_the_nearest_neighbours_behind_the_class_token(scale: int) -> None:
    tokens = torch.randn(2, 1 + 9, 5)
    grid = tokens[:, 1:].mT.unflatten(-1, (3, 3))
    expected = F.interpolate(grid, scale_factor=scale, mode="nearest").flatten(2).mT
    enlarged = enlarge_tokens(tokens, scale)
    assert torch.equal(enlarged[:, 1:], expected)
    assert torch.equal(enlarged[:, :1], tokens[:, :1])
