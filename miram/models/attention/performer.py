"""Performer attention (arXiv 2009.14794, FAVOR+): softmax through positive orthogonal random features.

Shapes: B batch, N tokens, D width, H heads, d = D / H, r = int(d ln d) random features.
"""

import math
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from miram.models.attention.blocks import FeedForward, Stack, check_backend, check_heads
from miram.models.attention.favor import RandomFeatureAttention


def draw_projection(rows: int, columns: int) -> Tensor:
    """Draw (rows, columns) Gaussian-length directions, orthogonal within each block of `columns` rows.

    It draws from the global CPU generator; on a CPU the result equals that of performer-pytorch.
    """
    blocks = -(-rows // columns)
    directions = [torch.linalg.qr(torch.randn(columns, columns)).Q.T for _ in range(blocks)]
    lengths = torch.randn(rows, columns).norm(dim=1)
    return lengths[:, None] * torch.cat(directions)[:rows]


class RandomFeatures(nn.Module):
    """Linear attention over random features of queries and keys."""

    projection_matrix: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("projection_matrix", draw_projection(int(head_dim * math.log(head_dim)), head_dim))

    @torch.no_grad()
    def redraw(self) -> None:
        """Replace the projection."""
        self.projection_matrix.copy_(draw_projection(*self.projection_matrix.shape))


class PerformerAttention(nn.Module):
    """Linear attention of N queries on N keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.fast_attention = RandomFeatures(check_heads(dim, heads))
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D); keeps queries, keys and values."""
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        projection = self.fast_attention.projection_matrix.to(torch.promote_types(q.dtype, torch.float32))
        return RandomFeatureAttention.apply(
            q, k, v, projection, self.to_out.weight.to(q.dtype), self.to_out.bias.to(q.dtype)
        )


class RedrawClock(nn.Module):
    """Counts optimiser steps since the last redraw: a number, for which no device is waited for.

    A step is `forwards_per_step` training forwards, so that a batch in parts has the projections of the whole one.
    Checkpoints, between steps, hold the count as performer-pytorch's, the buffer `calls_since_last_redraw`.
    """

    NAME = "calls_since_last_redraw"

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.forwards, self.forwards_per_step = 0, 0, 1

    def begins_step(self) -> bool:
        """Count a training forward: whether it is the first of its step."""
        self.forwards += 1
        return (self.forwards - 1) % self.forwards_per_step == 0

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + self.NAME] = torch.tensor(self.calls)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, *others: Any
    ) -> None:
        if prefix + self.NAME in state_dict:
            self.calls = int(state_dict[prefix + self.NAME])
        elif strict:
            missing.append(prefix + self.NAME)


class Performer(nn.Module):
    """Performer blocks that redraw their projections in every optimiser step after `interval` others (0: never)."""

    def __init__(self, dim: int, depth: int, heads: int, interval: int) -> None:
        super().__init__()
        self.interval = interval
        attention = partial(PerformerAttention, dim, heads)
        self.net = Stack(dim, depth, attention, lambda: nn.Sequential(OrderedDict(fn=FeedForward(dim, ("w1", "w2")))))
        self.proj_updater = RedrawClock()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        if self.training:
            self._tick()
        return self.net(x)

    @torch.compiler.disable
    def _tick(self) -> None:
        if not self.proj_updater.begins_step():
            return
        if self.interval and self.proj_updater.calls >= self.interval:
            for attention, _ in self.net.layers:
                if isinstance(attention.fn, PerformerAttention):
                    attention.fn.fast_attention.redraw()
            self.proj_updater.calls = 0
        else:
            self.proj_updater.calls += 1


def build(*, backend: str, dim: int, depth: int, heads: int, tokens: int, redraw_interval: int) -> nn.Module:
    """Return `depth` Performer blocks for any number of tokens.

    The projections are redrawn in optimiser steps `redraw_interval` + 1, 2 (`redraw_interval` + 1), ...; 0: never.
    The backend `package` takes each training forward for a step, also where a step has several.
    ValueError for an unknown backend, heads that do not divide `dim`, or heads too narrow for a feature.
    """
    check_backend(backend)
    head_dim = check_heads(dim, heads)
    if head_dim < 2:
        raise ValueError(f"heads of width {head_dim}: a Performer needs at least 2 for one random feature")
    if redraw_interval < 0:
        raise ValueError(f"redraw_interval {redraw_interval} is negative; 0 means never")
    if backend == "fused":
        return Performer(dim, depth, heads, redraw_interval)
    import performer_pytorch

    # The package registers its layers again under the updater, which would double every entry of the state dict.
    stack = performer_pytorch.Performer(dim, depth, heads, head_dim, feature_redraw_interval=redraw_interval or None)
    updater = stack.proj_updater
    del updater._modules["instance"]
    object.__setattr__(updater, "instance", stack.net)
    return stack
