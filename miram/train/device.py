"""The device that training runs on: settings of torch, and what it used."""

import platform
import resource
import sys

import torch
from torch.utils import deterministic


def prepare_torch(device: torch.device, threads: int) -> None:
    """Set torch's CPU threads, and on the CPU refuse operations whose result may differ between runs."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(device.type == "cpu")
    deterministic.fill_uninitialized_memory = False  # costs time and guards against faults that nothing here has


def device_name(device: torch.device) -> str:
    """The GPU's product name, or "cpu" and the kind of machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Bytes, and what they are: "cuda allocated" (torch's tensors on the GPU) or "resident set" (the whole process)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "cuda allocated"
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident set"
