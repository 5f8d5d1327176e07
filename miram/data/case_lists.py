"""The four case lists of CBIS-DDSM as one table of lesions, joined to DICOM by SeriesInstanceUID.

PatientIDs and file names of the archive are unreliable (some ids lack their prefix, the order of files is arbitrary);
the third part of each path column is the SeriesInstanceUID and always resolves.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    **{"side": r"LEFT|RIGHT", "view": r"CC|MLO", "patient_id": r"[A-Za-z0-9_]+"},
    "pathology": r"BENIGN|BENIGN_WITHOUT_CALLBACK|MALIGNANT",
    **dict.fromkeys(NUMBERS, r"[0-9]{1,4}"),
    **dict.fromkeys(PATHS, SERIES_PATH),
}
SCALES_FROM_ONE = {"breast_density": "density_unknown", "subtlety": "subtlety_unknown"}  # 0 is on neither scale
LABELLED = [*LABELS["mass"], *LABELS["calc"]]
UIDS = list(PATHS.values())
CROP_UIDS = ["crop_uid", "mask_uid"]  # of the archive's own crop: in the first, but for one lesion
CASES = ["kind", "official_split", "patient_id", "breast_density", "side", "view", "abnormality_id", *LABELLED]
CASES += ["assessment", "pathology", "subtlety", *UIDS]
IDENTITY = ["lesion_id", "patient_id", "abnormality", "official_split", "side", "view", "abnormality_id", "pathology"]
COLUMNS = [*IDENTITY, "breast_density", "assessment", "subtlety", *LABELLED, *UIDS, "repairs"]


def read_lesions(csv_dir: Path) -> pd.DataFrame:
    """All lesions of the four case lists in `csv_dir`; see `read_cases` and `lesions_of`."""
    return lesions_of(read_cases(csv_dir))


def read_cases(csv_dir: Path) -> pd.DataFrame:
    """The rows of the four case lists in `csv_dir` in their order, as text: the columns CASES, `path` and `row`.

    `film_uid`, `mask_uid`, `crop_uid`: the series that the list names for the film, the mask and the archive's own
    crop. Raises MiramError naming the file, the column and the value that cannot be right.
    """
    rows = pd.concat([_read_list(Path(csv_dir) / name) for name in CASE_CSVS], ignore_index=True)
    for column, pattern in ALLOWED.items():
        _require(rows, column, rows[column].str.fullmatch(pattern))
    for column in NUMBERS:
        rows[column] = rows[column].astype("int64").astype(str)
    _require(rows, "abnormality_type", rows["abnormality_type"] == rows["kind"].map(ABNORMALITIES))
    for column, uid in PATHS.items():
        rows[uid] = rows[column].str.split("/").str[2].astype(str)
        if uid != "film_uid":  # a film's series are fetched and deleted with it
            _require(rows, column, rows.groupby(uid)["film_uid"].transform("nunique") == 1)
    rows["lesion_id"] = lesion_ids(rows)
    _require(rows, "lesion_id", ~rows["lesion_id"].duplicated())
    return rows[[*CASES, "path", "row"]]


def lesions_of(cases: pd.DataFrame) -> pd.DataFrame:
    """The lesions of rows with the columns CASES, sorted by lesion_id, with the columns COLUMNS.

    `repairs`: words joined by ";", one per corrected value. Values that the lists do not give are empty.
    """
    rows = cases.assign(lesion_id=lesion_ids(cases), abnormality=cases["kind"].map(ABNORMALITIES))
    rows["pathology"] = rows["pathology"].replace("BENIGN_WITHOUT_CALLBACK", "BENIGN")
    for column in NUMBERS:
        rows[column] = rows[column].astype("int64").astype("Int64")
    rows["repairs"] = _blank_unknown(rows)
    return rows[COLUMNS].sort_values("lesion_id", ignore_index=True)


def lesion_ids(cases: pd.DataFrame) -> pd.Series:
    """The lesion_id of each row, unique in the archive: list, patient, side, view and abnormality."""
    prefix = cases["kind"].str.capitalize() + "-" + cases["official_split"].map(PARTS)
    parts = cases[["patient_id", "side", "view", "abnormality_id"]].astype(str)
    return prefix.str.cat(parts, sep="_")


def is_lesion_id(text: str) -> bool:
    """Whether a text has the form of a lesion_id."""
    return re.fullmatch(r"(Mass|Calc)-(Training|Test)_\w+_(LEFT|RIGHT)_(CC|MLO)_\d+", text, re.ASCII) is not None


def needed_series(lesions: pd.DataFrame, columns: Sequence[str] = UIDS) -> list[str]:
    """The unique SeriesInstanceUIDs in these columns, from which the crops of `lesions` are made, sorted."""
    return sorted(set(lesions[list(columns)].to_numpy().ravel()))


def catalogue_overlap(lesions: pd.DataFrame) -> dict[str, Any]:
    """How the two official parts overlap, from the columns patient_id, official_split, film_uid, side and view.

    `patients` are those in both. Then follow each part's lesions of these patients, the shared films and views, and the
    test lesions on a shared view, whose films are probably the same.
    """
    train, test = (lesions[lesions["official_split"] == part] for part in ("train", "test"))
    patients = sorted(set(train["patient_id"]) & set(test["patient_id"]))
    on_shared_view = views(test).isin(views(train).dropna())
    return {
        "patients": patients,
        "train_lesions": len(train),
        "test_lesions": len(test),
        "train_lesions_of_patients_in_both": int(train["patient_id"].isin(patients).sum()),
        "test_lesions_of_patients_in_both": int(test["patient_id"].isin(patients).sum()),
        "film_uids_in_both": len(set(train["film_uid"]) & set(test["film_uid"])),
        "views_in_both": views(test)[on_shared_view].nunique(),
        "test_lesions_on_a_view_in_both": int(on_shared_view.sum()),
    }


def leak_in_words(lesions: pd.DataFrame) -> str:
    """The result of `catalogue_overlap` in one line."""
    found = catalogue_overlap(lesions)
    return (
        f"leak: {len(found['patients'])} patients are in both official parts; of them are "
        f"{found['test_lesions_of_patients_in_both']} of {found['test_lesions']} test lesions and "
        f"{found['train_lesions_of_patients_in_both']} of {found['train_lesions']} training lesions"
    )


def views(lesions: pd.DataFrame) -> pd.Series:
    """Patient, side and view of each row; missing where the view is unknown."""
    views = lesions["patient_id"] + " " + lesions["side"] + " " + lesions["view"]
    return views.where(lesions["view"] != "")


def _read_list(path: Path) -> pd.DataFrame:
    """The rows of one list as text, with the columns common to all lists and `path` and `row`."""
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
        raise _wrong(path, f"lacks the columns {missing}" if missing else "contains no lesion")
    rows = rows.reindex(columns=[*REQUIRED, *LABELLED], fill_value="")
    rows = rows.apply(lambda column: column.str.strip())  # a line break ends one of the quoted paths of each row
    origin = {"path": str(path), "row": range(1, len(rows) + 1), "kind": kind, "official_split": part}
    return rows.replace("N/A", "").assign(**origin)


def _blank_unknown(rows: pd.DataFrame) -> pd.Series:
    """Blank the zeros of scales that begin at 1, in place, and return the words for them per row."""
    words = pd.Series("", index=rows.index)
    for column, word in SCALES_FROM_ONE.items():
        unknown = rows[column] == 0
        rows.loc[unknown, column] = pd.NA
        words[unknown] += f";{word}"
    return words.str.removeprefix(";")


def _require(rows: pd.DataFrame, column: str, allowed: pd.Series) -> None:
    if not allowed.all():
        row = rows[~allowed].iloc[0]
        raise _wrong(row["path"], f"holds {column} = {row[column]!r}, which is not valid, in its lesion {row['row']}")


def _wrong(path: Path | str, what: str) -> MiramError:
    return MiramError(f"The case list {path} {what}.", "Delete the file and run `miram catalogue` again.")
