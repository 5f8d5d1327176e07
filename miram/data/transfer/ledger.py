"""The ledger: one readable file with the history of every series and film, one JSON object per line.

A series is verified (complete on disk, with hashes) or fetched (only the rows of a film that its crops need), then
cropped; or it is set aside, with the reason. Lines are only appended, so a kill loses at most the line that was being
written, and the next run continues from there.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from miram.data.transfer.receipt import Item
from miram.errors import MiramError

UNTOLD = "untold"  # the origin of a series that was already on disk without a line in the ledger


@dataclass
class History:
    """The content of a ledger: verified files, cut films, the time of transfers."""

    verified: dict[str, list[Item]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # the kind of source that delivered a series
    films: dict[str, dict[str, Any]] = field(default_factory=dict)  # the last line of each film that was cut
    transferred_bytes: int = 0  # in the seconds that follow
    transfer_seconds: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        """Apply one line; it changes nothing for a series that is set aside, or (of older versions) only planned."""
        state, series = line["state"], line["series"]
        if state == "cropped":
            self.films[line["film"]] = line
        if state in ("verified", "fetched"):
            self.origins[series] = line.get("origin", UNTOLD)
        if state == "verified":
            self.verified[series] = [Item(**item) for item in line["files"]]
            if line["seconds"]:  # else it was already there
                self.transferred_bytes += sum(item.bytes for item in self.verified[series])
                self.transfer_seconds += line["seconds"]


class Ledger:
    """A ledger that is open for writing; threads share it. `history` is always up to date with the file."""

    def __init__(self, path: Path, stream: BinaryIO, history: History, length: int) -> None:
        self.history = history
        self._path = path
        self._stream = stream
        self._length = length
        self._lock = threading.Lock()

    def fetched(self, series: str, origin: str, bytes: int) -> None:
        """Enter a film of which only the needed rows are fetched; its hash stays unknown."""
        self._add({"state": "fetched", "series": series, "origin": origin, "bytes": bytes})

    def verified(self, series: str, origin: str, items: list[Item], seconds: float) -> None:
        """Enter a series that is complete on disk; `seconds`: the time of its transfer, 0 if it was already there."""
        self._add(
            {
                "state": "verified",
                "series": series,
                "origin": origin,
                "seconds": round(seconds, 3),
                "files": [item._asdict() for item in items],
            }
        )

    def set_aside(self, series: str, reason: str) -> None:
        """Enter a series that could not be downloaded."""
        self._add({"state": "set_aside", "series": series, "reason": reason})

    def cropped(
        self, film: str, series: list[str], key: str, lesions: list[dict], aside: list[dict], backgrounds: list[dict]
    ) -> None:
        """Enter a film whose lesions are cut or set aside for good; its series may be deleted now.

        `key`: digest of everything that decided its images.
        """
        line: dict[str, Any] = {"state": "cropped", "film": film, "series": series, "key": key}
        line |= {"lesions": lesions, "set_aside": aside, "backgrounds": backgrounds}
        self._add(line, durable=True)

    def _add(self, line: dict[str, Any], durable: bool = False) -> None:
        text = json.dumps(line, default=lambda number: number.item()).encode() + b"\n"
        with self._lock:
            try:
                left = text
                while left:  # a disk may write only part of it
                    left = left[self._stream.write(left) :]
                if durable:
                    os.fsync(self._stream.fileno())
            except OSError as error:
                os.ftruncate(self._stream.fileno(), self._length)
                error.filename = str(self._path)
                raise
            self._length += len(text)
            self.history.add(json.loads(text))


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """Open a ledger for writing; a line truncated by a kill is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    history, length = _read(path)
    with open(path, "ab", buffering=0) as stream:
        stream.truncate(length)
        yield Ledger(path, stream, history, length)


def read_ledger(path: Path) -> History:
    """The history in a ledger; empty if there is no file."""
    return _read(path)[0]


def _read(path: Path) -> tuple[History, int]:
    """The history in a ledger, and the length of its complete lines in bytes."""
    history, length = History(), 0
    if not path.exists():
        return history, length
    with open(path, "rb") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.endswith(b"\n"):
                break
            try:
                history.add(json.loads(text))
            except (ValueError, KeyError, TypeError) as error:
                raise MiramError(
                    f"Line {number} of {path} is damaged: {error}",
                    "Remove that line and run again: the work that it recorded is then repeated.",
                ) from error
            length += len(text)
    return history, length
