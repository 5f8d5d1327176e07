"""What a computation keeps in memory between its forward and its backward pass, and takes at most."""

from collections.abc import Callable
from itertools import accumulate

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


def kept_bytes(fn: Callable[[], object]) -> int:
    """Call `fn` and return the bytes of the storages that autograd saved on the way, each counted once.

    Parameters are not counted: they are there with or without a graph. Every other saved tensor is, inputs included.
    """
    storages: dict[int, int] = {}
    alive = []  # the saved tensors, so that no address is used twice while `fn` runs

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if not isinstance(base, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor.detach()  # the tensor itself would hold the graph that holds it

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        fn()
    return sum(storages.values())


def peak_bytes(fn: Callable[[], object]) -> int:
    """Call `fn` and return by how many bytes the CPU's tensors exceeded, at most, those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fn()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())), default=0)
