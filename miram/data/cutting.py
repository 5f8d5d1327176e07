"""Lesion crops: the window around a lesion's mask, cut from the whole film at its native size.

Films, masks and crops are (R, C) arrays; positions are film pixels, x along columns, y along rows. The rules that
correct errors of the archive are at the functions that apply them; lesions that none saves are set aside with a reason.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from miram.data.backgrounds import sample_squares
from miram.data.breast import Areas, find_areas, shares
from miram.data.case_lists import COLUMNS as CATALOGUE_COLUMNS
from miram.data.case_lists import PATHS
from miram.data.crop_rules import Cutting
from miram.data.dicom import DicomError, Film, open_pixels, read_film, read_pixels, series_files
from miram.data.geometry import Box, cut_window, fit_mask, lesion_box, window_around
from miram.files import atomic_path, sha256_pixels

# Some masks were drawn on a rescan at 50 um of a film at 43.5 um: 0.87 of its rows and columns. Of the 74 whose scale
# follows from the file size, all are within 0.0003 of that.
RESCAN_SCALE = 0.87
RESCAN_TOLERANCE = 0.005
LESION_COLUMNS = [
    *(name for name in CATALOGUE_COLUMNS if name not in {*PATHS.values(), "repairs"}),
    *("film_uid", "roi_uid", "film_rows", "film_columns", "box_x0", "box_y0", "box_columns", "box_rows"),
    *("x0", "y0", "crop_columns", "crop_rows", "outside_film", "air", "foreign"),
    *("repairs", "film_sha256", "crop_sha256"),
]
BACKGROUND_COLUMNS = ["background_id", "patient_id", "film_uid", "official_split", "x0", "y0", "side_px"]
SET_ASIDE_COLUMNS = ["lesion_id", "patient_id", "official_split", "side", "view", "film_uid", "reason"]


class Opened(NamedTuple):
    """A film, its pixels (R, C) for reading windows, and its areas."""

    film: Film
    pixels: np.ndarray
    areas: Areas


def open_only(
    dicom_dir: Path, film_uid: str, *, air: float, open_film: Callable[[Film], np.ndarray] = open_pixels
) -> Opened:
    """The film of a series; for `air` see `find_areas`. Raises DicomError unless it holds one usable film.

    `open_film` returns something with a shape, a dtype and two-dimensional slices, also with steps.
    """
    files = series_files(dicom_dir, film_uid)
    folder = Path(dicom_dir) / film_uid
    if not files:
        raise DicomError(f"{folder} is missing or empty: the lesion has no film")
    if len(files) > 1:
        raise DicomError(f"{folder} holds {len(files)} images, not one film")
    film = read_film(files[0])
    if film.bits != 16:
        raise DicomError(f"{film.path} is a film of {film.bits} bits per pixel, not 16")
    pixels = open_film(film)
    return Opened(film, pixels, find_areas(pixels, air))


def cut_film(
    lesions: list[dict], opened: Opened, dicom_dir: Path, cutting: Cutting
) -> Iterator[tuple[dict, np.ndarray | None]]:
    """Yield each of the lesions of one film with its facts and its crop, or with its `reason` and None.

    The facts are the columns LESION_COLUMNS; crops are uint8 or uint16, by `bits`. For `component` see
    `select_component`; for `shape`, `margin` and `side_min` `window_around`. Pixels that are an array are read whole
    for their hash; otherwise `film_sha256` is empty: unknown.
    """
    film, pixels, areas = opened
    known = isinstance(pixels, np.ndarray)
    film_facts = {
        "film_rows": film.rows,
        "film_columns": film.columns,
        "film_sha256": sha256_pixels(pixels) if known else "",
    }
    for lesion in lesions:
        try:
            box, mask_facts = _locate(lesion, film, dicom_dir, cutting.component)
        except DicomError as error:
            yield {**lesion, "reason": error.message}, None
            continue
        window = window_around(box, shape=cutting.shape, margin=cutting.margin, side_min=cutting.side_min)
        crop = reduced(cut_window(pixels, window), cutting.bits)
        border = shares(areas, window, (film.rows, film.columns))
        place = place_facts(box, window)
        yield {**lesion, **film_facts, **mask_facts, **place, **border, "crop_sha256": sha256_pixels(crop)}, crop


def cut_backgrounds(lesions: list[dict], opened: Opened, cutting: Cutting) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield patches of breast away from the lesions that `cut_film` located in a film, each with its facts.

    The facts are the columns BACKGROUND_COLUMNS; sides are those of the film's crops. A film of the test set gives
    none, nor does one whose lesions are not all located. A lesion that the case lists give under another UID of the
    same film is not known here.
    """
    if any(lesion["official_split"] == "test" or "reason" in lesion for lesion in lesions):
        return
    if not cutting.backgrounds_per_film:
        return
    film, pixels, areas = opened
    windows = [
        Box(row["y0"], row["x0"], row["y0"] + row["crop_rows"], row["x0"] + row["crop_columns"]) for row in lesions
    ]
    squares = sample_squares(
        areas,
        (film.rows, film.columns),
        avoid=windows,
        sides=[max(window.shape) for window in windows],
        count=cutting.backgrounds_per_film,
        random=np.random.default_rng([cutting.backgrounds_seed, *lesions[0]["film_uid"].encode()]),
    )
    common = {name: lesions[0][name] for name in ("patient_id", "film_uid", "official_split")}
    for number, square in enumerate(squares):
        name = f"background_{common['film_uid']}_{number}"
        place = {"x0": square.x0, "y0": square.y0, "side_px": square.shape[0]}
        yield {"background_id": name, **common, **place}, reduced(cut_window(pixels, square), cutting.bits)


def place_facts(box: Box, window: Box) -> dict[str, int]:
    """The columns of the table of lesions for a box and the window that is cut around it, px."""
    return {
        **{"box_x0": box.x0, "box_y0": box.y0, "box_columns": box.shape[1], "box_rows": box.shape[0]},
        **{"x0": window.x0, "y0": window.y0, "crop_columns": window.shape[1], "crop_rows": window.shape[0]},
    }


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Write a grey image, uint8 or uint16, as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _locate(lesion: dict, film: Film, dicom_dir: Path, component: str) -> tuple[Box, dict[str, str]]:
    """The box of a lesion in its film, the series that its mask came from, and the repairs that this took."""
    image = _find_mask(dicom_dir, lesion["mask_uid"], lesion["crop_uid"], film)
    roi_uid = image.path.parent.name
    repairs = [lesion["repairs"]] if lesion["repairs"] else []
    if roi_uid != lesion["mask_uid"]:
        repairs.append("series_swapped")
    mask = read_pixels(image) != 0
    if mask.shape != (film.rows, film.columns):
        mask = fit_mask(mask, film.rows, film.columns)
        repairs.append("mask_resized")
    if not mask.any():
        raise DicomError(f"{image.path} is an empty mask")
    box, count = lesion_box(mask, component)
    if count > 1:
        repairs.append(f"components_{component}")
    return box, {"roi_uid": roi_uid, "repairs": ";".join(repairs)}


def _find_mask(dicom_dir: Path, mask_uid: str, crop_uid: str, film: Film) -> Film:
    """The mask of a lesion, distinguished from the archive's own crop by its content.

    Mask and crop are in one series or in two, in any order, and for one lesion swapped. The mask is the only 8-bit
    image that has the film's size or that of its rescan; crops have 16 bits. Raises DicomError that lists the images if
    there is no such image, or more than one.
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
        what = f"no mask with the shape of the film of {film.rows} x {film.columns} px but {sizes}"
    else:
        what = "no 8-bit image, as a mask would be"
    folders = " and ".join(str(Path(dicom_dir) / uid) for uid in uids)
    raise DicomError("; ".join([f"{folders}: {what}", *unreadable]))


def _fits(image: Film, film: Film) -> bool:
    """Whether an image has a film's size, or that of its rescan; anything else would be resized blindly."""
    sides = ((image.rows, film.rows), (image.columns, film.columns))
    same = all(own == whole for own, whole in sides)
    rescan = all(abs(own - RESCAN_SCALE * whole) <= RESCAN_TOLERANCE * whole + 0.5 for own, whole in sides)
    return same or rescan


def reduced(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Pixels of 16 bits as they are, or their high bytes, as the authors' code takes them."""
    return pixels if bits == 16 else (pixels >> 8).astype(np.uint8)
