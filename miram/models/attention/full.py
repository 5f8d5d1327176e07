"""Full softmax attention: the quadratic reference, standard ViT blocks on timm."""

from functools import partial

from torch import nn

from miram.models._timm import Block


def build(*, dim: int, depth: int, heads: int, tokens: int, backend: str | None = None) -> nn.Module:
    """Return `depth` pre-norm ViT blocks (LayerNorm eps 1e-6, qkv bias, MLP ratio 4) for any number of tokens.

    There is one implementation: ValueError where a backend is named.
    """
    if backend is not None:
        raise ValueError(f"backend {backend!r}: full attention has no backends; leave it out")
    norm = partial(nn.LayerNorm, eps=1e-6)
    return nn.Sequential(*(Block(dim, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)))
