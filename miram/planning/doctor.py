"""The preflight: can this machine run the preset? Each finding is ok, a warning or a stop, with its remedy."""

import configparser
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from miram.data.cbis_ddsm.cases import ARCHIVE_BYTES
from miram.errors import MiramError
from miram.planning.finding import Finding
from miram.planning.gpu import find_accelerator
from miram.planning.memory import FULL, USABLE, checkpoint_bytes, encoder_parameters, fit, memory_of
from miram.planning.sources import REMOTE, check_source
from miram.recipe import Encoder, Recipe, Timm
from miram.train.views import bytes_kept

CONTAINERS = ("docker", "apptainer", "singularity")
LINE_RATES = (5, 25, 100)  # MB/s, to estimate the time of a download
# ESTIMATE: 8 bits per pixel, squares of 1.5 times their boxes, of which 3,160 take 0.84 GB in that index
CROP_BYTES = 0.4e6
CROP_COPIES = 3  # times those bytes: packed, and as PNG files of up to 16 bits
REST_GB = 1.0  # ESTIMATE: results, logs, and films in progress


def examine(
    folder: Path,
    *,
    source: str,
    settings: Mapping[str, Any],
    methods: Mapping[str, Recipe],
    accelerator: str | None,
    devices: int,
    elsewhere: bool,
    encoder: Encoder,
    crops_bytes: float,
    made_gb: float,
    keep_dicom: bool,
    timeout_seconds: float,
    hours: Mapping[str, str],
) -> list[Finding]:
    """Print one line per check and return the findings; raises MiramError if one of them is a stop.

    `source`, `settings`: as in `check_source`, with an empty block for a source that is not read; `methods` are the
    pre-trainings, `encoder` is that of all; `accelerator` is None if nothing is trained; `elsewhere`: another machine
    trains and downloads; `crops_bytes`: size of the packed crops; `made_gb`: disk space still to be filled; `hours`:
    those of all trainings, by measured device.
    """
    disk = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    remote = bool(settings) and source in REMOTE
    findings = []
    if accelerator is not None and not elsewhere:
        findings.append(find_accelerator(accelerator, devices, encoder))
        if methods:
            findings.append(check_memory(methods, devices, None if accelerator == "cpu" else _gpu_bytes(), crops_bytes))
    findings += [
        check_hours(hours),
        check_disk(
            folder,
            ARCHIVE_BYTES / 1e9 if settings and source in REMOTE else 0.0,
            made_gb,
            keep_dicom,
            shutil.disk_usage(disk).free / 1e9,
        ),
        *check_source(source, {} if remote and elsewhere else settings, timeout_seconds),
        check_container([name for name in CONTAINERS if shutil.which(name)]),
        check_remote([Path(".dvc", name) for name in ("config", "config.local")]),
    ]
    for finding in findings:
        print(f"{finding.level:8}{finding.text}", *([f"        {finding.remedy}"] if finding.remedy else []), sep="\n")
    stops = [finding for finding in findings if finding.level == "stop"]
    if stops:
        sys.stdout.flush()
        raise MiramError(
            f"{len(stops)} of {len(findings)} checks stop this preset.", "Follow the remedy below each `stop` above."
        )
    return findings


def _gpu_bytes() -> int | None:
    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None


def check_memory(methods: Mapping[str, Recipe], devices: int, gpu_bytes: int | None, crops_bytes: float) -> Finding:
    """Whether each GPU can hold all crops and a micro-batch of every method, predicted by `miram.planning.memory`.

    `gpu_bytes` is None without a GPU.
    """
    crops_bytes = bytes_kept(crops_bytes, gpu_bytes or 0)
    peaks = {}
    for name, recipe in methods.items():
        parts = _parts(recipe, devices, gpu_bytes, crops_bytes)
        peaks[name] = memory_of(recipe, recipe.batch // (parts * devices), parts).peak
    largest = max(peaks, key=peaks.__getitem__)
    text = f"Memory of pre-training: {peaks[largest] / 1e9:.1f} GB at most, predicted for {largest}"
    if gpu_bytes is None:
        return Finding("ok", f"{text}; no GPU to compare it with.")
    text = f"{text}, and {crops_bytes / 1e9:.1f} GB of crops; the GPU has {gpu_bytes / 1e9:.1f} GB."
    full = [name for name, peak in peaks.items() if peak + crops_bytes > USABLE * gpu_bytes]
    if not full:
        return Finding("ok", text)
    return Finding(
        "stop", text, " ".join(_smaller(name, methods[name], devices, gpu_bytes, crops_bytes) for name in full)
    )


def _parts(recipe: Recipe, devices: int, gpu_bytes: int | None, crops_bytes: float) -> int:
    """How a batch is divided; with `accumulate: auto` one by one where nothing else fits, or no GPU is known."""
    if isinstance(recipe.accumulate, int):
        return recipe.accumulate
    try:
        return fit(recipe, gpu_bytes or 0, devices=devices, crops_bytes=crops_bytes).accumulate
    except MiramError:
        return recipe.batch // devices


def _smaller(name: str, recipe: Recipe, devices: int, gpu_bytes: int, crops_bytes: float) -> str:
    try:
        found = fit(recipe, gpu_bytes, devices=devices, crops_bytes=crops_bytes)
        return f"Set methods.{name}.accumulate: {found.accumulate}."
    except MiramError as error:
        return f"methods.{name}: {error.message} {error.remedy}"


def check_hours(hours: Mapping[str, str]) -> Finding:
    """How long all trainings will take, from the rates that `miram bench` measured."""
    if hours:
        known = "; ".join(f"{text} on {device}" for device, text in hours.items())
        return Finding("ok", f"Time of all trainings if run sequentially: {known}. `miram plan` lists them.")
    return Finding(
        "ok",
        "Time of all trainings: not known.",
        "`miram bench` (on a GPU with --device cuda) measures a device; `miram plan` then reports the hours.",
    )


def all_made_gb(
    methods: Mapping[str, Recipe],
    *,
    pretrainings: int,
    networks: Iterable[tuple[Encoder | Timm, int]],
    crops_bytes: float,
) -> float:
    """What a preset leaves on disk in addition to the archive, an upper estimate in 1e9 bytes.

    An encoder and a checkpoint of each of a method's `pretrainings` (and a second checkpoint while it is written), the
    fine-tuned `networks`, each with the side that it sees, and the crops, whose packed store has `crops_bytes`.
    """
    checkpoints = [checkpoint_bytes(recipe) for recipe in methods.values()]
    encoders = [(recipe.encoder, recipe.side) for recipe in methods.values()] * pretrainings + list(networks)
    trained = pretrainings * sum(checkpoints) + max(checkpoints) + FULL * sum(encoder_parameters(*e) for e in encoders)
    return (trained + CROP_COPIES * crops_bytes) / 1e9 + REST_GB


def held_gb(place: Path) -> float:
    """Size of a file, or of all files in a folder, in 1e9 bytes; 0 if it does not exist."""
    return sum(file.stat().st_size for file in (place, *place.rglob("*")) if file.is_file()) / 1e9


def check_disk(folder: Path, archive_gb: float, made_gb: float, keep_dicom: bool, free_gb: float) -> Finding:
    """Disk space for what is kept of the archive and made from it; GB are 1e9 bytes."""
    missing_gb = max(0.0, archive_gb - held_gb(folder / "dicom"))
    kept_gb = missing_gb if keep_dicom else 0.0
    hours = ", ".join(f"{missing_gb * 1e3 / rate / 3600:.1f} h at {rate} MB/s" for rate in LINE_RATES)
    transfer = f"{missing_gb:.1f} GB to download ({hours}), {kept_gb:.1f} GB of it to keep, and " if missing_gb else ""
    text = (
        f"Disk: {transfer}up to {made_gb:.1f} GB to write (`dvc repro` stores most of it twice, unless the disk "
        f"supports reflinks); {free_gb:.1f} GB free."
    )
    if free_gb >= kept_gb + made_gb:
        return Finding("ok", text)
    return Finding("stop", text, f"Free space on the disk of {folder}, or link that folder to a larger one.")


def check_container(found: Iterable[str]) -> Finding:
    """A program that runs the image; only runs in a container need one."""
    names = ", ".join(found)
    if names:
        return Finding("ok", f"Containers: {names}")
    return Finding(
        "warning",
        f"Containers: none of {', '.join(CONTAINERS)} is on PATH.",
        "Install one to run the workflow in its image; it also runs without.",
    )


def check_remote(configs: Iterable[Path]) -> Finding:
    """A place that DVC can push data and models to."""
    parser = configparser.ConfigParser(interpolation=None)  # an address may hold %
    parser.read(configs, encoding="utf-8")
    name = parser.get("core", "remote", fallback=None)
    if name is not None:
        url = parser.get(f"'remote \"{name}\"'", "url", fallback="of unknown address")
        return Finding("ok", f"DVC remote: {name}, {url}")
    return Finding(
        "warning",
        "DVC has no default remote: data and models stay on this machine.",
        "`dvc remote add --default NAME ADDRESS`: a folder, s3://bucket/path or ssh://host/path.",
    )
