"""The device that training runs on: settings of torch, and memory used."""

import gc
import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils import deterministic

from miram.errors import MiramError
from miram.kinds import AskedPrecision, Precision
from miram.layout import COMPILED

# torch's messages when memory runs out: the GPU's, the CPU's, that of a loading process, that shared with it
MEMORY_FAULTS = ("out of memory", "can't allocate memory", "killed by signal: Killed", "out of shared memory")


def usable_accelerator(accelerator: str) -> str:
    """Give `cuda` or `cpu`: for "auto", cuda if there is a GPU. Raises MiramError for cuda without one."""
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise MiramError(
            "compute.accelerator is cuda, but torch finds no CUDA device.",
            "Run on a machine with an NVIDIA GPU and its driver, or set compute.accelerator: cpu.",
        )
    return "cuda" if accelerator != "cpu" and available else "cpu"


def usable_precision(precision: AskedPrecision, accelerator: str) -> Precision:
    """Give the precision to train in; for "auto" mixed on a GPU, with bfloat16 if it has that, and float32 on a CPU.

    Raises MiramError for float16 without a GPU, which Fabric would silently replace by bfloat16.
    """
    if precision == "auto":
        if accelerator != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if precision == "16-mixed" and accelerator != "cuda":
        raise MiramError(
            "compute.precision is 16-mixed, which needs a GPU, and training runs on the CPU.",
            "Set compute.precision: 32-true or bf16-mixed, or run on a machine with an NVIDIA GPU.",
        )
    return precision


def check_gpus(processes: int) -> None:
    """Raise MiramError when there are fewer GPUs than processes that need one each."""
    found = torch.cuda.device_count()
    if found < processes:
        raise MiramError(
            f"{processes} processes need a GPU each, and torch finds {found}.",
            f"Set compute.devices: {found}, or make more of them visible (CUDA_VISIBLE_DEVICES, a cluster's "
            "reservation); of torchrun, --nproc-per-node.",
        )


def one_device(accelerator: str, precision: AskedPrecision, threads: int) -> Fabric:
    """A Fabric on one device, and torch prepared for it. Raises as `usable_accelerator` and `usable_precision`."""
    alone = LightningEnvironment()  # also in a Slurm job, whose tasks are not ours
    used = usable_accelerator(accelerator)
    fabric = Fabric(accelerator=used, devices=1, precision=usable_precision(precision, used), plugins=alone)
    prepare_torch(fabric, threads)
    return fabric


def prepare_torch(fabric: Fabric, threads: int) -> None:
    """Set torch's CPU threads; forbid nondeterministic operations on the CPU; let a GPU take TF32 for float32.

    `peak_memory` of a GPU counts from here.
    """
    on_cpu = fabric.device.type == "cpu"
    if not on_cpu and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(fabric.device)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(on_cpu)
    # where training is mixed, what is left in float32 is what needs it: see `miram.models.float32`
    torch.set_float32_matmul_precision("highest" if on_cpu or taken_precision(fabric) != "32-true" else "high")
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time and guards against faults that nothing here has


def prepare_compiler() -> None:
    """Have torch.compile keep what it makes, for later jobs; raise MiramError if it would find no C++ compiler."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(COMPILED.absolute()))
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        raise MiramError(
            "compute.compile is true, but there is no C++ compiler.",
            "Install g++ (the image has none), or set compute.compile: false.",
        )


def device_name(device: torch.device) -> str:
    """The GPU's product name, or "cpu" and the kind of machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def taken_precision(fabric: Fabric) -> Precision:
    """The precision that a Fabric trains in."""
    return cast(Precision, fabric.strategy.precision.precision)


def device_facts(fabric: Fabric) -> dict[str, object]:
    """The facts about torch for a record: device, precision, widest CPU instructions, CPU threads."""
    return {
        "device": device_name(fabric.device),
        "precision": taken_precision(fabric),
        "tf32": torch.get_float32_matmul_precision() != "highest",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def memory_left(device: torch.device) -> int:
    """Bytes that may still be taken: of the GPU, with those that torch holds in reserve, or of the machine."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve


def free_memory(fabric: Fabric) -> int:
    """Bytes that each process may take: what is free on its GPU, or its share of the machine's; the least of all."""
    device, processes = fabric.device, fabric.world_size
    own = memory_left(device) // (1 if device.type == "cuda" else processes)
    if processes == 1:
        return own
    return int(cast(Tensor, fabric.all_reduce(torch.tensor(own, device=device), reduce_op="min")))


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Bytes, and what they are: "cuda allocated" (torch's tensors on the GPU) or "resident set" (the whole process)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "cuda allocated"
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident set"


def release_memory() -> None:
    """Free what an earlier training left that nothing refers to any more, of the GPU's memory as well."""
    gc.collect()
    torch.cuda.empty_cache()


class MemoryRanOut(MiramError):
    """Memory ran out; less at once may do."""


@contextmanager
def out_of_memory_as(what: str, remedy: str) -> Iterator[None]:
    """Turn torch's error in the block into MemoryRanOut that says in `what`."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not any(words in str(error) for words in MEMORY_FAULTS):
            raise
        reason = str(error).splitlines()[0]
        raise MemoryRanOut(f"Memory ran out in {what}: {reason}", remedy) from error
