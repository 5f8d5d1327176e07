"""The iterated pseudo-inverse of Nystromformer (Razavi et al. 2014), keeping only its iterates.

Shapes: (..., m, m), with at least one leading axis.
One step is z <- z P / 4 with y = x z, C = 7 - y, R = 15 - y C, P = 13 - y R. The backward pass recomputes all but z.
Matrices are processed in groups that fit a processor's cache, and never in half precision.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from miram.models.float32 import full_float32

CPU_GROUP, DEVICE_GROUP = 2**16, 2**28  # entries of the matrices in one group


class PseudoInverse(torch.autograd.Function):
    """`(x, start, iterations) -> z` after that many steps from z = start."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, iterations: int) -> Tensor:
        """Iterate, group by group."""
        result = start.flatten(0, -3).clone()
        iterates = result.new_empty(iterations, *result.shape)
        with full_float32(x.device.type):
            for group, matrices in _groups(x):
                z = result[group]
                for step in range(iterations):
                    iterates[step, group] = z
                    z = 0.25 * z @ _polynomial(matrices @ z)[-1]
                result[group] = z
        ctx.save_for_backward(x, iterates)
        return result.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Backpropagate through the steps, group by group."""
        x, iterates = ctx.saved_tensors
        dz, dx = grad.flatten(0, -3).clone(), torch.zeros_like(x.flatten(0, -3))
        with full_float32(x.device.type):
            for group, matrices in _groups(x):
                slope = dz[group]
                for z in reversed(iterates[:, group].unbind()):
                    y = matrices @ z
                    c, r, p = _polynomial(y)
                    slope = 0.25 * slope
                    dp = z.mT @ slope
                    u = y.mT @ dp
                    dy = (u @ c.mT).baddbmm_(dp, r.mT, alpha=-1).baddbmm_(y.mT, u, alpha=-1)
                    dx[group].baddbmm_(dy, z.mT)
                    slope = (slope @ p.mT).baddbmm_(matrices.mT, dy)
                dz[group] = slope
        return dx.view(x.shape), dz.view(x.shape), None


def _groups(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    flat = x.flatten(0, -3)
    count = max(1, (CPU_GROUP if x.device.type == "cpu" else DEVICE_GROUP) // x.shape[-1] ** 2)
    for first in range(0, len(flat), count):
        group = slice(first, first + count)
        yield group, flat[group]


def _polynomial(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return C, R and P of y."""
    eye = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    c = 7 * eye - y
    r = torch.baddbmm(15 * eye, y, c, alpha=-1)
    return c, r, torch.baddbmm(13 * eye, y, r, alpha=-1)
