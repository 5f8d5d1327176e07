"""A folder that holds the archive already, in whatever layout: the headers say which file belongs to which series.

The TCIA Data Retriever's classic and descriptive layouts and that of the Imaging Data Commons name their folders and
files differently, and none of the names is read here. Nothing is copied: a series is links to its files.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from miram.data.transfer.http import Fault, Http
from miram.data.transfer.receipt import Item, Uids, hash_file, read_uids, write_receipt
from miram.data.transfer.sources.series import Series
from miram.errors import MiramError
from miram.progress import track

PREAMBLE_BYTES = 128  # then the four letters DICM (PS3.10, 7.1)


class Found(NamedTuple):
    """A DICOM file of a series."""

    sop_uid: str
    path: Path


class Local:
    """The DICOM files below a folder; films are read where they lie."""

    read_rows = None

    def __init__(self, _http: Http, *, folder: str) -> None:
        self._files = find_series(Path(folder))

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the folder holds; nothing tells whether one of their files is missing."""
        return {
            uid: Series(uid, len(files), sum(found.path.stat().st_size for found in files))
            for uid in uids
            if (files := self._files.get(uid))
        }

    def fetch_series(self, series: Series, folder: Path) -> list[Item]:
        """Link the files of a series; see `Source`."""
        files = self._files.get(series.uid, [])
        if len(files) != series.images:
            raise Fault(f"the folder holds {len(files)} images of it, not {series.images}", lasting=True)
        folder.mkdir()
        items = []
        for number, found in enumerate(files, start=1):
            name = f"1-{number}.dcm"
            (folder / name).symlink_to(found.path)
            try:
                items.append(Item(name, *hash_file(found.path), found.sop_uid))
            except OSError as error:
                raise Fault(f"{found.path} cannot be read: {error.strerror}", lasting=True) from error
        write_receipt(folder, items)
        return items


def find_series(folder: Path) -> dict[str, list[Found]]:
    """The DICOM files below `folder` by SeriesInstanceUID, each SOPInstanceUID once, sorted by path.

    Other files are left alone; one that should be DICOM and is none is told. Raises MiramError when a file cannot be
    read, or two of one SOPInstanceUID are not of one length.
    """
    if not folder.is_dir():
        raise MiramError(
            f"{folder} is no folder (sources.local.folder).", "Name the folder that holds the DICOM files."
        )
    series: dict[str, dict[str, Path]] = {}
    for path in track(_files(folder.resolve()), "DICOM headers"):
        uids = _read_uids(path)
        if uids is not None:
            first = series.setdefault(uids.series, {}).setdefault(uids.sop, path)
            if first.stat().st_size != path.stat().st_size:
                raise MiramError(
                    f"{first} and {path} are both instance {uids.sop}, but not of one length.",
                    "Move the wrong one out of the folder (sources.local.folder), then run again.",
                )
    return {
        uid: sorted((Found(sop, path) for sop, path in files.items()), key=lambda found: found.path)
        for uid, files in series.items()
    }


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _read_uids(path: Path) -> Uids | None:
    """What a DICOM file says it is; None for any other file."""
    try:
        with open(path, "rb") as stream:
            stream.seek(PREAMBLE_BYTES)
            is_dicom = stream.read(4) == b"DICM"
        uids = read_uids(path) if is_dicom else None
    except OSError as error:
        raise _unreadable(error) from error
    if uids is None and (is_dicom or path.suffix == ".dcm"):
        print(f"skipped: {path} is not a DICOM file", file=sys.stderr, flush=True)
    return uids


def _unreadable(error: OSError) -> MiramError:
    return MiramError(
        f"{error.filename} cannot be read: {error.strerror}",
        "Check its permissions and its disk, or move it out of the folder (sources.local.folder), then run again.",
    )
