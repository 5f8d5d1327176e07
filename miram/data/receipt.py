"""The receipt of a series: `receipt.csv` in its folder lists what was verified, so that it is not fetched twice.

A series folder gets its final name only when it is complete, its receipt included.
"""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

RECEIPT = "receipt.csv"


class Item(NamedTuple):
    """One verified file of a series: its name, its size and its MD5 as the archive gives it."""

    file: str
    bytes: int
    md5: str


def write_receipt(folder: Path, items: Iterable[Item]) -> None:
    """Write the receipt of a series folder, in the order of the file names."""
    with open(folder / RECEIPT, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Item._fields)
        writer.writerows(sorted(items))


def read_receipt(folder: Path) -> list[Item] | None:
    """The receipt of a folder whose files are all there with their sizes; None for any other folder."""
    try:
        with open(folder / RECEIPT, encoding="utf-8", newline="") as stream:
            items = [Item(row["file"], int(row["bytes"]), row["md5"]) for row in csv.DictReader(stream)]
        complete = all((folder / item.file).stat().st_size == item.bytes for item in items)
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None
    return items if items and complete else None


def digest(receipts: dict[str, list[Item]]) -> str:
    """SHA-256 over the names and MD5s of all files of all series: equal for equal archives."""
    lines = (f"{uid}/{item.file} {item.md5}\n" for uid in sorted(receipts) for item in receipts[uid])
    return hashlib.sha256("".join(lines).encode()).hexdigest()
