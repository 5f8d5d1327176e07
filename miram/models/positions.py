"""Fixed positions of tokens on a square grid."""

import torch
from torch import Tensor


def sincos_2d(width: int, grid: int) -> Tensor:
    """Sine-cosine positions of a class token (zeros) and grid x grid patches in rows, (1 + grid², width), float32.

    The first half of the features encodes the column, the second half the row, each as all sines and then all cosines
    of width/4 frequencies from 1 down towards 1/10000 (facebookresearch/mae, util/pos_embed.py). Raises ValueError
    where 4 does not divide the width.
    """
    if width % 4:
        raise ValueError(f"width {width}: sine-cosine positions in two dimensions need a multiple of 4")
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    patches = torch.cat([line.repeat(grid, 1), line.repeat_interleave(grid, dim=0)], dim=1)
    return torch.cat([torch.zeros(1, width), patches.float()])
