"""What a computation keeps in memory from its forward to its backward pass, counted while it runs."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors(saved_tensors_hooks):
    """While entered, counts the bytes of the storages that autograd saves, each once.

    Parameters are not counted, as they exist without a graph too. All other saved tensors are, including inputs.
    Fake tensors count like real ones.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._storages: dict[int, UntypedStorage] = {}  # kept, so that no address is used twice
        super().__init__(self._pack, lambda tensor: tensor)

    def __enter__(self) -> Self:  # type: ignore[override]  # torch's own returns nothing
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
