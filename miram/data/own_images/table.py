"""The table of own images: one row per lesion, with image, patient, class, part and the position on the image."""

import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from miram.data.geometry import Box
from miram.data.own_images.dialect import read_sheet
from miram.data.own_images.names import lesion_id, written_differently
from miram.data.pictures.reader import count_pixels, why_absent
from miram.data.splits import PRETRAIN
from miram.errors import MiramError

REQUIRED = ("image", "patient", "label")
BOX = ("x", "y", "width", "height")  # px, from the left and the upper edge of the image
COLUMNS = (*REQUIRED, "split", *BOX, "mask")
PARTS = ("train", "test", PRETRAIN)  # words of the column split; validation is drawn from train
NUMBER = re.compile(r"-?\d+([.,]\d+)?", re.ASCII)
THOUSANDS = re.compile(r"-?[1-9]\d{0,2}[.,]\d{3}", re.ASCII)  # or a decimal number: 1.234 is ambiguous
REMEDY = "Correct the table that sources.images.table_csv names."


@dataclass(frozen=True)
class Lesion:
    """A row of the table: a region of an image, or all of it."""

    lesion_id: str
    image: str  # path below the folder
    patient: str
    label: str  # empty: only for pre-training
    part: str  # of PARTS; empty: a test set is drawn
    box: Box | None
    mask: str  # path below the folder; empty: none

    @property
    def is_whole(self) -> bool:
        """Whether the row means the whole image."""
        return self.box is None and not self.mask


class Table(NamedTuple):
    """The rows, and how they were read."""

    lesions: list[Lesion]
    written: str  # encoding and separator, in words
    further: list[dict[str, str]]  # of each row the cells under headings that mean nothing here

    @property
    def unread(self) -> list[str]:
        """Those headings."""
        return list(self.further[0])


class _Row(NamedTuple):
    line: int
    cells: Mapping[str, str]


class _Faults(NamedTuple):
    """Raises at the first wrong row, naming the table and the line."""

    table_csv: Path

    def stop(self, row: _Row, column: str, why: str) -> NoReturn:
        raise MiramError(f"{self.table_csv}: line {row.line}: {column} = {row.cells.get(column, '')!r}, {why}.", REMEDY)

    def require(self, rows: Iterable[_Row], column: str, why: str, is_right: Callable[[str], object]) -> None:
        wrong = next((row for row in rows if not is_right(row.cells[column])), None)
        if wrong:
            self.stop(wrong, column, why)


def image_paths(table_csv: Path, folder: Path) -> list[Path]:
    """The images and masks that a table names. Raises as `read_table`."""
    lesions = read_table(table_csv, folder).lesions
    names = [name for lesion in lesions for name in (lesion.image, lesion.mask) if name]
    return [Path(folder) / name for name in dict.fromkeys(names)]


def pixels_of_lesions(table_csv: Path, folder: Path) -> int:
    """Pixels of all crops by the headers of the images: of a box its square, otherwise all of the image."""
    lesions = read_table(table_csv, folder).lesions
    sizes = {lesion.image: count_pixels(Path(folder) / lesion.image) for lesion in lesions if lesion.box is None}
    return sum(max(lesion.box.shape) ** 2 if lesion.box else sizes[lesion.image] for lesion in lesions)


def read_table(table_csv: Path, folder: Path) -> Table:
    """The table of the images in `folder`; COLUMNS are its headings, of which only REQUIRED must be there.

    Raises MiramError naming the table and the line or column that is wrong or ambiguous.
    """
    table_csv, folder = Path(table_csv), Path(folder)
    sheet = read_sheet(table_csv, REQUIRED)
    given = [name for name in BOX if name in sheet.headings]
    if given and len(given) < len(BOX):
        lacking = ", ".join(name for name in BOX if name not in given)
        raise MiramError(f"{table_csv} has the column {', '.join(given)} and lacks {lacking}.", REMEDY)
    faults = _Faults(table_csv)
    rows = [_Row(line, {**cells, "split": cells.get("split", "").casefold()}) for line, cells in sheet.rows.items()]
    _check_words(faults, rows)
    boxes = _boxes(faults, rows) if given else {}
    lesions = []
    for row in rows:
        image, mask = (_path(faults, row, column, folder) for column in ("image", "mask"))
        box = boxes.get(row.line)
        if box and mask:
            faults.stop(row, "mask", "in addition to a box: give only one of the two")
        part = row.cells["split"]
        label = "" if part == PRETRAIN else row.cells["label"]
        place = mask or ("" if box is None else ",".join(map(str, box)))
        lesions.append(Lesion(lesion_id(image, place), image, row.cells["patient"], label, part, box, mask))
    _check_images(faults, rows, lesions)
    unread = [name for name in sheet.headings if name not in COLUMNS]
    return Table(lesions, sheet.written, [{name: row.cells[name] for name in unread} for row in rows])


def _check_words(faults: _Faults, rows: list[_Row]) -> None:
    """Check that patients, classes and parts are given, and each is always spelled the same."""
    parts = {row.cells["split"] for row in rows} - {PRETRAIN}
    allowed = PARTS if parts - {""} else ("", PRETRAIN)
    labelled = [row for row in rows if row.cells["split"] != PRETRAIN]
    for column in ("image", "patient"):
        faults.require(rows, column, "which is empty", bool)
    faults.require(labelled, "label", "which is empty", bool)
    faults.require(rows, "split", f"allowed: {', '.join(PARTS)}", allowed.__contains__)
    for column, own in (("label", labelled), ("patient", rows)):
        several = written_differently(row.cells[column] for row in own)
        if several:
            raise MiramError(
                f"{faults.table_csv}: {column} {' and '.join(several)} differ only in case, blanks or number format.",
                "Spell the same one always the same way, and make different ones differ in more than that.",
            )


def _path(faults: _Faults, row: _Row, column: str, folder: Path) -> str:
    """The path of a file below the folder, spelled as on disk: slashes and composed letters may differ."""
    given = row.cells.get(column, "")
    if not given:
        return ""
    if set("{}") & set(str(folder / given)):
        faults.stop(row, column, "but paths may not contain { or }")
    slashed = given.replace("\\", "/")
    ways = [given, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    if any(Path(way).is_absolute() or Path(os.path.normpath(way)).parts[:1] == ("..",) for way in ways):
        faults.stop(row, column, f"which leads out of {folder}")
    for way in ways:
        if (folder / way).is_file():
            return os.path.normpath(way)
    faults.stop(row, column, f"which is not in {folder}: it {why_absent(folder / given)}")


def _boxes(faults: _Faults, rows: list[_Row]) -> dict[int, Box]:
    """The boxes by line, rounded outwards to whole px."""
    boxed = [row for row in rows if any(row.cells[name] for name in BOX)]
    for name in BOX:
        faults.require(boxed, name, "which is not a number", NUMBER.fullmatch)
    broken = [(row, name) for row in boxed for name in BOX if not row.cells[name].lstrip("-").isdigit()]
    marks = {sign for row, name in broken for sign in row.cells[name] if sign in ".,"}
    if len(marks) > 1 or (broken and all(THOUSANDS.fullmatch(row.cells[name]) for row, name in broken)):
        faults.stop(*broken[0], "which is ambiguous (thousands or a fraction): write px without separators")
    found = {}
    for row in boxed:
        x, y, width, height = (float(row.cells[name].replace(",", ".")) for name in BOX)
        for name, side in (("width", width), ("height", height)):
            if side < 1:
                faults.stop(row, name, "less than one px")
        found[row.line] = Box(math.floor(y), math.floor(x), math.ceil(y + height), math.ceil(x + width))
    return found


def _check_images(faults: _Faults, rows: list[_Row], lesions: list[Lesion]) -> None:
    """Check that no row occurs twice, and that an image has one patient and is whole or has regions, not both."""
    seen: dict[str, list[tuple[_Row, Lesion]]] = defaultdict(list)
    for row, lesion in zip(rows, lesions, strict=True):
        for other_row, other in seen[lesion.image]:
            if lesion.patient != other.patient:
                faults.stop(row, "patient", f"and line {other_row.line} gives the same image to {other.patient!r}")
            if lesion.lesion_id == other.lesion_id:
                faults.stop(row, "image", f"which is also on line {other_row.line}")
            if lesion.is_whole != other.is_whole:
                faults.stop(row, "image", f"which has a box or a mask only once, see line {other_row.line}")
        seen[lesion.image].append((row, lesion))
