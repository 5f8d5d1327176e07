"""The attention stacks of the high-resolution decoder, each in a module that `miram.kinds` names.

Shapes: B batch, N tokens, D width. Every stack maps (B, N, D) to (B, N, D).
"""

from torch import nn

from miram import kinds


def build_stack(
    attention: str, *, backend: str | None, dim: int, depth: int, heads: int, tokens: int, **options: int | str
) -> nn.Module:
    """Return `depth` pre-norm blocks of width `dim` (D) for `tokens` (N) tokens, class token included.

    `backend` is `fused` (ours) or `package` (the public library) with the same weights for both, and None for a kind of
    one form. `options` are those of the kind's `build`. ValueError names an invalid value and the valid ones.
    """
    if attention not in kinds.ATTENTION:
        raise ValueError(f"attention {attention!r} is not one of {', '.join(map(repr, kinds.ATTENTION))}")
    build = kinds.load(kinds.ATTENTION[attention].build)
    return build(backend=backend, dim=dim, depth=depth, heads=heads, tokens=tokens, **options)
