"""CMMD: the DICOM files of the collection, from TCIA or IDC in any layout, and `CMMD_clinicaldata_revision.xlsx`.

The format is taken from public code that loads the data set: the table (also as .csv) has one row per breast with ID1,
LeftRight (L, R), abnormality (mass, calcification, both), classification (Benign, Malignant) and subtype; the DICOM
headers give PatientID (which is ID1), ImageLaterality and, as a SNOMED code in ViewCodeSequence, the view.

The classification was confirmed by biopsy. Lesions are not marked: the label applies to the whole picture.
"""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from miram.data.recipes.table import BENIGN, CALC, MALIGNANT, MASS, Finding, checked, only_file, read_csv, refused
from miram.data.recipes.xlsx import read_xlsx

NAMES = ("CMMD_clinicaldata_revision.xlsx", "CMMD_clinicaldata_revision.csv")
TABLE_COLUMNS = ("ID1", "LeftRight", "abnormality", "classification", "subtype")
SEVERITIES = {"benign": BENIGN, "malignant": MALIGNANT}
KINDS = {"mass": MASS, "calcification": CALC, "both": "BOTH"}
VIEWS = {"399162004": "CC", "399368009": "MLO"}  # codes of SNOMED CT
HEADER = ["PatientID", "ImageLaterality", "ViewPosition", "ViewCodeSequence", "Rows"]


def findings(folder: Path) -> Iterator[Finding | str]:
    """The pictures of the breasts in the table. Raises MiramError naming the first wrong line."""
    breasts, pictured = _breasts(only_file(folder, *NAMES)), set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header: Dataset = dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
        except InvalidDicomError:
            continue  # the table, lists and licences
        except Exception:  # a damaged header makes pydicom raise nearly anything
            header = Dataset()
        if not header.get("Rows"):
            yield "its picture cannot be read"
            continue
        breast = str(header.get("PatientID", "")), str(header.get("ImageLaterality", ""))
        if breast in breasts:
            pictured.add(breast)
            severity, kind, subtype = breasts[breast]
            groups = {"side": breast[1], "view": _view(header), "finding": kind.lower(), "subtype": subtype}
            yield Finding(path, breast[0], severity, kind, None, "", groups)
        else:
            yield "picture of a breast that the table does not name"
    yield from ["breast of the table without a picture"] * len(breasts.keys() - pictured)


def _breasts(path: Path) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Patient and side -> severity, kind and subtype."""
    if path.suffix.lower() == ".xlsx":
        table = checked(path, read_xlsx(path), TABLE_COLUMNS)
    else:
        table = read_csv(path, TABLE_COLUMNS)
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for line, row in enumerate(table.to_dict("records"), start=2):
        if not any(row.values()):
            continue
        breast, told = _told(path, line, row)
        found.setdefault(breast, []).append(told)
        if found[breast][0][0] != told[0]:
            raise refused(path, line, f"{' '.join(breast)} is benign in one row and malignant in another")
    return {breast: _joined(rows) for breast, rows in found.items()}


def _joined(rows: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    severities, kinds, subtypes = (list(dict.fromkeys(values)) for values in zip(*rows, strict=True))
    return severities[0], kinds[0] if len(kinds) == 1 else KINDS["both"], ", ".join(filter(None, subtypes))


def _told(path: Path, line: int, row: Mapping[Hashable, str]) -> tuple[tuple[str, str], tuple[str, str, str]]:
    severity, kind = SEVERITIES.get(row["classification"].lower()), KINDS.get(row["abnormality"].lower())
    if severity is None or kind is None or row["LeftRight"] not in ("L", "R"):
        told = ", ".join(f"{name} = {row[name]!r}" for name in TABLE_COLUMNS[1:4])
        raise refused(path, line, told)
    return (row["ID1"], row["LeftRight"]), (severity, kind, row["subtype"])


def _view(header: Dataset) -> str:
    codes = header.get("ViewCodeSequence") or [Dataset()]
    return str(header.get("ViewPosition") or VIEWS.get(str(codes[0].get("CodeValue", "")), ""))
