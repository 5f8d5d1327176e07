"""What is still to do: series, bytes, disk space, time."""

import heapq
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from miram.data.case_lists import CROP_UIDS, PATHS
from miram.data.transfer.ledger import History
from miram.data.transfer.receipt import read_receipt
from miram.data.transfer.sources import takes_crops
from miram.errors import MiramError

LINE_RATES = (5.0, 25.0, 100.0)  # MB/s, until a transfer has been measured
RESERVE_BYTES = 200_000_000  # for the ledger, the tables and the file system itself
GB, MB = 1e9, 1e6


class Needed(NamedTuple):
    """A series that lesions need: its images and bytes (0: the source lacks it)."""

    images: int
    bytes: int


class Plan(NamedTuple):
    """What is left: films, series and bytes to transfer, and bytes of disk at the peak, for DICOM and for crops.

    `by_rows`: how many of the films are read by rows, whose bytes are not among those to transfer.
    """

    films: int
    by_rows: int
    series: int
    transfer_bytes: int
    dicom_bytes: int
    crop_bytes: int


def make_plan(
    left: dict[str, list[dict]],
    series: dict[str, Needed],
    source: str,
    settings: dict[str, Any],
    dicom_dir: Path,
    *,
    workers: int,
    keep_dicom: bool,
) -> Plan:
    """The plan for the films `left` (film UID -> its lesions).

    A local source transfers nothing and needs no space, nor do films that are read by rows; a zip needs space in
    addition to its files for a moment. Crops are assumed as large as the archive's own (16 bits, not square), which is
    an upper estimate.
    """
    alone = takes_crops(settings)
    window, transfer, count, crops, by_rows = [], 0, 0, 0, 0
    for lesions in left.values():
        film, others = film_series(lesions)
        needed = [crop_series(lesion, series)[0] for lesion in lesions] if alone else [film, *others]
        missing = [uid for uid in needed if series[uid].images and read_receipt(dicom_dir / uid) is None]
        rows = [film] if settings.get("films") == "rows" and film in missing else []
        sizes = [series[uid].bytes for uid in missing if source != "local" and uid not in rows]
        count += len(missing)
        by_rows += len(rows)
        transfer += sum(sizes)
        window.append(sum(sizes) + max(sizes, default=0))
        masks = 0 if alone else len(lesions) * series[film].bytes // 2  # 8 of the film's 16 bits per pixel
        crops += max(0, sum(series[uid].bytes for uid in needed if uid != film) - masks)
    widest = sum(heapq.nlargest(workers, window))
    return Plan(len(left), by_rows, count, transfer, transfer + widest // 2 if keep_dicom else widest, crops)


def film_series(lesions: list[dict]) -> tuple[str, list[str]]:
    """The series of the film of `lesions`, and the others that its lesions need, sorted."""
    film = lesions[0]["film_uid"]
    return film, sorted({lesion[column] for lesion in lesions for column in PATHS.values()} - {film})


def crop_series(lesion: dict, series: dict[str, Needed]) -> list[str]:
    """The one or two series where the archive's crop of a lesion can be: the smaller first, as masks are larger.

    So it is for all of CBIS-DDSM where crop and mask are in two series, by the index of the Imaging Data Commons.
    """
    return sorted({lesion[name] for name in CROP_UIDS}, key=lambda uid: (series[uid].images == 0, series[uid].bytes))


def require_space(plan: Plan, folder: Path) -> None:
    """Raise MiramError if the disk of `folder` has less space than the plan needs at its peak."""
    needed, free = peak_bytes(plan), free_bytes(folder)
    if free < needed:
        raise MiramError(
            f"The disk of {folder} has {free / GB:.2f} GB free, and {needed / GB:.2f} GB are needed at the peak: "
            f"{plan.dicom_bytes / GB:.2f} GB of DICOM, about {plan.crop_bytes / GB:.2f} GB of crops, "
            f"{RESERVE_BYTES / GB:.2f} GB in reserve.",
            "Free space, link the folder to a larger disk, or set transfer.keep_dicom: false and fewer workers.",
        )


def peak_bytes(plan: Plan) -> int:
    """The disk space that a plan needs; 0 if nothing is left to do."""
    return plan.dicom_bytes + plan.crop_bytes + RESERVE_BYTES if plan.films else 0


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder, which need not exist yet."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def describe(plan: Plan, series: dict[str, Needed], lesions: int, films: int, history: History, folder: Path) -> str:
    """The plan in words, with the time at the rate measured in the ledger, else at stated rates."""
    total = sum(one.bytes for one in series.values())
    absent = sum(one.images == 0 for one in series.values())
    if history.transfer_seconds:
        measured = history.transferred_bytes / history.transfer_seconds / MB
        times = f"{_hours(plan, measured)} for one worker, as measured so far"
    else:
        times = ", ".join(_hours(plan, rate) for rate in LINE_RATES)
    rows = f"; the rows that are read of {plan.by_rows} films come on top, in bytes and time" if plan.by_rows else ""
    return "\n".join(
        [
            f"needed: {lesions} lesions on {films} films: {len(series)} series, {total} bytes ({total / GB:.2f} GB)",
            f"absent from the source: {absent} series",
            f"still to come: {plan.series} series of {plan.films} films, {plan.transfer_bytes} bytes "
            f"({plan.transfer_bytes / GB:.2f} GB){rows}",
            f"disk at the peak: {peak_bytes(plan) / GB:.2f} GB ({plan.dicom_bytes / GB:.2f} GB of DICOM, about "
            f"{plan.crop_bytes / GB:.2f} GB of crops, and a reserve); {free_bytes(folder) / GB:.2f} GB are free",
            *([f"time: {times}"] if plan.transfer_bytes else []),
        ]
    )


def _hours(plan: Plan, rate: float) -> str:
    return f"{plan.transfer_bytes / MB / rate / 3600:.1f} h at {rate:.1f} MB/s"
