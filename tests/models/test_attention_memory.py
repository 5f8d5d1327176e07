"""What one attention layer keeps for its backward pass, beside full attention through the fused kernel."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from miram.models.attention import build_stack
from miram.planning.kept import kept_bytes

DIM, HEADS = 512, 16
OPTIONS = {
    "linformer": {"rank": 128},
    "performer": {"redraw_interval": 0},
    "nystrom": {"landmarks": 64, "pinv_iterations": 6, "pinv_init": "matrix", "residual_kernel": 33},
}
MOST = {"linformer": 0.52, "performer": 1.0, "nystrom": 1.0}  # of what full attention keeps


class FullAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def fused(kind, tokens, part, **options):
    """One fused layer: `part` 0 is attention, 1 the MLP."""
    options = OPTIONS[kind] | options
    stack = build_stack(kind, backend="fused", dim=DIM, depth=1, heads=HEADS, tokens=tokens, **options)
    return stack.get_submodule(f"{'' if kind == 'nystrom' else 'net.'}layers.0.{part}.fn")


def kept_by(kind, tokens):
    layer = FullAttention() if kind == "full" else fused(kind, tokens, 0)
    x = torch.randn(1, tokens, DIM, requires_grad=True)
    return kept_bytes(lambda: layer(x))


def test_counts_a_storage_once_and_no_parameter():
    linear, x = nn.Linear(4, 4), torch.randn(8, 4, requires_grad=True)
    assert kept_bytes(lambda: linear(x)) == x.nbytes
    assert kept_bytes(lambda: x * x.view(4, 8).view(8, 4)) == x.nbytes
    assert kept_bytes(lambda: linear(x).exp()) == 2 * x.nbytes  # x, and the result of exp


def test_counts_what_a_custom_function_saves():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, x + 1)
            return x.square()

    x = torch.randn(8, 4, requires_grad=True)
    assert kept_bytes(lambda: Square.apply(x)) == 2 * x.nbytes


def test_does_not_outlive_the_call():
    x = torch.randn(8, 4, requires_grad=True)
    kept_bytes(lambda: (x.exp() * 2).sum().backward())
    assert x.grad is not None


@pytest.mark.parametrize("kind", MOST)
def test_keeps_less_than_full_attention(kind):
    small, large = kept_by(kind, 785), kept_by(kind, 3137)
    assert large <= MOST[kind] * kept_by("full", 3137)
    assert large <= 4.3 * small


@pytest.mark.slow
@pytest.mark.parametrize("kind", MOST)
def test_keeps_less_than_full_attention_at_12545_tokens(kind):
    middle, large = kept_by(kind, 3137), kept_by(kind, 12_545)
    assert large <= MOST[kind] * kept_by("full", 12_545)
    assert large <= 4.3 * middle


@pytest.mark.parametrize("kind", OPTIONS)
def test_mlp_keeps_its_hidden_layer_once(kind):
    mlp, x = fused(kind, 64, 1), torch.randn(1, 64, DIM, requires_grad=True)
    assert kept_bytes(lambda: mlp(x)) == 5 * x.nbytes  # the input, and the hidden layer before GELU


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["linformer", "nystrom"])
def test_softmax_products_use_the_fused_kernel(kind, batch):
    layer, x = fused(kind, 197, 0), torch.randn(batch, 197, DIM, requires_grad=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where the kernel cannot take the tensors as they lie
        layer(x).sum().backward()
