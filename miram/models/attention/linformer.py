"""Linformer (arXiv 2006.04768) with one key/value head that all heads share, keys and values being the same tensor.

Shapes: B batch, N tokens, D width, H heads, d = D / H, k rank.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from miram.models.attention.blocks import FeedForward, Stack, check_backend, check_heads, recompute


class LinformerAttention(nn.Module):
    """Softmax attention of N queries on k = `rank` learnt mixtures of the tokens."""

    def __init__(self, dim: int, heads: int, tokens: int, rank: int) -> None:
        super().__init__()
        self.head_dim = check_heads(dim, heads)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, self.head_dim, bias=False)
        self.proj_k = nn.Parameter(torch.empty(tokens, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, D); keeps the queries, and keys of k tokens."""
        keys = torch.einsum("bnd,nk->bkd", self.to_k(x), self.proj_k).contiguous()  # or no fused kernel takes them
        return recompute(self._attend, self.to_q(x), keys)

    def _attend(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attend from (B, N, D) to (B, k, d).

        With one shared key head, the head of a query row does not matter. So the N H rows of a sample are split into H
        runs of N regardless of heads: without a copy, and in parallel.
        """
        runs = queries.view(len(queries), -1, queries.shape[1], self.head_dim)
        keys = keys[:, None].expand(-1, runs.shape[1], -1, -1)
        return self.to_out(scaled_dot_product_attention(runs, keys, keys).view(queries.shape))


def build(*, backend: str, dim: int, depth: int, heads: int, tokens: int, rank: int) -> nn.Module:
    """Return `depth` Linformer blocks for exactly `tokens` tokens and `rank` mixed keys.

    ValueError for an unknown backend, heads that do not divide `dim`, a rank below 1, and in the forward pass for
    another number of tokens: the package would truncate its projection and map tokens by order, not by position.
    """
    check_backend(backend)
    check_heads(dim, heads)
    if rank < 1:
        raise ValueError(f"rank {rank} is less than 1")
    if backend == "package":
        from linformer import Linformer

        stack = Linformer(dim, tokens, depth, k=rank, heads=heads, one_kv_head=True, share_kv=True)
    else:
        attention = partial(LinformerAttention, dim, heads, tokens, rank)
        stack = nn.Sequential(OrderedDict(net=Stack(dim, depth, attention, partial(FeedForward, dim, ("w1", "w2")))))
    stack.register_forward_pre_hook(partial(_refuse_other_lengths, tokens))
    return stack


def _refuse_other_lengths(tokens: int, _: nn.Module, inputs: tuple[Tensor]) -> None:
    if inputs[0].shape[1] != tokens:
        raise ValueError(f"{inputs[0].shape[1]} tokens, but this Linformer projects exactly {tokens}")
