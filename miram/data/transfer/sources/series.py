"""What every source of the archive offers: which series it has, and each of them as verified files in a folder."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from miram.data.dicom import Film
from miram.data.transfer.receipt import Item

OpenFilm = Callable[[Film], np.ndarray]  # or anything else with .shape, .dtype and slices of rows and columns


class Series(NamedTuple):
    """A series as its source announces it: its SeriesInstanceUID, its number of images, their size together."""

    uid: str
    images: int
    bytes: int


class Fetched(NamedTuple):
    """A series that lies there verified: the kind of source that gave it, and its files."""

    origin: str
    items: list[Item]


class Source(Protocol):
    """One place that the archive is had from; threads share it."""

    origin: str
    """The kind of source that answers now: tcia, idc or local."""

    read_rows: Callable[[Series, Path], OpenFilm] | None
    """Put a film's header alone into a new folder and return what reads its pixels; None: films are fetched whole."""

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the source has, by UID. Raises Fault when it does not say."""

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Put a series' verified DICOM files and their receipt into the new folder `folder`, and nothing else.

        Raises Fault when it could not be had complete and correct, OSError when the disk does not take it.
        """
