"""The attention stacks of the high-resolution decoder: full attention and three linear kinds.

Shapes: B batch, N tokens, D width. Every stack maps (B, N, D) to (B, N, D).
"""

from torch import nn

from miram.models.attention import full, linformer, nystrom, performer

STACKS = {"full": full.build, "linformer": linformer.build, "performer": performer.build, "nystrom": nystrom.build}


def build_stack(
    kind: str, *, backend: str | None, dim: int, depth: int, heads: int, tokens: int, **options: int | str
) -> nn.Module:
    """Return `depth` pre-norm blocks of width `dim` (D) for `tokens` (N) tokens, class token included.

    `backend` is `fused` (ours) or `package` (the public library) with the same weights for both, and None for `full`.
    `options` are those of the kind's `build`. ValueError names a value that is not possible, and the possible ones.
    """
    if kind not in STACKS:
        raise ValueError(f"attention {kind!r} is not one of {', '.join(map(repr, STACKS))}")
    return STACKS[kind](backend=backend, dim=dim, depth=depth, heads=heads, tokens=tokens, **options)
