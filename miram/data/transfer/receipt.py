"""The receipt of a series: `receipt.csv` in its folder lists verified files, so that they are not fetched twice.

A series folder gets its final name only when it is complete, its receipt included.
"""

import csv
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import dcmread

RECEIPT = "receipt.csv"
CHUNK_BYTES = 1 << 20
UID_TAGS = ("SeriesInstanceUID", "SOPInstanceUID")


class Item(NamedTuple):
    """One verified file of a series; its SOPInstanceUID is empty if the archive's file is not DICOM."""

    file: str
    bytes: int
    md5: str
    sha256: str
    sop_uid: str


class Uids(NamedTuple):
    """SeriesInstanceUID and SOPInstanceUID of a file."""

    series: str
    sop: str


def read_uids(path: Path) -> Uids | None:
    """The UIDs in a DICOM file; None for other files."""
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(UID_TAGS))
        return Uids(*(str(header[tag].value) for tag in UID_TAGS))
    except OSError:
        raise
    except Exception:  # a damaged header makes pydicom raise nearly anything
        return None


def hash_file(path: Path) -> tuple[int, str, str]:
    """Length, MD5 and SHA-256 of a file, read once."""
    length, md5, sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            length += len(chunk)
            md5.update(chunk)
            sha256.update(chunk)
    return length, md5.hexdigest(), sha256.hexdigest()


def write_receipt(folder: Path, items: list[Item]) -> None:
    """Write the receipt of a series folder, in the order of the file names."""
    with open(folder / RECEIPT, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Item._fields)
        writer.writerows(sorted(items))


def read_receipt(folder: Path) -> list[Item] | None:
    """The receipt of a folder if all its files are there with their sizes, else None."""
    try:
        with open(folder / RECEIPT, encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            items = [_item(row) for row in rows]
        complete = all((folder / item.file).stat().st_size == item.bytes for item in items)
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None
    return items if items and complete else None


def _item(row: dict[str, Any]) -> Item:
    return Item(**{**row, "bytes": int(row["bytes"])})
