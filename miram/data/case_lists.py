"""The four case lists of CBIS-DDSM as one table of lesions, joined to DICOM by SeriesInstanceUID.

PatientIDs and file names of the archive are unreliable (some ids lack their prefix, the order of files is arbitrary);
the third part of each path column is the SeriesInstanceUID and always resolves.
"""

import re
from pathlib import Path

import pandas as pd

from miram.errors import MiramError
from miram.layout import CASE_CSVS

PATHS = {"image_file_path": "film_uid", "roi_mask_file_path": "mask_uid", "cropped_image_file_path": "crop_uid"}
RENAMED = {"left_or_right_breast": "side", "image_view": "view"}
LABELS = {"mass": ["mass_shape", "mass_margins"], "calc": ["calc_type", "calc_distribution"]}
NUMBERS = ["abnormality_id", "breast_density", "assessment", "subtlety"]
REQUIRED = ["patient_id", "abnormality_type", "pathology", *NUMBERS, *RENAMED.values(), *PATHS]
ABNORMALITIES = {"mass": "mass", "calc": "calcification"}
PARTS = {"train": "Training", "test": "Test"}
SERIES_PATH = r"[^/\s]+/[^/\s]+/[0-9]+(\.[0-9]+)+/[^/\s]+"  # description, study, series, file
ALLOWED = {
    **{"side": r"LEFT|RIGHT", "view": r"CC|MLO", "pathology": r"BENIGN|MALIGNANT", "patient_id": r"[A-Za-z0-9_]+"},
    **dict.fromkeys(NUMBERS, r"[0-9]{1,4}"),
    **dict.fromkeys(PATHS, SERIES_PATH),
}
SCALES_FROM_ONE = {"breast_density": "density_unknown", "subtlety": "subtlety_unknown"}  # 0 is on neither scale

IDENTITY = ["lesion_id", "patient_id", "abnormality", "official_split", "side", "view", "abnormality_id", "pathology"]
COLUMNS = [*IDENTITY, "breast_density", "assessment", "subtlety", *LABELS["mass"], *LABELS["calc"]]
COLUMNS += [*PATHS.values(), "repairs"]


def read_lesions(csv_dir: Path) -> pd.DataFrame:
    """All lesions of the four case lists in `csv_dir`, sorted by lesion_id, with the columns COLUMNS.

    `film_uid`, `mask_uid`, `crop_uid`: the series that the list names for the film, the mask and the archive's own
    crop. `repairs`: words joined by ";", one for each value that had to be mended. What the lists do not know is empty.
    Raises MiramError naming the file, the column and the value that cannot be right.
    """
    rows = pd.concat([_read_list(Path(csv_dir) / name) for name in CASE_CSVS], ignore_index=True)
    rows["pathology"] = rows["pathology"].replace("BENIGN_WITHOUT_CALLBACK", "BENIGN")
    for column, pattern in ALLOWED.items():
        _require(rows, column, rows[column].str.fullmatch(pattern))
    _require(rows, "abnormality_type", rows["abnormality_type"] == rows["abnormality"])
    for column in NUMBERS:
        rows[column] = rows[column].astype("int64").astype("Int64")
    for column, uid in PATHS.items():
        rows[uid] = rows[column].str.split("/").str[2]
        if uid != "film_uid":  # a film's series come and go with it
            _require(rows, column, rows.groupby(uid)["film_uid"].transform("nunique") == 1)
    rows["repairs"] = _blank_unknown(rows)
    prefix = rows["kind"].str.capitalize() + "-" + rows["official_split"].map(PARTS)
    parts = rows[["patient_id", "side", "view", "abnormality_id"]].astype(str)
    rows["lesion_id"] = prefix.str.cat(parts, sep="_")
    _require(rows, "lesion_id", ~rows["lesion_id"].duplicated())
    return rows[COLUMNS].sort_values("lesion_id", ignore_index=True)


def needed_series(lesions: pd.DataFrame) -> list[str]:
    """The SeriesInstanceUIDs that the crops of `lesions` are cut from, sorted, each once."""
    return sorted(set(lesions[list(PATHS.values())].to_numpy().ravel()))


def _read_list(path: Path) -> pd.DataFrame:
    """The rows of one list as text, with the columns of all lists and where they come from."""
    kind, _, _, part, _ = path.stem.split("_")  # mass_case_description_train_set
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MiramError(f"The case list {path} is missing.", "Run `miram catalogue`.") from error
    except ValueError as error:
        raise _wrong(path, f"cannot be read as CSV: {error}") from error
    # "breast density" in one list is "breast_density" in the next
    rows = rows.rename(columns=lambda name: re.sub(r"\W+", "_", name.strip().lower())).rename(columns=RENAMED)
    missing = [name for name in [*REQUIRED, *LABELS[kind]] if name not in rows]
    if missing or rows.empty:
        raise _wrong(path, f"lacks the columns {missing}" if missing else "holds no lesion")
    rows = rows.reindex(columns=[*REQUIRED, *LABELS["mass"], *LABELS["calc"]], fill_value="")
    rows = rows.apply(lambda column: column.str.strip())  # a line break ends one of the quoted paths of each row
    origin = {"path": str(path), "row": range(1, len(rows) + 1), "kind": kind, "official_split": part}
    return rows.replace("N/A", "").assign(abnormality=ABNORMALITIES[kind], **origin)


def _blank_unknown(rows: pd.DataFrame) -> pd.Series:
    """Blank the zeros of scales that begin at 1, in place, and return each row's words for them."""
    words = pd.Series("", index=rows.index)
    for column, word in SCALES_FROM_ONE.items():
        unknown = rows[column] == 0
        rows.loc[unknown, column] = pd.NA
        words[unknown] += f";{word}"
    return words.str.removeprefix(";")


def _require(rows: pd.DataFrame, column: str, allowed: pd.Series) -> None:
    if not allowed.all():
        row = rows[~allowed].iloc[0]
        raise _wrong(row["path"], f"holds {column} = {row[column]!r}, which cannot be, in its lesion {row['row']}")


def _wrong(path: Path | str, what: str) -> MiramError:
    return MiramError(f"The case list {path} {what}.", "Delete the file and run `miram catalogue` again.")
