"""The preflight: can this machine do what the preset asks? Each finding is ok, a warning or a stop, with its remedy."""

import shutil
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import requests
import torch

from miram.errors import MiramError

LINE_RATES = (5, 25, 100)  # MB/s, for the time that a download may take
ARCHIVE_GB = 163.5  # CBIS-DDSM: 6,775 series, as the index of the Imaging Data Commons gives them; 1e9 bytes
PICTURES_GB = 30  # crops, packed crops, checkpoints and results, beside the archive itself (an upper estimate)


class Finding(NamedTuple):
    """One line of the preflight."""

    level: Literal["ok", "warning", "stop"]
    text: str
    remedy: str = ""


def examine(
    folder: Path, *, addresses: dict[str, str], keep_dicom: bool, accelerator: str, timeout_seconds: float
) -> dict[str, Any]:
    """Print a line a check and return the findings; raises MiramError when one of them is a stop.

    `addresses`: those of the source, by their keys in params.yaml.
    """
    findings = [
        check_accelerator(accelerator, torch.cuda.is_available()),
        check_disk(folder, ARCHIVE_GB, keep_dicom, shutil.disk_usage(folder.resolve()).free / 1e9),
        *[check_address(name, url, timeout_seconds) for name, url in addresses.items()],
    ]
    for finding in findings:
        print(f"{finding.level:8}{finding.text}", *([f"        {finding.remedy}"] if finding.remedy else []), sep="\n")
    stops = [finding for finding in findings if finding.level == "stop"]
    if stops:
        sys.stdout.flush()
        raise MiramError(
            f"{len(stops)} of {len(findings)} checks stop this preset.", "Do what stands below each `stop` above."
        )
    return {"findings": [finding._asdict() for finding in findings]}


def check_accelerator(accelerator: str, cuda: bool) -> Finding:
    """A GPU for the sizes of the paper, unless the parameters ask for the CPU."""
    if cuda:
        return Finding("ok", f"GPU: {torch.cuda.get_device_name()}, torch {torch.__version__}")
    if accelerator == "cpu":
        return Finding(
            "warning", "No GPU is used: compute.accelerator is cpu.", "500 epochs of a ViT-B/16 take months."
        )
    return Finding(
        "stop",
        f"torch {torch.__version__} finds no CUDA device, and this preset takes months on a CPU.",
        "Run on a machine with an NVIDIA GPU and its driver, or set compute.accelerator: cpu if you mean it.",
    )


def check_disk(folder: Path, archive_gb: float, keep_dicom: bool, free_gb: float) -> Finding:
    """Room for what is kept of the archive and for what is made of it; GB are 1e9 bytes."""
    present_gb = sum(file.stat().st_size for file in (folder / "dicom").rglob("*") if file.is_file()) / 1e9
    missing_gb = max(0.0, archive_gb - present_gb)
    hours = ", ".join(f"{missing_gb * 1e3 / rate / 3600:.1f} h at {rate} MB/s" for rate in LINE_RATES)
    kept = f"{missing_gb:.1f} GB" if keep_dicom else "none"
    text = (
        f"Disk: {missing_gb:.1f} GB to download ({hours}), {kept} of it to keep, and up to {PICTURES_GB} GB to make; "
        f"{free_gb:.1f} GB free."
    )
    if free_gb >= (missing_gb if keep_dicom else 0.0) + PICTURES_GB:
        return Finding("ok", text)
    return Finding("stop", text, f"Free space on the disk of {folder}, or link that folder to a larger one.")


def check_address(name: str, url: str, timeout_seconds: float) -> Finding:
    """Whether anything answers at an address of the source; what it answers does not matter here."""
    try:
        requests.get(url, timeout=timeout_seconds, stream=True).close()
    except requests.RequestException as error:
        return Finding(
            "stop",
            f"Nothing answers at {name} {url} ({type(error).__name__}).",
            f"Check the network and its proxy, or set another {name} in params.yaml.",
        )
    return Finding("ok", f"Source: {url} answers")
