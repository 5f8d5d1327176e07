"""The archive's own crops: told from masks by content, and compared with the boxes of masks where a table has these.

The archive cuts the box of a mask with some px around it and stretches the grey levels of each crop by a factor of its
own. What a film alone shows is unknown of them: its size and pixels, the place of the lesion, borders.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from miram.data.case_lists import CROP_UIDS
from miram.data.crop_rules import Taking
from miram.data.cutting import reduced
from miram.data.dicom import DicomError, Film, read_film, read_pixels
from miram.data.own_images.dialect import read_sheet
from miram.data.pictures.survey import AS_STORED
from miram.data.transfer.receipt import RECEIPT
from miram.errors import MiramError
from miram.files import sha256_pixels

BOXES = "lesions.csv"  # in a folder of crops: the boxes of masks in film px, of an independent list
BOX = ("mask_minx", "mask_miny", "mask_maxx", "mask_maxy")
WIDER_PX = 41  # of a crop than its box, on both sides together: at most, in the 3,486 lesions where both are known
REMEDY = "Give four numbers, or leave all four empty; or move the table out of the folder."
DOUBTFUL = "crop_doubtful"  # the word for it among the repairs

Boxes = Mapping[str, tuple[int, int] | None]  # lesion_id -> columns and rows; None: the list has no box of it


def read_boxes(folder: Path) -> Boxes:
    """The sizes of the boxes in the table BOXES of a folder; empty where there is none.

    Raises MiramError that names the table, and the column or the line that is wrong.
    """
    path = Path(folder) / BOXES
    if not path.is_file():
        return {}
    sheet = read_sheet(path, ("image", *BOX))
    return {_lesion(path, line, cells): _size(path, line, cells) for line, cells in sheet.rows.items()}


def _lesion(path: Path, line: int, cells: Mapping[str, str]) -> str:
    if not cells["image"]:
        raise MiramError(f"{path}: line {line}: image is empty.", REMEDY)
    return Path(cells["image"]).stem


def _size(path: Path, line: int, cells: Mapping[str, str]) -> tuple[int, int] | None:
    """Columns and rows of the box of a line; None if it has none."""
    edges = [cells[name] for name in BOX]
    if not any(edges):
        return None
    try:
        left, top, right, bottom = map(float, edges)
        return int(right - left), int(bottom - top)
    except (ValueError, OverflowError) as error:  # of infinity
        raise MiramError(f"{path}: line {line}: {', '.join(BOX)} = {', '.join(edges)}.", REMEDY) from error


def take_crops(
    lesions: list[dict], dicom_dir: Path, taking: Taking, boxes: Boxes
) -> Iterator[tuple[dict, np.ndarray | None]]:
    """Yield each of the lesions of one film with its facts and the archive's crop, or with its `reason` and None.

    The facts are those of `cutting.LESION_COLUMNS` that a crop tells; crops are uint8 or uint16, by `bits`. With
    `doubtful` "set_aside" a crop that disagrees with its box has a reason.
    """
    for lesion in lesions:
        try:
            series, pixels = _read(find_crop([Path(dicom_dir) / lesion[name] for name in CROP_UIDS]))
        except MiramError as error:
            yield {**lesion, "reason": error.message}, None
            continue
        rows, columns = pixels.shape
        doubt = _doubt(boxes, lesion["lesion_id"], columns, rows)
        if doubt and taking.doubtful == "set_aside":
            yield {**lesion, "reason": doubt}, None
            continue
        swapped = "series_swapped" if series != lesion["crop_uid"] else ""
        repairs = ";".join(filter(None, (lesion["repairs"], swapped, DOUBTFUL if doubt else "")))
        crop = reduced(pixels, taking.bits)
        facts = {"roi_uid": series, "repairs": repairs, "film_sha256": ""}
        size = {"crop_columns": columns, "crop_rows": rows}
        yield {**lesion, **facts, **size, "crop_sha256": sha256_pixels(crop)}, crop


def find_crop(folders: list[Path]) -> Film | Path:
    """The crop in the folders of one or two series, of which some may be missing: DICOM of 16 bits, or a picture.

    A mask, which may lie beside it, has 8 bits. Raises DicomError that lists the images unless there is exactly one.
    """
    folders = list(dict.fromkeys(folders))
    named = " and ".join(map(str, folders))
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.name != RECEIPT]
    if not paths:
        raise DicomError(f"{named} is missing or empty: the source has no crop of the lesion")
    crops, others = [], []
    for path in paths:
        if path.suffix != ".dcm":
            return path
        try:
            image = read_film(path)
        except DicomError as error:
            others.append(error.message)
            continue
        if image.bits == 16:
            crops.append(image)
        else:
            others.append(f"{path} has {image.bits} bits, as a mask")
    if len(crops) != 1:
        what = f"{named}: {len(crops)} images of 16 bits, where one crop should be"
        raise DicomError("; ".join([what, *others]))
    return crops[0]


def _read(found: Film | Path) -> tuple[str, np.ndarray]:
    """The series that a crop came from, and its pixels (R, C) uint16."""
    if isinstance(found, Path):
        return found.parent.name, AS_STORED.read(found)[0]
    return found.path.parent.name, read_pixels(found)


def _doubt(boxes: Boxes, lesion_id: str, columns: int, rows: int) -> str:
    """Why a crop of this size disagrees with the box of its mask; empty if it agrees or nothing is known of its box."""
    if lesion_id not in boxes:
        return ""
    box = boxes[lesion_id]
    if box is None:
        return "the archive's crop disagrees with its mask, by the list of boxes"
    if all(0 <= side - own <= WIDER_PX for side, own in zip((columns, rows), box, strict=True)):
        return ""
    return f"the archive's crop has {columns} x {rows} px, and the box of its mask {box[0]} x {box[1]}"
