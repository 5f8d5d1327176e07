"""The GPUs that this torch can use, checked by the preflight and before each training."""

import ctypes
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from miram.errors import MiramError
from miram.planning.finding import Finding
from miram.recipe import Encoder

TORCH = f"torch {torch.__version__}"
LARGE = 1e6  # depth x width^2 of an encoder, a twelfth of its parameters: above it a preset takes months on a CPU


class Gpu(NamedTuple):
    """A device that torch finds."""

    name: str
    capability: tuple[int, int]


def find_accelerator(accelerator: str, devices: int, encoder: Encoder) -> Finding:
    """`check_accelerator` for this machine."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return check_accelerator(
        accelerator,
        devices=devices,
        large=encoder.depth * encoder.width**2 > LARGE,
        built=torch.version.cuda,
        driver=driver_cuda(),
        gpus=[Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(visible)],
        kernels=torch.cuda.get_arch_list(),
    )


def require_accelerator(accelerator: str, encoder: Encoder) -> None:
    """Raise MiramError if this machine lacks the GPU that a training of networks with such an encoder needs."""
    found = find_accelerator(accelerator, 1, encoder)
    if found.level == "stop":
        raise MiramError(found.text, found.remedy)


def check_accelerator(
    accelerator: str,
    *,
    devices: int,
    large: bool,
    built: str | None,
    driver: tuple[int, int] | None,
    gpus: Sequence[Gpu],
    kernels: Iterable[str],
) -> Finding:
    """Whether torch can use this many GPUs, unless the CPU is requested or enough.

    `large`: whether the networks take months on a CPU. `built`: the CUDA version that torch was built for, None for a
    CPU build. `driver`: the newest that the NVIDIA driver supports, None without a driver. `gpus`: those that torch
    finds. `kernels`: its builds, see `runs_on`.
    """
    if accelerator == "cpu" and large:
        return Finding(
            "warning", "No GPU is used: compute.accelerator is cpu.", "Networks of this size take months on a CPU."
        )
    if accelerator == "cpu" or (accelerator == "auto" and not large and not gpus):
        return Finding("ok", f"CPU, {TORCH}: enough for this preset.")
    return _check_found(gpus, devices, driver, kernels) if gpus else _why_none(built, driver, large)


def _check_found(gpus: Sequence[Gpu], devices: int, driver: tuple[int, int] | None, kernels: Iterable[str]) -> Finding:
    """Whether torch finds enough GPUs, and has kernels for them."""
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    foreign = [gpu for gpu in gpus[:devices] if not runs_on(gpu.capability, kernels)]
    if foreign:
        return Finding(
            "stop",
            f"{foreign[0].name} has compute capability {_dotted(foreign[0].capability)}, for which {TORCH} has no "
            f"kernels: it has {', '.join(kernels)}.",
            "Use another GPU, or a build of the same torch for another CUDA that has them.",
        )
    if len(gpus) < devices:
        return Finding(
            "stop",
            f"compute.devices is {devices}, and torch finds {len(gpus)} GPU(s): {names}.",
            f"Make more of them visible (CUDA_VISIBLE_DEVICES, a cluster's reservation), or set compute.devices: "
            f"{len(gpus)}.",
        )
    return Finding("ok", f"GPU: {len(gpus)} x {names}, {TORCH}, driver for CUDA {_dotted(driver)}")


def _why_none(built: str | None, driver: tuple[int, int] | None, large: bool) -> Finding:
    """Why torch finds no GPU."""
    if driver is None:
        return Finding(
            "stop",
            "There is no NVIDIA driver here" + (", and without a GPU this preset takes months." if large else "."),
            "Run on a machine with an NVIDIA GPU and its driver; in a container with `--gpus all` (Docker) or `--nv` "
            "(Apptainer); or set compute.accelerator: cpu to accept that.",
        )
    if built is None:
        return Finding(
            "stop",
            f"{TORCH} is a CPU build, although the driver here supports CUDA {_dotted(driver)}.",
            "Remove .venv and run `make setup` on this machine: it installs the CUDA build if there is a driver.",
        )
    if int(built.split(".")[0]) > driver[0]:
        return Finding(
            "stop",
            f"{TORCH} is built for CUDA {built}, newer than the driver's {_dotted(driver)}.",
            "Update the NVIDIA driver, or install the same torch built for the driver's CUDA.",
        )
    return Finding(
        "stop",
        f"{TORCH} for CUDA {built} finds no device, although the driver supports CUDA {_dotted(driver)}.",
        "See `nvidia-smi` and CUDA_VISIBLE_DEVICES: is a GPU there, visible and free?",
    )


def runs_on(capability: tuple[int, int], kernels: Iterable[str]) -> bool:
    """Whether a GPU runs one of torch's builds, named as `torch.cuda.get_arch_list` does.

    Machine code (sm_86) runs on its generation from its capability on; PTX (compute_90) on that and all later ones. A
    letter restricts both: `a` to exactly that capability, `f` to the generation.
    """
    for name in kernels:
        build = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name)
        if build is None:
            continue
        kind, major, minor, bound = build.groups()
        own = int(major), int(minor)
        if bound == "a":
            fits = capability == own
        elif kind == "compute" and not bound:
            fits = capability >= own
        else:
            fits = capability[0] == own[0] and capability >= own
        if fits:
            return True
    return False


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the NVIDIA driver supports; None without a driver."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return None
    return None if failed else (number.value // 1000, number.value % 1000 // 10)


def _dotted(version: tuple[int, int] | None) -> str:
    return "unknown" if version is None else ".".join(map(str, version))
