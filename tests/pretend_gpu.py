"""A GPU that is pretended on the CPU: its tensors say that they are on `cuda`, and the CPU computes them.

torch's fake tensors have no values, so that a training would stop at the first number that it reads. These have, and a
stage runs from its command to its files. As on a GPU, an operation on tensors of both devices raises, `numpy()` raises,
and autocast is that of cuda. What only a GPU can show is not: its kernels, its memory, TF32, the order of its work.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from miram.train import views

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
BETWEEN_DEVICES = {aten.copy_, aten._to_copy}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index}
# what autocast of cuda computes in float32 and that of the CPU, which casts here, does not
IN_FLOAT32 = {"layer_norm", "softmax", "log_softmax", "norm", "normalize", "sum", "prod", "cumsum", "pow", "exp", "log"}
IN_FLOAT32 |= {
    "rsqrt",
    "mse_loss",
    "cross_entropy",
    "binary_cross_entropy_with_logits",
    "group_norm",
    "cosine_similarity",
}
OF_VALUES = {"tolist", "storage", "untyped_storage", "data_ptr"}  # what waits for a GPU, and what writes files
AUTOCAST, ENGINE = torch.autocast, torch.autograd._engine_run_backward
NUMBER_OF_TENSOR = aten._local_scalar_dense.default  # what `.item()`, `float()` and `if tensor` call


class Running(threading.local):
    """Of a thread: whether the function of torch that runs has a tensor on the GPU, and what has waited for the GPU."""

    on_gpu = False

    def __init__(self) -> None:
        self.waits: list[str] = []


running = Running()


class OnGpu(Tensor):
    """A tensor that says that it is on the GPU; `held` has its values. C++ takes it for one on the CPU."""

    held: Tensor
    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda, is_cpu = True, False

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )
        made.held = held
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # a checkpoint is read on the CPU

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return computed(operation, args, kwargs or {})


def computed(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on the GPU if its tensors are, or where `device` says. Raises for both at once."""
    given = [x for x in leaves((args, kwargs)) if isinstance(x, Tensor)]
    on_gpu = any(isinstance(x, OnGpu) for x in given)
    if on_gpu and operation.overloadpacket not in BETWEEN_DEVICES:
        _check_one_device(operation, args, given)
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
        # what an operation there makes for itself is there; C++ asks for it on the CPU
        on_gpu = on_gpu or asked.type == "cuda" or (running.on_gpu and not given)
    if operation is NUMBER_OF_TENSOR and on_gpu:
        running.waits.append("a number of a tensor")
        on_gpu = False
    if operation is aten._softmax.default and args[2]:  # with a result in float32, which no CPU has
        args = (args[0].float(), args[1], False)
    found = operation(*held(args), **held(kwargs))
    if not on_gpu:
        return found
    changed = {id(held(x)): x for x in given}  # in place: it stays the same tensor
    made = [changed[id(x)] if id(x) in changed else OnGpu(x) if isinstance(x, Tensor) else x for x in leaves(found)]
    return type(found)(made) if isinstance(found, list | tuple) else made[0]


def leaves(value: Any) -> Iterator[Any]:
    """What lists, tuples and dictionaries hold."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def held(value: Any) -> Any:
    """The same with the tensors that the CPU computes with."""
    if isinstance(value, list | tuple):
        return type(value)(map(held, value))
    if isinstance(value, dict):
        return {name: held(part) for name, part in value.items()}
    return value.held if isinstance(value, OnGpu) else value


def _check_one_device(operation: Any, args: tuple, given: list[Tensor]) -> None:
    """As on a GPU, a number on the CPU may take part elementwise, and an index in indexing."""
    if operation.overloadpacket in INDEXING:
        given = [args[0], *args[2:3]]
    elementwise = torch.Tag.pointwise in operation.tags or operation.overloadpacket is aten.fill_
    if any(not isinstance(x, OnGpu) and not (elementwise and x.ndim == 0) for x in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {operation} found cuda:0 and cpu.")


class _Gpu(TorchDispatchMode):
    """Makes what is asked for on `cuda`, in the thread that enters it."""

    def __enter__(self) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor` makes a tensor on the CPU, and then moves it
        return super().__enter__()

    def __exit__(self, *fault: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*fault)

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return computed(operation, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Moves tensors, which C++ takes for one place, and casts to float32 where autocast of cuda does."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if isinstance(function, OpOverload):  # from another mode: torch has decided where it runs
            return function(*args, **(kwargs or {}))
        before, running.on_gpu = running.on_gpu, any(isinstance(x, OnGpu) for x in leaves(args))
        try:
            return self._called(function, args, kwargs or {})
        finally:
            running.on_gpu = before

    def _called(self, function: Any, args: tuple, kwargs: dict) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("to", "cpu") and isinstance(args[0], Tensor):
            asked = {key: value for key, value in kwargs.items() if key != "copy"}
            target, dtype = torch._C._nn._parse_to(*args[1:], **asked)[:2] if name == "to" else (CPU, None)
            here = target is not None and target.type == "cpu"
            if isinstance(args[0], OnGpu) and here:
                running.waits.append("a copy")
                return args[0].held.detach().to(dtype or args[0].dtype, copy=True)
            if isinstance(args[0], OnGpu):
                return args[0] if dtype is None else function(args[0], dtype)
            if target is not None and not here:
                return OnGpu(args[0].detach().to(dtype or args[0].dtype, copy=True))
        if name in OF_VALUES and isinstance(args[0], OnGpu):
            running.waits.append(name)
            return function(args[0].held)
        if name in IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)
        return function(*args, **kwargs)


def _run_backward(*args: Any, **kwargs: Any) -> Any:
    """The backward pass, which runs Python of ours as well: inside a function of torch it would not be seen."""
    with _Functions():
        running.on_gpu = any(isinstance(x, OnGpu) for x in leaves(args[0]))
        return ENGINE(*args, **kwargs)


def _enter() -> None:
    _Gpu().__enter__()
    _Functions().__enter__()


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """In the block torch finds one GPU, with bfloat16; yields what this thread has waited for, which grows."""
    said = {
        **{"_lazy_init": None, "is_available": True, "device_count": 1, "current_device": 0, "set_device": None},
        **{"get_device_name": "Pretended", "get_device_capability": (8, 0), "is_bf16_supported": True},
        **{"max_memory_allocated": 0, "memory_allocated": 0, "reset_peak_memory_stats": None, "synchronize": None},
        **{"mem_get_info": (8e9, 8e9), "memory_reserved": 0, "manual_seed_all": None},
    }
    for name, value in said.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    monkeypatch.setattr(torch, "autocast", lambda device, *own, **named: AUTOCAST("cpu", *own, **named))
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", _run_backward)
    monkeypatch.setattr(views, "ThreadPoolExecutor", partial(views.ThreadPoolExecutor, initializer=_enter))
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that optimisers know the parameters as before
    try:
        with _Gpu(), _Functions():
            yield running.waits
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
