"""Standard transformer blocks and the initialisation that all models share."""

from functools import partial
from typing import cast

from torch import nn

from miram.models._timm import Block

NORM_EPS = 1e-6


def transformer_blocks(width: int, depth: int, heads: int, mlp_ratio: float, drop_path: float) -> nn.Sequential:
    """Pre-norm blocks with full attention, (B, N, D) -> (B, N, D).

    `drop_path` grows linearly from 0 at the first block to its value at the last. Raises ValueError if the heads do
    not divide the width.
    """
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of {heads} heads")
    norm = cast(type[nn.Module], partial(nn.LayerNorm, eps=NORM_EPS))  # timm calls it like a class
    rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
    return nn.Sequential(
        *(Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm, drop_path=rate) for rate in rates)
    )


def init_linear(module: nn.Module) -> None:
    """Initialise every Linear below `module` xavier-uniform with zero bias; norms keep torch's 1 and 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
