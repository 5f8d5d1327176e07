"""The errors of attention in mixed precision and under TF32, against float64."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from miram import kinds
from miram.bench.rounding import PRECISIONS, SHARPENED, TF32, computing_in, errors, sharpened, to_tf32
from miram.models.attention import build_stack, favor, nystrom, pinv
from miram.models.float32 import FullProduct, full_float32

OPTIONS = {
    "linformer": {"rank": 16},
    "performer": {"redraw_interval": 0},
    "nystrom": {"landmarks": 8, "pinv_iterations": 6, "pinv_init": "matrix", "residual_kernel": 33},
}
BOUNDS = {"float32": 2e-5, TF32: 6e-3, "bf16": 5e-2, "fp16": 6e-3}  # twice to ten times what was measured


def layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    backend = None if kind == "full" else "fused"
    stack = build_stack(kind, backend=backend, dim=64, depth=1, heads=2, tokens=50, **OPTIONS.get(kind, {}))
    return stack.get_submodule(kinds.ATTENTION[kind].first_layer)


def found(kind: str, factor: float, precisions: tuple[str, ...] = PRECISIONS) -> dict[str, dict[str, float]]:
    x, weights = torch.randn(2, 2, 50, 64)
    rows = errors(sharpened(layer(kind), factor), x, weights, precisions)
    return {row.pop("precision"): row for row in rows}


@pytest.mark.parametrize("factor", [1.0, SHARPENED])
@pytest.mark.parametrize("kind", kinds.ATTENTION)
def test_outputs_and_gradients_stay_within_bounds_in_every_precision(kind, factor):
    for precision, parts in found(kind, factor).items():
        assert set(parts) == {"output", "input", "parameters"}
        assert max(parts.values()) < BOUNDS[precision], precision


def test_tf32_rounds_to_ten_bits_and_leaves_other_types_alone():
    fine = torch.tensor([1 + 2.0**-10, 1 + 2.0**-12, -(1 + 2.0**-11 + 2.0**-12)])
    assert to_tf32(fine).tolist() == [1 + 2.0**-10, 1.0, -(1 + 2.0**-10)]
    assert to_tf32(fine.double()) is not None and torch.equal(to_tf32(fine.double()), fine.double())


def test_emulated_tf32_reaches_products_and_their_gradients_and_not_a_full_product():
    a, b = (torch.randn(1, 8, 8, requires_grad=True) for _ in range(2))
    for multiply, is_exact in ((torch.matmul, False), (FullProduct.apply, True)):
        right = torch.autograd.grad((a @ b).square().sum(), (a, b))
        with computing_in(TF32):
            product = multiply(a, b)
            own = torch.autograd.grad(product.square().sum(), (a, b))
        assert torch.equal(product, a @ b) is is_exact
        assert all(torch.equal(x, y) is is_exact for x, y in zip(own, right, strict=True))
    assert torch.get_float32_matmul_precision() == "highest"


def products(call):
    """The settings under which `call` multiplies float32 matrices."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from miram.bench.rounding import PRODUCTS

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in PRODUCTS:
                seen.append((torch.get_float32_matmul_precision(), args[-1].dtype))
            return func(*args, **(kwargs or {}))

    seen = []
    torch.set_float32_matmul_precision("high")
    with Watch():
        call()
    assert seen
    return seen


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_pseudo_inverse_and_random_features_are_in_full_float32_in_both_passes(dtype):
    x = torch.rand(1, 2, 8, 8).softmax(-1).requires_grad_()
    q, k, v = (torch.randn(1, 12, 2, 4, requires_grad=True) for _ in range(3))
    weight, bias = torch.eye(8, requires_grad=True), torch.zeros(8, requires_grad=True)

    def invert():
        pinv.PseudoInverse.apply(x, x.mT, 3).sum().backward()

    def featurise():
        favor.RandomFeatureAttention.apply(q, k, v, torch.randn(5, 4), weight, bias).sum().backward()

    with torch.autocast("cpu", dtype) if dtype else nullcontext():
        for call in (invert, featurise):
            assert set(products(call)) == {("highest", torch.float32)}
    assert torch.get_float32_matmul_precision() == "high"


def test_full_float32_ends_with_the_block_even_after_an_error():
    torch.set_float32_matmul_precision("high")
    with pytest.raises(RuntimeError), full_float32("cpu"):
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == "high"
    assert nystrom.full_float32 is full_float32
