"""What a computation keeps in memory between its forward and its backward pass."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


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
