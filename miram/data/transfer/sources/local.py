"""A folder that already holds the archive, in any layout: the headers say which file belongs to which series.

The TCIA Data Retriever's classic and descriptive layouts and that of the Imaging Data Commons name folders and files
differently, so names are not read. Nothing is copied: a series is a folder of links to its files.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from miram.data.pictures.pillow import STARTS
from miram.data.pictures.reader import HEAD_BYTES, has_mark
from miram.data.transfer.http import Fault, Http
from miram.data.transfer.receipt import Item, Uids, hash_file, read_uids, write_receipt
from miram.data.transfer.sources.series import Fetched, OpenFilm, Series
from miram.errors import MiramError
from miram.progress import track

OTHERS = {"JPEG": STARTS["JPEG"], "PNG": STARTS["PNG"], "ZIP": (b"PK\x03\x04",)}  # files of usual mirrors


class Found(NamedTuple):
    """A DICOM file of a series."""

    sop_uid: str
    path: Path


class Local:
    """The DICOM files below a folder; films are read in place."""

    origin = "local"
    read_rows: Callable[[Series, Path], OpenFilm] | None = None

    def __init__(self, _http: Http, *, folder: str) -> None:
        self._folder = Path(folder)
        require_dicom(self._folder)
        self._files = find_series(self._folder)

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the folder holds; a missing file of a series cannot be noticed.

        Raises MiramError if it holds none of them.
        """
        found = {
            uid: Series(uid, len(files), sum(found.path.stat().st_size for found in files))
            for uid in uids
            if (files := self._files.get(uid))
        }
        if not found:
            raise MiramError(
                f"{self._folder} (sources.local.folder) holds {len(self._files)} DICOM series, and none that the case "
                "lists name.",
                "Name the folder that holds the archive of these case lists, or take source: tcia or idc.",
            )
        return found

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
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
        return Fetched(self.origin, items)


def require_dicom(folder: Path) -> None:
    """Raise MiramError that says what `folder` holds instead, unless a DICOM file is below it."""
    if not folder.is_dir():
        raise MiramError(
            f"{folder} is not a folder (sources.local.folder).",
            "Name the folder that holds the files of the archive, or mount it.",
        )
    kinds: Counter[str] = Counter()
    for path in _files(folder):
        start = _start(path)
        if has_mark(start):
            return
        kinds[next((kind for kind, letters in OTHERS.items() if start.startswith(letters)), "other")] += 1
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in (*OTHERS, "other") if kinds[kind])
    held = f"files of it: {counted}" if counted else "no other file either"
    raise MiramError(f"{folder} (sources.local.folder) holds no DICOM file; {held}.", _instead(kinds))


def find_series(folder: Path) -> dict[str, list[Found]]:
    """The DICOM files below `folder` by SeriesInstanceUID, each SOPInstanceUID once, sorted by path.

    Other files are ignored; one that should be DICOM but is not is reported. Raises MiramError if a file cannot be
    read, or two with one SOPInstanceUID differ in length.
    """
    series: dict[str, dict[str, Path]] = {}
    for path in track(_files(folder.resolve()), "DICOM headers"):
        uids = _read_uids(path)
        if uids is not None:
            first = series.setdefault(uids.series, {}).setdefault(uids.sop, path)
            if first.stat().st_size != path.stat().st_size:
                raise MiramError(
                    f"{first} and {path} are both instance {uids.sop}, but differ in length.",
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
    """The UIDs in a DICOM file; None for other files."""
    is_dicom = has_mark(_start(path))
    try:
        uids = read_uids(path) if is_dicom else None
    except OSError as error:
        raise _unreadable(error) from error
    if uids is None and (is_dicom or path.suffix == ".dcm"):
        print(f"skipped: {path} is not a DICOM file", file=sys.stderr, flush=True)
    return uids


def _start(path: Path) -> bytes:
    """Enough of a file to see whether it is DICOM."""
    try:
        with open(path, "rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as error:
        raise _unreadable(error) from error


def _instead(kinds: Counter[str]) -> str:
    """The remedy for a folder with such files and no DICOM."""
    if kinds["ZIP"]:
        return "Unpack the ZIP archives in that folder, then run again; or take source: tcia or idc."
    if kinds["JPEG"] or kinds["PNG"]:
        return (
            "Crops need the 16 bits of the DICOM films, which a mirror in JPEG or PNG has lost: take "
            "source: tcia or idc, or name a folder with the DICOM files. With crops.from: archive, crops may be "
            "pictures named by lesion, such as Mass-Training_P_00001_LEFT_CC_1.png."
        )
    return "Name the folder that holds the DICOM files, or take source: tcia or idc."


def _unreadable(error: OSError) -> MiramError:
    return MiramError(
        f"{error.filename} cannot be read: {error.strerror}",
        "Check its permissions and its disk, or move it out of the folder (sources.local.folder), then run again.",
    )
