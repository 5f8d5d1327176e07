"""Lesion crops: the square around a lesion's mask, cut from the whole film at its native size.

Films, masks and crops are (R, C) arrays; positions are film pixels, x along columns, y along rows. The rules for what
the archive has wrong stand at the functions that apply them; a lesion that no rule saves is set aside with its reason.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from miram.data.catalogue import COLUMNS as CATALOGUE_COLUMNS
from miram.data.catalogue import PATHS, read_lesions
from miram.data.dicom import DicomError, Film, open_pixels, read_film, series_files
from miram.errors import MiramError
from miram.files import atomic_path
from miram.progress import track

# Some masks were drawn on a rescan at 50 um of a film at 43.5 um: 0.87 of its rows and columns. The 74 whose file size
# tells their scale lie within 0.0003 of that.
RESCAN_SCALE = 0.87
RESCAN_TOLERANCE = 0.005
LESION_COLUMNS = [
    *(name for name in CATALOGUE_COLUMNS if name not in {*PATHS.values(), "repairs"}),
    *("film_uid", "roi_uid", "film_rows", "film_columns", "x0", "y0", "side_px"),
    *("repairs", "film_sha256", "crop_sha256"),
]
SET_ASIDE_COLUMNS = ["lesion_id", "patient_id", "official_split", "film_uid", "reason"]


class Box(NamedTuple):
    """A half-open rectangle: rows y0 to y1 - 1, columns x0 to x1 - 1."""

    y0: int
    x0: int
    y1: int
    x1: int


class Square(NamedTuple):
    """A square of `side` px whose first pixel is (y0, x0); parts of it may lie outside the film."""

    y0: int
    x0: int
    side: int


def cut_crops(
    csv_dir: Path,
    dicom_dir: Path,
    crops_dir: Path,
    lesions_csv: Path,
    set_aside_csv: Path,
    *,
    component: str,
    margin: float,
    bits: int,
) -> dict[str, object]:
    """Cut every lesion of the case lists in `csv_dir` from its film in `dicom_dir`.

    Writes `crops_dir`/<lesion_id>.png (grey, `bits` a pixel), a row in `lesions_csv` for each crop and a row in
    `set_aside_csv` for each lesion without one; crops of earlier runs that have no row any more are removed. For
    `component` see `select_component`, for `margin` `square_around`. Returns counts. Raises MiramError when no lesion
    could be cut.
    """
    crops_dir = Path(crops_dir)
    lesions = read_lesions(csv_dir)
    done, aside = [], []
    for _, on_film in track(lesions.groupby("film_uid"), "crops", total=lesions["film_uid"].nunique()):
        for lesion, crop in _cut_film(on_film.to_dict("records"), dicom_dir, component, margin):
            if crop is None:
                aside.append(lesion)
                continue
            if bits == 8:
                crop = (crop >> 8).astype(np.uint8)  # the authors drop the low byte
            with atomic_path(crops_dir / f"{lesion['lesion_id']}.png") as temporary:
                Image.fromarray(crop).save(temporary, format="PNG")
            done.append({**lesion, "crop_sha256": _sha256(crop)})
    if not done:
        raise MiramError(
            f"None of the {len(lesions)} lesions could be cut; {aside[0]['lesion_id']}: {aside[0]['reason']}",
            f"Check that {dicom_dir} holds the downloaded series; run `miram download` again.",
        )
    kept = {lesion["lesion_id"] for lesion in done}
    for png in crops_dir.glob("*.png"):
        if png.stem not in kept:
            png.unlink()
    _write(aside, SET_ASIDE_COLUMNS, set_aside_csv)
    _write(done, LESION_COLUMNS, lesions_csv)
    words = [word for lesion in done for word in lesion["repairs"].split(";") if word]
    return {
        "lesions": len(done),
        "set_aside": len(aside),
        "films": len({lesion["film_uid"] for lesion in done}),
        "repairs": {word: words.count(word) for word in sorted(set(words))},
    }


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box around the True pixels of a mask (R, C). Raises ValueError when there are none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise ValueError("an empty mask has no box")
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def square_around(box: Box, margin: float) -> Square:
    """The square of the box's longer side, plus `margin` of it on each side, centred on the box to half a pixel."""
    height, width = box.y1 - box.y0, box.x1 - box.x0
    longer = max(height, width)
    side = longer + 2 * round(margin * longer)
    return Square(box.y0 + (height - side) // 2, box.x0 + (width - side) // 2, side)


def cut_square(pixels: np.ndarray, square: Square) -> np.ndarray:
    """Cut a square (side, side) from a film (R, C); zero where it lies outside the film, and only there."""
    rows, columns = pixels.shape
    crop = np.zeros((square.side, square.side), dtype=pixels.dtype)
    top, left = max(0, square.y0), max(0, square.x0)
    bottom, right = min(rows, square.y0 + square.side), min(columns, square.x0 + square.side)
    if top < bottom and left < right:
        inside = crop[top - square.y0 : bottom - square.y0, left - square.x0 : right - square.x0]
        inside[:] = pixels[top:bottom, left:right]
    return crop


def select_component(mask: np.ndarray, component: str) -> tuple[np.ndarray, int]:
    """The parts of a mask (R, C) that count, and how many parts it has (8-connected).

    "union": all; "largest": the one with most pixels, of equal ones the first in reading order.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if component == "largest" and count > 1:
        return parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1, count
    return mask, count


def fit_mask(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A mask (R', C') enlarged or reduced to (rows, columns) by the nearest pixel centre."""
    scales = zip(mask.shape, (rows, columns), strict=True)
    return mask[np.ix_(*(((np.arange(to) + 0.5) * have / to).astype(int) for have, to in scales))]


def _cut_film(
    lesions: list[dict], dicom_dir: Path, component: str, margin: float
) -> Iterator[tuple[dict, np.ndarray | None]]:
    """Yield each lesion of a film, with its facts and its crop (side, side), or with its `reason` and None."""
    try:
        film = _only_film(dicom_dir, lesions[0]["film_uid"])
        pixels = open_pixels(film)
        film_facts = {"film_rows": film.rows, "film_columns": film.columns, "film_sha256": _sha256(pixels)}
    except DicomError as error:
        yield from (({**lesion, "reason": error.message}, None) for lesion in lesions)
        return
    for lesion in lesions:
        try:
            box, mask_facts = _locate(lesion, film, dicom_dir, component)
        except DicomError as error:
            yield {**lesion, "reason": error.message}, None
            continue
        square = square_around(box, margin)
        place = {"x0": square.x0, "y0": square.y0, "side_px": square.side}
        yield {**lesion, **film_facts, **mask_facts, **place}, cut_square(pixels, square)


def _locate(lesion: dict, film: Film, dicom_dir: Path, component: str) -> tuple[Box, dict[str, str]]:
    """The box of a lesion in its film, the series that its mask came from, and the repairs that this took."""
    image = _find_mask(dicom_dir, lesion["mask_uid"], lesion["crop_uid"], film)
    roi_uid = image.path.parent.name
    repairs = [lesion["repairs"]] if lesion["repairs"] else []
    if roi_uid != lesion["mask_uid"]:
        repairs.append("series_swapped")
    mask = open_pixels(image) != 0
    if mask.shape != (film.rows, film.columns):
        mask = fit_mask(mask, film.rows, film.columns)
        repairs.append("mask_resized")
    if not mask.any():
        raise DicomError(f"{image.path} is an empty mask")
    outer = bounding_box(mask)
    part, count = select_component(mask[outer.y0 : outer.y1, outer.x0 : outer.x1], component)
    if count > 1:
        repairs.append(f"components_{component}")
    inner = bounding_box(part)
    box = Box(outer.y0 + inner.y0, outer.x0 + inner.x0, outer.y0 + inner.y1, outer.x0 + inner.x1)
    return box, {"roi_uid": roi_uid, "repairs": ";".join(repairs)}


def _only_film(dicom_dir: Path, film_uid: str) -> Film:
    files = series_files(dicom_dir, film_uid)
    folder = Path(dicom_dir) / film_uid
    if not files:
        raise DicomError(f"{folder} is missing or empty: the lesion has no film")
    if len(files) > 1:
        raise DicomError(f"{folder} holds {len(files)} images, not one film")
    film = read_film(files[0])
    if film.bits != 16:
        raise DicomError(f"{film.path} is a film of {film.bits} bits a pixel, not 16")
    return film


def _find_mask(dicom_dir: Path, mask_uid: str, crop_uid: str, film: Film) -> Film:
    """The mask of a lesion, told from the archive's own crop by what it is.

    Mask and crop lie in one series or in two, in any order, and for one lesion the other way round. The mask is the one
    image of 8 bits that has the film's size or is its rescan; crops have 16 bits. Raises DicomError with what was found
    when there is no such image, or more than one.
    """
    uids = sorted({mask_uid, crop_uid})
    paths = [path for uid in uids for path in series_files(dicom_dir, uid)]
    found, unreadable = [], []
    for path in paths:
        try:
            found.append(read_film(path))
        except DicomError as error:
            unreadable.append(error.message)
    eight_bit = [image for image in found if image.bits == 8]
    masks = [image for image in eight_bit if _fits(image, film)]
    if len(masks) == 1:
        return masks[0]
    if masks:
        what = f"{len(masks)} masks: {' and '.join(str(image.path) for image in masks)}"
    elif eight_bit:
        sizes = ", ".join(f"{image.path} of {image.rows} x {image.columns} px" for image in eight_bit)
        what = f"no mask of the shape of the film of {film.rows} x {film.columns} px but {sizes}"
    else:
        what = "no image of 8 bits, which the mask would be"
    folders = " and ".join(str(Path(dicom_dir) / uid) for uid in uids)
    raise DicomError("; ".join([f"{folders}: {what}", *unreadable]))


def _fits(image: Film, film: Film) -> bool:
    """Whether an image has a film's size, or that of its rescan; anything else would be resized blindly."""
    sides = ((image.rows, film.rows), (image.columns, film.columns))
    same = all(own == whole for own, whole in sides)
    rescan = all(abs(own - RESCAN_SCALE * whole) <= RESCAN_TOLERANCE * whole + 0.5 for own, whole in sides)
    return same or rescan


def _sha256(pixels: np.ndarray) -> str:
    little_endian = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian).hexdigest()


def _write(rows: list[dict], columns: list[str], path: Path) -> None:
    table = pd.DataFrame(rows, columns=columns).sort_values("lesion_id")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
