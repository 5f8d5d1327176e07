"""A data set of one's own: a folder of grey images, and a table of what they show; the same tables and crops come out.

The table is CSV with the columns image (path below the folder), patient, label (any words) and, where the test set is
given, split (train | test); others are not read. An image is a "film" with one "lesion", which is all of it.
"""

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from pydicom import dcmread

from miram.data.cutting import BACKGROUND_COLUMNS, LESION_COLUMNS, SET_ASIDE_COLUMNS, reduced, save_png
from miram.data.dicom import DicomError, open_pixels, read_film
from miram.data.geometry import Box, cut_window, window_around
from miram.data.pictures import decode
from miram.data.rows import remove_others, rows_of, write_rows
from miram.data.tasks import OWN
from miram.errors import MiramError
from miram.files import sha256_pixels
from miram.progress import track

REQUIRED = ("image", "patient", "label")
MODES = {"L": 8, "I;16": 0}  # Pillow's grey modes, with the bits by which a pixel is shifted to fill 16
PARTS = ("train", "test")  # words of the column split; validation is drawn from train
REMEDY = "Mend the table that sources.images.table_csv names."


def import_images(
    crops_dir: Path,
    lesions_csv: Path,
    set_aside_csv: Path,
    backgrounds_csv: Path,
    *,
    folder: str,
    table_csv: str,
    shape: str,
    margin: float,
    side_min: int,
    bits: int,
) -> dict[str, object]:
    """Write `crops_dir`/<lesion_id>.png and a row in `lesions_csv` for each image, or a row in `set_aside_csv`.

    Crops are windows around the whole image, see `window_around`, of `bits` a pixel; `lesions_csv` has the columns
    LESION_COLUMNS, blank where nothing is known, and `label`. There are no backgrounds. Returns counts. Raises
    MiramError for a fault of the table, and when fewer than two classes are left.
    """
    rows = read_table(Path(table_csv), Path(folder))
    done, aside = [], []
    for row in track(rows_of(rows), "images", total=len(rows)):
        try:
            pixels = read_image(Path(folder) / row["film_uid"])
        except DicomError as error:
            aside.append({**row, "reason": error.message})
            continue
        whole = Box(0, 0, *pixels.shape)
        window = window_around(whole, shape=shape, margin=margin, side_min=side_min)
        crop = reduced(cut_window(pixels, window), bits)
        save_png(crop, Path(crops_dir) / f"{row['lesion_id']}.png")
        done.append(
            {
                **row,
                **{"film_rows": whole.y1, "film_columns": whole.x1, "film_sha256": sha256_pixels(pixels)},
                **{"box_x0": 0, "box_y0": 0, "box_columns": whole.x1, "box_rows": whole.y1},
                **{"x0": window.x0, "y0": window.y0, "crop_columns": window.shape[1], "crop_rows": window.shape[0]},
                "crop_sha256": sha256_pixels(crop),
            }
        )
    labels = sorted({row[OWN] for row in done})
    if len(labels) < 2:
        reasons = f"; {aside[0]['film_uid']}: {aside[0]['reason']}" if aside else ""
        raise MiramError(
            f"{table_csv}: {len(done)} of {len(rows)} images can be read, of {len(labels)} classes{reasons}.",
            "Two classes are the least that can be told apart.",
        )
    remove_others(Path(crops_dir), {row["lesion_id"] for row in done})
    write_rows(aside, SET_ASIDE_COLUMNS, Path(set_aside_csv))
    write_rows([], BACKGROUND_COLUMNS, Path(backgrounds_csv))
    write_rows(done, [*LESION_COLUMNS, OWN], Path(lesions_csv))
    counts = {label: sum(row[OWN] == label for row in done) for label in labels}
    return {"images": len(done), "set_aside": len(aside), "classes": counts}


def image_paths(table_csv: Path, folder: Path) -> list[Path]:
    """The images that a table names. Raises as `read_table`."""
    return [Path(folder) / name for name in read_table(table_csv, folder)["film_uid"]]


def read_table(table_csv: Path, folder: Path) -> pd.DataFrame:
    """A row an image: lesion_id, patient_id, official_split, film_uid (its path below `folder`), label.

    Raises MiramError naming the table and the row or column that cannot be right.
    """
    try:
        table = pd.read_csv(table_csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MiramError(
            f"There is no table {table_csv}.", "Name it in params.yaml: sources.images.table_csv."
        ) from error
    except (OSError, ValueError) as error:
        raise MiramError(f"{table_csv} cannot be read as CSV: {error}.", REMEDY) from error
    missing = [name for name in REQUIRED if name not in table]
    if missing or table.empty:
        what = f"lacks the column {', '.join(missing)}" if missing else "names no image"
        raise MiramError(f"{table_csv} {what}.", f"It has the columns {', '.join(REQUIRED)} and, if you like, split.")
    given = [name for name in (*REQUIRED, "split") if name in table]
    table = table[given].apply(lambda column: column.str.strip())
    for name in REQUIRED:
        _require(table, name, table[name] != "", table_csv)
    _require(table, "image", ~table["image"].duplicated(), table_csv, "which stands twice")
    if "split" in table:
        _require(table, "split", table["split"].isin(PARTS), table_csv, f"allowed: {', '.join(PARTS)}")
    inside = table["image"].map(lambda name: _is_below(folder, name))
    _require(table, "image", inside, table_csv, f"which leads out of {folder}")
    plain = table["image"].map(lambda name: not set("{}") & set(str(folder / name)))
    _require(table, "image", plain, table_csv, "in whose path a brace would be a wildcard of the workflow")
    there = table["image"].map(lambda name: (folder / name).is_file())
    _require(table, "image", there, table_csv, f"which is not in {folder}")
    names = table["image"].map(lambda name: re.sub(r"[^A-Za-z0-9._-]", "_", str(PurePosixPath(name).with_suffix(""))))
    _require(table, "image", ~names.duplicated(), table_csv, "which reads like another one without suffix and folders")
    return pd.DataFrame(
        {
            "lesion_id": "Image_" + names,
            "patient_id": table["patient"],
            "official_split": table.get("split", ""),
            "film_uid": table["image"],
            OWN: table["label"],
        }
    )


def read_image(path: Path) -> np.ndarray:
    """A grey image as (R, C) uint16, over its whole range: DICOM, or anything that Pillow reads, of 8 or 16 bits.

    Raises DicomError with the reason when it cannot be used.
    """
    if path.suffix.lower() in (".dcm", ".dicom"):
        film = read_film(path)
        stored = dcmread(path, stop_before_pixels=True, specific_tags=["BitsStored"]).get("BitsStored")
        pixels = open_pixels(film)
        if stored not in range(1, film.bits + 1) or int(pixels.max()) >> stored:
            raise DicomError(f"{path} has BitsStored = {stored}, and a pixel of {int(pixels.max())}")
        return pixels.astype(np.uint16) << (16 - stored)
    try:
        image = decode(path)
    except MiramError as error:
        raise DicomError(error.message) from error
    if image.mode not in MODES:
        raise DicomError(f"{path} is not grey of 8 or 16 bits, but of Pillow's mode {image.mode}")
    return np.asarray(image).astype(np.uint16) << MODES[image.mode]


def _is_below(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _require(table: pd.DataFrame, column: str, allowed: pd.Series, table_csv: Path, why: str = "") -> None:
    if not allowed.all():
        row = int(np.flatnonzero(~allowed)[0])
        fault = f"{column} = {table[column].iloc[row]!r}" + (f", {why}" if why else ", which is empty")
        raise MiramError(f"{table_csv}: image {row + 1} of the table has {fault}.", REMEDY)
