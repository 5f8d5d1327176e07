"""A folder of the archive's own crops as grey PNG or JPEG, each named by its lesion_id.

`Mass-Training_P_00001_LEFT_CC_1.jpg` is in any folder below. A series is a folder with a link to its picture.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from miram.data.case_lists import is_lesion_id, read_lesions
from miram.data.transfer.http import Fault
from miram.data.transfer.receipt import Item, hash_file, write_receipt
from miram.data.transfer.sources.series import Fetched, OpenFilm, Series
from miram.errors import MiramError
from miram.files import files_below

SUFFIXES = {".png", ".jpg", ".jpeg"}


class NamedCrops:
    """The pictures below a folder; the case lists in `csv_dir`, read when first needed, say whose series each is."""

    origin = "local"
    read_rows: Callable[[Series, Path], OpenFilm] | None = None

    def __init__(self, folder: Path, csv_dir: Path) -> None:
        self._folder = folder
        self._csv_dir = csv_dir
        self._pictures: dict[str, list[Path]] = {}
        for path in named_pictures(folder):
            self._pictures.setdefault(path.stem, []).append(path)

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` whose picture the folder holds.

        Raises MiramError if it holds none of them, or one twice.
        """
        found = {uid: Series(uid, 1, path.stat().st_size) for uid in uids if (path := self._path(uid))}
        if not found:
            raise MiramError(
                f"{self._folder} (sources.local.folder) holds {len(self._pictures)} PNG or JPEG files named by "
                f"lesion, and none is of the case lists: they have {next(iter(self._names.values()))} and others.",
                "Name the folder that holds the archive's crops, as such pictures or as DICOM.",
            )
        return found

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Link the picture of a series; see `Source`."""
        path = self._path(series.uid)
        if path is None:
            raise Fault(f"the folder has no picture of lesion {self._names.get(series.uid)} any more", lasting=True)
        folder.mkdir()
        (folder / path.name).symlink_to(path)
        try:
            items = [Item(path.name, *hash_file(path), "")]
        except OSError as error:
            raise Fault(f"{path} cannot be read: {error.strerror}", lasting=True) from error
        write_receipt(folder, items)
        return Fetched(self.origin, items)

    @cached_property
    def _names(self) -> dict[str, str]:
        lesions = read_lesions(self._csv_dir)
        return dict(zip(lesions["crop_uid"], lesions["lesion_id"], strict=True))

    def _path(self, uid: str) -> Path | None:
        paths = self._pictures.get(self._names.get(uid, ""), [])
        if len(paths) > 1:
            raise MiramError(
                f"{paths[0]} and {paths[1]} are both the crop of one lesion.",
                "Move the wrong one out of the folder (sources.local.folder), then run again.",
            )
        return paths[0] if paths else None


def named_pictures(folder: Path) -> list[Path]:
    """The PNG and JPEG files below a folder that have the name of a lesion."""
    below = files_below(folder.resolve())
    return [path for path in below if path.suffix.lower() in SUFFIXES and is_lesion_id(path.stem)]
