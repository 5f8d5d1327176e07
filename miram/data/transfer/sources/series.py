"""The interface of every source of the archive: its series, each as verified files in a folder."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from miram.data.dicom import Film
from miram.data.transfer.receipt import Item

OpenFilm = Callable[[Film], np.ndarray]  # or anything else with .shape, .dtype and slices of rows and columns


class Series(NamedTuple):
    """A series as its source announces it: SeriesInstanceUID, number of images, total size."""

    uid: str
    images: int
    bytes: int


class Fetched(NamedTuple):
    """A verified series on disk: the kind of source that delivered it, and its files."""

    origin: str
    items: list[Item]


class Source(Protocol):
    """One source of the archive; threads share it."""

    origin: str
    """The kind of source that answers now: tcia, idc or local."""

    read_rows: Callable[[Series, Path], OpenFilm] | None
    """Put only a film's header into a new folder and return a reader of its pixels; None: films are fetched whole."""

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the source has, by UID. Raises Fault if it does not answer."""

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Put a series' verified DICOM files and their receipt into the new folder `folder`, and nothing else.

        Raises Fault unless it is complete and correct, OSError if it cannot be written.
        """
