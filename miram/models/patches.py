"""Images as sequences of patches: cutting, masking, and the loss on them.

Shapes: B images of C channels and H = W = side pixels; L = (side / p)² patches in rows, of p x p pixels each; P = p·p·C
values of a patch, in the order row, column, channel; K patches kept by the masking.
"""

import math

import torch
from torch import Tensor


def grid_of(side: int, patch: int) -> int:
    """Patches along a side; raises ValueError if the patch does not divide it."""
    if side % patch:
        raise ValueError(f"side {side} px is not a multiple of the patch of {patch} px")
    return side // patch


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images (B, C, H, W) into patches (B, L, P)."""
    rows, columns = (grid_of(side, patch) for side in images.shape[-2:])
    cut = images.unflatten(-2, (rows, patch)).unflatten(-1, (columns, patch))
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """Join patches (B, L, P) of a square image to images (B, C, H, W): the inverse of `patchify`."""
    grid = math.isqrt(patches.shape[1])
    cut = patches.unflatten(1, (grid, grid)).unflatten(-1, (patch, patch, -1))
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def random_masking(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the K = int(L·(1 - mask_ratio)) patches of the smallest noise, per sample.

    From noise (B, L): the indices of the kept patches by increasing noise (B, K), the position of each patch in that
    order (B, L), and the mask (B, L), 0 kept and 1 removed, float32. Raises ValueError where nothing would be kept or
    removed.
    """
    tokens = noise.shape[1]
    keep = int(tokens * (1 - mask_ratio))
    if not 0 < keep < tokens:
        raise ValueError(
            f"mask_ratio {mask_ratio} keeps {keep} of {tokens} patches; at least 1 must be kept and 1 removed"
        )
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    return order[:, :keep], restore, (restore >= keep).float()


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens (B, N, D) by per-sample index (B, M): (B, M, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def patch_errors(predicted: Tensor, patches: Tensor, channels: int) -> Tensor:
    """Mean squared error of predictions (B, L, P) against normalised target patches (B, L, Q), per patch: (B, L).

    If Q < P, each pixel of the target counts for r x r pixels of the prediction, r = √(P/Q): the target enlarged r
    times, without a copy in memory.
    """
    repeat = math.isqrt(predicted.shape[-1] // patches.shape[-1])
    side = math.isqrt(patches.shape[-1] // channels)
    mean, deviation = _moments(patches, predicted.shape[-1])
    target = ((patches - mean) / deviation).unflatten(-1, (side, 1, side, 1, channels))
    return (predicted.unflatten(-1, (side, repeat, side, repeat, channels)) - target).square().flatten(2).mean(dim=-1)


def restore_pixels(predicted: Tensor, patches: Tensor) -> Tensor:
    """Give predictions (B, L, P) the mean and deviation of the target patches (B, L, Q): pixels in the images' unit."""
    mean, deviation = _moments(patches, predicted.shape[-1])
    return predicted * deviation + mean


def _moments(patches: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, (B, L, 1): the variance unbiased over `values` values, plus 1e-6."""
    variance = patches.var(dim=-1, correction=0, keepdim=True) * (values / (values - 1))
    return patches.mean(dim=-1, keepdim=True), (variance + 1e-6).sqrt()


def enlarge_tokens(tokens: Tensor, scale: int) -> Tensor:
    """Repeat each patch token of (B, 1 + g², D) scale x scale times in space: (B, 1 + (scale·g)², D)."""
    grid = math.isqrt(tokens.shape[1] - 1)
    cells = tokens[:, 1:].unflatten(1, (grid, 1, grid, 1)).expand(-1, -1, scale, -1, scale, -1)
    return torch.cat([tokens[:, :1], cells.flatten(1, 4)], dim=1)
