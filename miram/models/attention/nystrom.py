"""Nystromformer attention (arXiv 2102.03902): softmax through m landmarks and an iterated pseudo-inverse.

Shapes: B batch, N tokens, D width, H heads, d = D / H, m landmarks of ceil(N / m) tokens each.
The package pads at the front until m divides the tokens, and masks the padding. Nothing is padded here: masked tokens
have weight zero. Only landmarks of pure padding have an effect; they collapse exactly into one (`_landmark_values`).
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from miram.models.attention.blocks import FeedForward, Stack, check_backend, check_heads, recompute, split_heads
from miram.models.attention.pinv import PseudoInverse
from miram.models.float32 import FullProduct, at_least_float32, full_float32


class NystromAttention(nn.Module):
    """Attention of N queries on m landmark keys, plus a depthwise convolution of the values along the tokens."""

    def __init__(
        self, dim: int, heads: int, landmarks: int, pinv_iterations: int, pinv_init: str, residual_kernel: int
    ) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.pinv_iterations, self.shared_start = pinv_iterations, pinv_init == "batch"
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))
        self.res_conv = nn.Conv2d(heads, heads, (residual_kernel, 1), groups=heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D); keeps queries, keys, values, and the tensors of the landmarks."""
        qkv, tokens = self.to_qkv(x), x.shape[1]
        size = -(-tokens // self.landmarks)
        padded = size * self.landmarks
        q, k, v = (split_heads(t, self.heads) for t in qkv.chunk(3, -1))
        q_marks, k_marks = (split_heads(t, self.heads) for t in _means(qkv, size).chunk(3, -1)[:2])
        summary = scaled_dot_product_attention(q_marks, k, v)
        blanks = (padded - tokens) // size
        if blanks:  # landmarks of pure padding weigh all tokens and all padding equally
            summary = torch.cat([summary, v.sum(-2, keepdim=True) * (blanks**0.5 / padded)], -2)
        values = self._landmark_values(q_marks, k_marks, summary, blanks)
        return recompute(self._read, q, v, k_marks, values)

    def _landmark_values(self, q: Tensor, k: Tensor, summary: Tensor, blanks: int) -> Tensor:
        """Return pseudo-inverse times `summary` for the landmarks (B, H, m, d), in full precision inside.

        A landmark of pure padding has equal weights, 1 / m, in its row, and none in another's column. Together they
        span one direction, the unit vector e = (1, ..., 1) / sqrt(blanks), which replaces them in the matrix.
        Its size is rounded up to a multiple of 4 with zeros, which is faster; they remain zeros.
        """
        marks, rows = q.shape[-2], summary.shape[-2]
        share = blanks / (marks + blanks)
        with full_float32(q.device.type):
            kernel = (FullProduct.apply(at_least_float32(q), at_least_float32(k).mT) * q.shape[-1] ** -0.5).softmax(-1)
            columns = kernel.sum(-2) + share
            divisor = columns.max() if self.shared_start else columns.amax(-1)[..., None, None]
            extra = rows - marks + -rows % 4
            kernel = functional.pad(kernel, (0, extra, 0, extra))
            if blanks:
                e_row = kernel.new_zeros(kernel.shape[-2:])
                e_row[marks, :marks], e_row[marks, marks] = share / blanks**0.5, share
                kernel = kernel + e_row
            inverse = PseudoInverse.apply(kernel, kernel.mT / divisor, self.pinv_iterations)
            return FullProduct.apply(inverse[..., :marks, :rows], at_least_float32(summary)).to(q.dtype)

    def _read(self, q: Tensor, v: Tensor, k_marks: Tensor, values: Tensor) -> Tensor:
        """Attend from N queries to the landmarks, and add the values, convolved along the tokens.

        The zeros are added explicitly, not by the convolution's padding: oneDNN's weight gradient of a padded depthwise
        convolution is wrong by 4 to 15 % where N mod 15 is between 1 and kernel // 2 - 15.
        """
        margin = self.res_conv.kernel_size[0] // 2
        convolved = self.res_conv(functional.pad(v, (0, 0, margin, margin)))
        out = scaled_dot_product_attention(q, k_marks, values) + convolved
        return self.to_out(out.transpose(1, 2).flatten(2))


def _means(x: Tensor, size: int) -> Tensor:
    """Return the means of `size` tokens each of (B, N, D); the first takes the remainder."""
    first = x.shape[1] % size or size
    head, rest = x.split([first, x.shape[1] - first], 1)
    return torch.cat([head.mean(1, keepdim=True), rest.unflatten(1, (-1, size)).mean(2)], 1)


def build(
    *,
    backend: str,
    dim: int,
    depth: int,
    heads: int,
    tokens: int,
    landmarks: int,
    pinv_iterations: int,
    pinv_init: str,
    residual_kernel: int,
) -> nn.Module:
    """Return `depth` Nystromformer blocks; `pinv_init` is `matrix` or `batch`, the only one of the package.

    ValueError for an unknown backend or start, more landmarks than tokens, an even kernel, and heads that do not divide
    `dim`. On CPUs the package's gradient of its convolution is wrong for some lengths, see `NystromAttention`.
    """
    check_backend(backend)
    head_dim = check_heads(dim, heads)
    if pinv_init not in ("matrix", "batch"):
        raise ValueError(f"pinv_init {pinv_init!r} is not one of 'matrix', 'batch'")
    if not 1 <= landmarks <= tokens:
        raise ValueError(f"{landmarks} landmarks for {tokens} tokens: between 1 and the number of tokens are possible")
    if residual_kernel % 2 == 0:
        raise ValueError(f"residual_kernel {residual_kernel} is even: the convolution needs a middle tap")
    if backend == "package":
        if pinv_init != "batch":
            raise ValueError(f"pinv_init {pinv_init!r}: backend 'package' has only 'batch', backend 'fused' has both")
        from nystrom_attention import Nystromformer

        stack = Nystromformer(
            dim=dim,
            depth=depth,
            dim_head=head_dim,
            heads=heads,
            num_landmarks=landmarks,
            pinv_iterations=pinv_iterations,
            attn_values_residual_conv_kernel=residual_kernel,
        )
        for attention, _ in stack.layers:
            attention.fn.register_forward_pre_hook(_with_mask, with_kwargs=True)
        return stack
    attention = partial(NystromAttention, dim, heads, landmarks, pinv_iterations, pinv_init, residual_kernel)
    return Stack(dim, depth, attention, lambda: nn.Sequential(OrderedDict(net=FeedForward(dim, ("0", "3")))))


def _with_mask(_: nn.Module, inputs: tuple[Tensor], keywords: dict) -> tuple[tuple[Tensor], dict]:
    """Add the all-true mask: with one, the package masks its padding; without, padding counts as tokens."""
    mask = torch.ones(inputs[0].shape[:2], dtype=torch.bool, device=inputs[0].device)
    return inputs, {**keywords, "mask": mask}
