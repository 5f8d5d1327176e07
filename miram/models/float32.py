"""Arithmetic that stays in full float32 whatever precision a training has: no autocast, no TF32.

TF32 rounds the inputs of float32 matrix products to 10 bits of mantissa. It is a global setting of torch, which reaches
regions without autocast as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def full_float32(device_type: str) -> Iterator[None]:
    """In the block float32 products of a device are exact to float32; the caller casts half-precision tensors.

    Asking torch for the setting would break a compiled graph, and a compiled training has no TF32. Tensors without
    values ("meta") know no autocast.
    """
    before = "highest" if torch.compiler.is_compiling() else torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)


def at_least_float32(x: Tensor) -> Tensor:
    """A tensor in half precision as float32, another as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FullProduct(torch.autograd.Function):
    """`a @ b` in full float32, forward and backward; (..., n, k) and (..., k, m) with the same leading axes."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(a, b)
        with full_float32(a.device.type):
            return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both factors."""
        a, b = ctx.saved_tensors
        with full_float32(grad.device.type):
            return grad @ b.mT, a.mT @ grad
