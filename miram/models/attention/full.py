"""Full softmax attention: the quadratic reference, standard ViT blocks."""

from torch import nn

from miram.models.blocks import transformer_blocks


def build(*, dim: int, depth: int, heads: int, tokens: int, backend: str | None = None) -> nn.Module:
    """Return `depth` pre-norm ViT blocks (LayerNorm eps 1e-6, qkv bias, MLP ratio 4) for any number of tokens.

    There is only one implementation: ValueError if a backend is named.
    """
    if backend is not None:
        raise ValueError(f"backend {backend!r}: full attention has no backends; leave it out")
    return transformer_blocks(dim, depth, heads, mlp_ratio=4.0, drop_path=0.0)
