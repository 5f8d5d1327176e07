"""A data set of one's own: a folder of grey images, and a table of what they show; the same tables and crops come out.

The images are whatever `miram.data.pictures` reads. The table is CSV with the columns image (path below the folder),
patient, label (any words) and, where the test set is given, split (train | test); others are not read. An image is a
"film" with one "lesion", which is all of it.
"""

import hashlib
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miram.data.cutting import BACKGROUND_COLUMNS, LESION_COLUMNS, SET_ASIDE_COLUMNS, reduced, save_png
from miram.data.geometry import Box, cut_window, window_around
from miram.data.pictures.reader import why_absent
from miram.data.pictures.survey import Reading, summary, survey, write_survey
from miram.data.rows import remove_others, rows_of, write_rows
from miram.data.tasks import OWN
from miram.errors import MiramError
from miram.files import sha256_pixels
from miram.progress import track

REQUIRED = ("image", "patient", "label")
SUFFIX = re.compile(r"\.[A-Za-z]\w{1,7}$", re.ASCII)  # of a file's name; the last number of a UID is none
LONGEST = 100  # characters of a name in an id
PARTS = ("train", "test")  # words of the column split; validation is drawn from train
REMEDY = "Mend the table that sources.images.table_csv names."


def import_images(
    crops_dir: Path,
    lesions_csv: Path,
    set_aside_csv: Path,
    backgrounds_csv: Path,
    pictures_csv: Path,
    *,
    folder: str,
    table_csv: str,
    levels: str,
    shape: str,
    margin: float,
    side_min: int,
    bits: int,
) -> dict[str, object]:
    """Write `crops_dir`/<lesion_id>.png and a row in `lesions_csv` for each image, or a row in `set_aside_csv`.

    Crops are windows around the whole image, see `window_around`, of `bits` a pixel, its grey levels scaled by the rule
    `levels`, see `miram.data.pictures.levels`; `lesions_csv` has the columns LESION_COLUMNS, blank where nothing is
    known, and `label`. `pictures_csv` gets what was found in each file. There are no backgrounds. Returns counts, and
    the range of each kind of file, with which `predict` reads. Raises MiramError for a fault of the table, and when
    fewer than two classes are left.
    """
    rows = rows_of(read_table(Path(table_csv), Path(folder)))
    paths = {row["film_uid"]: Path(folder) / row["film_uid"] for row in rows}
    found = survey(paths, levels, partial(track, description="images, looked at", total=len(paths)))
    print(summary(found, levels), flush=True)
    aside = [{**row, "reason": found.aside[row["film_uid"]]} for row in rows if row["film_uid"] in found.aside]
    good = [row for row in rows if row["film_uid"] in found.rows]
    counts = dict(sorted(Counter(row[OWN] for row in good).items()))
    if len(counts) < 2:
        reasons = f"; {aside[0]['film_uid']}: {aside[0]['reason']}" if aside else ""
        raise MiramError(
            f"{table_csv}: {len(good)} of {len(rows)} images can be read, of {len(counts)} classes{reasons}.",
            "Two classes are the least that can be told apart.",
        )
    reading = Reading(levels, found.ranges, {"shape": shape, "margin": margin, "side_min": side_min})
    done = [
        {**row, **_cut(paths[row["film_uid"]], reading, bits, Path(crops_dir) / f"{row['lesion_id']}.png")}
        for row in track(good, "images, cut")
    ]
    remove_others(Path(crops_dir), {row["lesion_id"] for row in done})
    write_survey(found, Path(pictures_csv))
    write_rows(aside, SET_ASIDE_COLUMNS, Path(set_aside_csv))
    write_rows([], BACKGROUND_COLUMNS, Path(backgrounds_csv))
    write_rows(done, [*LESION_COLUMNS, OWN], Path(lesions_csv))
    return {"images": len(done), "set_aside": len(aside), "classes": counts, "ranges": found.ranges}


def _cut(path: Path, reading: Reading, bits: int, png: Path) -> dict[str, Any]:
    """Write the crop of a whole image; gives what `lesions_csv` says of it."""
    pixels, _ = reading.read(path)
    whole = Box(0, 0, *pixels.shape)
    window = window_around(whole, **(reading.window or {}))
    crop = reduced(cut_window(pixels, window), bits)
    save_png(crop, png)
    return {
        **{"film_rows": whole.y1, "film_columns": whole.x1, "film_sha256": sha256_pixels(pixels)},
        **{"box_x0": 0, "box_y0": 0, "box_columns": whole.x1, "box_rows": whole.y1},
        **{"x0": window.x0, "y0": window.y0, "crop_columns": window.shape[1], "crop_rows": window.shape[0]},
        "crop_sha256": sha256_pixels(crop),
    }


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
    inside = table["image"].map(_is_below)
    _require(table, "image", inside, table_csv, f"which leads out of {folder}")
    plain = table["image"].map(lambda name: not set("{}") & set(str(folder / name)))
    _require(table, "image", plain, table_csv, "in whose path a brace would be a wildcard of the workflow")
    there = table["image"].map(lambda name: (folder / name).is_file())
    absent = "" if there.all() else why_absent(folder / table["image"][~there].iloc[0])
    _require(table, "image", there, table_csv, f"which is not in {folder}: it {absent}")
    return pd.DataFrame(
        {
            "lesion_id": identifiers(table["image"]),
            "patient_id": table["patient"],
            "official_split": table.get("split", ""),
            "film_uid": table["image"],
            OWN: table["label"],
        }
    )


def identifiers(images: pd.Series) -> pd.Series:
    """A readable id for each path, of letters, digits and ._- alone; those that read alike get their digest too."""
    readable = images.map(lambda name: re.sub(r"[^A-Za-z0-9._-]", "_", SUFFIX.sub("", name)))
    unclear = readable.str.lower().duplicated(keep=False) | (readable.str.len() > LONGEST)
    digest = images.map(lambda name: hashlib.sha256(name.encode()).hexdigest()[:12])
    return "Image_" + readable.where(~unclear, readable.str[:LONGEST] + "_" + digest)


def _is_below(name: str) -> bool:
    """Whether a path stays below a folder as it is written; links may lead out."""
    return not Path(name).is_absolute() and Path(os.path.normpath(name)).parts[:1] != ("..",)


def _require(table: pd.DataFrame, column: str, allowed: pd.Series, table_csv: Path, why: str = "") -> None:
    if not allowed.all():
        row = int(np.flatnonzero(~allowed)[0])
        fault = f"{column} = {table[column].iloc[row]!r}" + (f", {why}" if why else ", which is empty")
        raise MiramError(f"{table_csv}: image {row + 1} of the table has {fault}.", REMEDY)
