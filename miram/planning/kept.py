"""What a computation keeps in memory between its forward and its backward pass, counted while it runs."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors(saved_tensors_hooks):
    """Counts, while it is entered, the bytes of the storages that autograd saves, each once.

    Parameters are not counted: they are there with or without a graph. Every other saved tensor is, inputs included.
    Fake tensors count as real ones would.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._storages: dict[int, UntypedStorage] = {}  # kept, so that no address is used twice
        super().__init__(self._pack, lambda tensor: tensor)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        storage = tensor.untyped_storage()
        if not isinstance(base, nn.Parameter) and storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it


def kept_bytes(function: Callable[[], object]) -> int:
    """Call `function` and return the bytes that autograd saved on the way, see `SavedTensors`."""
    with SavedTensors() as saved:
        function()
    return saved.bytes
