"""The error of an attention in each precision of training, against the same layer in float64.

TF32 exists on GPUs alone. Here it is emulated: the inputs of every float32 matrix product are rounded to its 10 bits of
mantissa while torch's setting allows it, so that regions which forbid it are left exact, as on a GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from miram.bench.step import TF32, products_in

PRECISIONS = ("float32", TF32, "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm}
PRODUCTS |= {torch.ops.aten.baddbmm_, torch.ops.aten.addmm_}
SCALES = tuple(4.0**-power for power in range(8))  # of the loss in fp16, tried in this order
SHARPENED = 4.0  # factor of the weights of queries and keys: scores 16 times as far apart, as if long trained
ASKING = ("qkv", "to_qkv", "to_q", "to_k")  # layers that hold them; values are scaled too where they share one
DROPPED_BITS = 13  # of the 23 of float32's mantissa


class EmulatedTf32(TorchDispatchMode):
    """While entered, float32 matrix products round their factors as TF32 does, wherever torch's setting allows TF32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Round the last two tensors of a product: its factors."""
        if torch.get_float32_matmul_precision() != "highest" and func.overloadpacket in PRODUCTS:
            args = (*args[:-2], *(to_tf32(factor) for factor in args[-2:]))
        return func(*args, **(kwargs or {}))


def to_tf32(x: Tensor) -> Tensor:
    """Float32 rounded to TF32's mantissa, to the nearest; other types as they are."""
    if x.dtype != torch.float32:
        return x
    half = 1 << (DROPPED_BITS - 1)
    return ((x.view(torch.int32) + half) & -(1 << DROPPED_BITS)).view(torch.float32)


def sharpened(layer: nn.Module, factor: float) -> nn.Module:
    """The layer, its weights of queries and keys multiplied."""
    for name in ASKING:
        if hasattr(layer, name):
            layer.get_submodule(name).weight.data.mul_(factor)  # type: ignore[union-attr, operator]
    return layer


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """In the block float32 modules on the CPU compute, forward and backward, as in one of PRECISIONS."""
    cast = torch.autocast("cpu", AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)
    with cast, products_in(precision), ExitStack() as emulated:
        if precision == TF32:
            emulated.enter_context(sdpa_kernel(SDPBackend.MATH))  # of single products, which can be seen
            emulated.enter_context(EmulatedTf32())
        yield


def errors(layer: nn.Module, x: Tensor, weights: Tensor, precisions: Sequence[str]) -> list[dict[str, Any]]:
    """Relative errors |a - b| / |b| of output and gradients, of the input and of all parameters, of a float32 layer.

    The loss is the sum of the output (B, N, D) times `weights` of the same shape. As in training, fp16 scales it, by
    less where a gradient overflows.
    """
    exact = _passes(deepcopy(layer).double(), x.double(), weights.double(), "float32", 1.0)
    rows = []
    for precision in precisions:
        scales = SCALES if precision == "fp16" else (1.0,)
        tried = (_passes(deepcopy(layer), x, weights, precision, scale) for scale in scales)
        passes = next(values for values in tried if all(value.isfinite().all() for value in values.values()))
        rows.append(
            {"precision": precision}
            | {name: ((own - exact[name]).norm() / exact[name].norm()).item() for name, own in passes.items()}
        )
    return rows


def _passes(layer: nn.Module, x: Tensor, weights: Tensor, precision: str, scale: float) -> dict[str, Tensor]:
    """Output, gradient of the input, gradients of the parameters, in float64; the loss is multiplied by `scale`."""
    x = x.clone().requires_grad_()
    with computing_in(precision):
        output = layer(x)
        (scale * (output.to(x.dtype) * weights).sum()).backward()
    of_parameters = torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])
    assert x.grad is not None
    gradients = {"input": x.grad.double() / scale, "parameters": of_parameters.double() / scale}
    return {"output": output.detach().double(), **gradients}
