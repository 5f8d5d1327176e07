"""Attention through positive random features (FAVOR+, arXiv 2009.14794, section 2), in blocks of tokens.

Shapes: B batch, N tokens, H heads, d head width, r random features; b, n samples and tokens of one block.
With s = d^(-1/4), the features of a row x are exp(s P x - |s x|^2 / 2 - m) + EPSILON, where m is the largest entry of
s P x: of that row for queries, of all rows of a head for keys. m has no gradient. The usual factor r^(-1/2) cancels.

Features of the whole input, (B, H, N, r), would be the largest tensors of a model. They exist for one block at a time,
small enough for a processor's cache, and the backward pass recomputes them. The final projection is part of the
function, also block by block: its input is a by-product of the backward pass and need not be kept, and no temporary
tensor of the whole input is needed, whose pages a CPU system would map and clear in every call.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from miram.models.attention.blocks import split_heads
from miram.models.float32 import full_float32

EPSILON = 1e-4
CPU_BLOCK, DEVICE_BLOCK = 2**20, 2**28  # entries of the features of one block; only CPUs gain from small blocks


class RandomFeatureAttention(torch.autograd.Function):
    """`(q, k, v, P, weight, bias) -> linear(attention(q, k, v), weight, bias)`, keeping q, k, v and sums over keys.

    q, k, v are (B, N, H, d), P is (r, d) and without gradient, the result (B, N, H d). Features are of P's type.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Sum the keys' features, then read them with the queries'."""
        with full_float32(q.device.type):
            scaled = projection * q.shape[-1] ** -0.25
            sums, peak = _sum_keys(k, v, scaled)
            out = v.new_empty(*v.shape[:2], len(weight))
            for block in _blocks(q, scaled):
                features = _query_features(_load(q, block, scaled), scaled)
                result = _divide(_read(features, sums[block[0]]))
                out[block] = functional.linear(_heads_last(result, v.dtype), weight, bias)
            ctx.save_for_backward(q, k, v, scaled, weight, sums, peak)
            return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Go through the queries for the gradient of the sums, then through the keys."""
        q, k, v, scaled, weight, sums, peak = ctx.saved_tensors
        with full_float32(q.device.type):
            dq, dk, dv = (torch.empty_like(t) for t in (q, k, v))
            d_sums, d_weight = torch.zeros_like(sums), torch.zeros_like(weight, dtype=scaled.dtype)
            for block in _blocks(q, scaled):
                rows, samples = _load(q, block, scaled), block[0]
                features = _query_features(rows, scaled)
                read = _read(features, sums[samples])
                result = _divide(read)
                d_out = grad[block]
                d_weight += d_out.flatten(0, 1).mT @ _heads_last(result, weight.dtype).flatten(0, 1)
                d_result = split_heads(d_out @ weight, rows.shape[1]).to(rows.dtype) / read[..., -1:]
                d_read = torch.cat([d_result, -(d_result * result).sum(-1, keepdim=True)], -1)
                d_sums[samples] += features.mT @ d_read + EPSILON * d_read.sum(-2, keepdim=True)
                _store(dq, block, _rows_gradient(rows, features, d_read @ sums[samples].mT, scaled))
            for block in _blocks(k, scaled):
                rows, samples = _load(k, block, scaled), block[0]
                features = _features(rows @ scaled.mT, rows, peak[samples])
                _store(dv, block, _read(features, d_sums[samples])[..., :-1])
                d_features = _with_one(_load(v, block, scaled)) @ d_sums[samples].mT
                _store(dk, block, _rows_gradient(rows, features, d_features, scaled))
            return dq, dk, dv, None, d_weight.to(weight.dtype), grad.sum((0, 1))


def _blocks(x: Tensor, scaled: Tensor) -> Iterator[tuple[slice, slice]]:
    batch, tokens, heads, _ = x.shape
    n = max(1, (CPU_BLOCK if x.device.type == "cpu" else DEVICE_BLOCK) // (heads * len(scaled)))
    b = max(1, n // tokens)
    for sample in range(0, batch, b):
        for token in range(0, tokens, n):
            yield slice(sample, sample + b), slice(token, token + n)


def _load(x: Tensor, block: tuple[slice, slice], like: Tensor) -> Tensor:
    """Copy a block of (B, N, H, d) to (b, H, n, d)."""
    return x[block].transpose(1, 2).to(like.dtype).contiguous()


def _store(x: Tensor, block: tuple[slice, slice], values: Tensor) -> None:
    x[block] = values.transpose(1, 2)


def _heads_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, H, n, d) to (b, n, H d)."""
    return x.transpose(1, 2).flatten(2).to(dtype)


def _with_one(x: Tensor) -> Tensor:
    """Append a column of ones: the sum of features is then next to the sum of features times values."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


def _features(scores: Tensor, rows: Tensor, peak: Tensor) -> Tensor:
    """Turn `scores`, s P x, into features without EPSILON, in place (b, H, n, r)."""
    half_squares = rows.square().sum(-1, keepdim=True) * (0.5 * rows.shape[-1] ** -0.5)
    return scores.sub_(half_squares + peak).exp_()


def _query_features(rows: Tensor, scaled: Tensor) -> Tensor:
    scores = rows @ scaled.mT
    return _features(scores, rows, scores.amax(-1, keepdim=True))


def _sum_keys(k: Tensor, v: Tensor, scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over N of features times (v, 1), (B, H, r, d + 1), and m, (B, H, 1, 1).

    The largest score is known only after the last block: until then the sum is rescaled whenever it grows.
    """
    batch, _, heads, width = k.shape
    sums = scaled.new_zeros(batch, heads, len(scaled), width + 1)
    total = scaled.new_zeros(batch, heads, 1, width + 1)
    peak = scaled.new_full((batch, heads, 1, 1), -torch.inf)
    for block in _blocks(k, scaled):
        samples, rows, values = block[0], _load(k, block, scaled), _with_one(_load(v, block, scaled))
        scores = rows @ scaled.mT
        higher = torch.maximum(peak[samples], scores.amax((-2, -1), keepdim=True))
        sums[samples] *= (peak[samples] - higher).exp()
        sums[samples] += _features(scores, rows, higher).mT @ values
        total[samples] += values.sum(-2, keepdim=True)
        peak[samples] = higher
    return sums + EPSILON * total, peak


def _read(features: Tensor, sums: Tensor) -> Tensor:
    """Return (features + EPSILON) sums."""
    return features @ sums + EPSILON * sums.sum(-2, keepdim=True)


def _divide(read: Tensor) -> Tensor:
    return read[..., :-1] / read[..., -1:]


def _rows_gradient(rows: Tensor, features: Tensor, d_features: Tensor, scaled: Tensor) -> Tensor:
    """Return the gradient of (b, H, n, d) rows from that of their features, which it overwrites."""
    slopes = d_features.mul_(features) @ _with_one(scaled)
    return slopes[..., :-1] - slopes[..., -1:] * rows * rows.shape[-1] ** -0.5
