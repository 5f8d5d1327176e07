"""The parts that the fused stacks share: pre-norm residual layers that keep little for the backward pass.

Shapes: B batch, N tokens, D width. Parameters are named as in the corresponding package, so that a state dict loads in
both directions.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from miram.models._timm import Block


def recompute(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return `function(*inputs)`, keeping only the inputs and calling the function again in the backward pass.

    The second call stops as soon as the backward pass has what it needs: a final `Linear` is not repeated.
    """
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def recompute_blocks(model: nn.Module) -> None:
    """Let every block of `model` that this package builds keep only its input, and `recompute` the rest.

    Raises ValueError if there are blocks of another package.
    """
    for block in filter(is_block, model.modules()):
        if not isinstance(block, Block | PreNorm):
            raise ValueError("recompute: true needs backend 'fused'; blocks of 'package' do not support it")
        block.forward = partial(recompute, block.forward)  # type: ignore[method-assign]  # of this block alone


def is_block(module: nn.Module) -> bool:
    """Whether a module is a block, or a residual half of one, of this package or of a public one."""
    return isinstance(module, Block) or type(module).__name__ == "PreNorm"


class PreNorm(nn.Module):
    """`x + fn(norm(x))` on (B, N, D)."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        return x + self.fn(self.norm(x))


class FeedForward(nn.Module):
    """Linear, exact GELU, Linear, hidden width 4 D; GELU is recomputed: (B, N, 4 D) is kept once, not twice."""

    def __init__(self, dim: int, names: tuple[str, str]) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Linear(dim, 4 * dim))
        self.add_module(names[1], nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        first, second = (self.get_submodule(name) for name in self.names)
        return recompute(lambda hidden: second(functional.gelu(hidden)), first(x))


class Stack(nn.Module):
    """`depth` pairs of attention and MLP, each pre-norm and residual, on (B, N, D)."""

    def __init__(self, dim: int, depth: int, attention: Callable[[], nn.Module], mlp: Callable[[], nn.Module]) -> None:
        super().__init__()
        pairs = (nn.ModuleList([PreNorm(dim, attention()), PreNorm(dim, mlp())]) for _ in range(depth))
        self.layers = cast(Iterable[tuple[PreNorm, PreNorm]], nn.ModuleList(pairs))  # torch types no lists in lists

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        for attention, mlp in self.layers:
            x = mlp(attention(x))
        return x


def check_heads(dim: int, heads: int) -> int:
    """Return the width of a head; ValueError where `heads` does not divide `dim`."""
    if dim % heads:
        raise ValueError(f"width {dim} is not divisible by {heads} heads")
    return dim // heads


def check_backend(backend: str | None) -> None:
    """Raise ValueError for a backend other than `fused` and `package`."""
    if backend not in ("fused", "package"):
        raise ValueError(f"backend {backend!r} is not one of 'fused', 'package'")


def split_heads(x: Tensor, heads: int) -> Tensor:
    """View (B, N, H d) as (B, H, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
