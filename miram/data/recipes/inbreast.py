"""INbreast: `INbreast.csv`, AllDICOMs/*.dcm and AllXML/*.xml.

The format is taken from public code that loads the data set: the table is separated by ";" and has one row per film,
named by its number; a DICOM file is named NUMBER_PATIENT_MG_SIDE_VIEW_ANON.dcm, as the table has no patients; an XML
file is a property list, Images[0].ROIs[], each with Name and Point_px, texts "(x, y)" in px from the upper left corner.

The labels are not pathology: a lesion gets the BI-RADS category of its film, 1 to 3 as benign, 4 to 6 as malignant.
Calcifications outlined one by one are left out; clusters count.
"""

import plistlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from miram.data.pictures.dicom import dicom_size
from miram.data.recipes.table import (
    BENIGN,
    CALC,
    MALIGNANT,
    MASS,
    REMEDY,
    Finding,
    box_of,
    only_file,
    read_csv,
    refused,
)
from miram.errors import MiramError

TABLE_COLUMNS = ("Laterality", "View", "File Name", "ACR", "Bi-Rads")
SEVERITIES = {**dict.fromkeys("123", BENIGN), **dict.fromkeys(("4", "4a", "4b", "4c", "5", "6"), MALIGNANT)}
UNDECIDED = "0"  # BI-RADS: further imaging is needed
KINDS = {"mass": MASS, "cluster": CALC}  # the other names are kinds of their own
SINGLE = ("calcification", "calcifications")


def findings(folder: Path) -> Iterator[Finding | str]:
    """The outlined lesions of the films in the table. Raises MiramError naming the first wrong line or picture."""
    table = only_file(folder, "INbreast.csv")
    films = {path.name.partition("_")[0]: path for path in sorted(folder.rglob("*.dcm"))}
    outlines = {path.stem: path for path in sorted(folder.rglob("*.xml"))}
    for line, row in enumerate(read_csv(table, TABLE_COLUMNS, ";").to_dict("records"), start=2):
        number, category = row["File Name"], row["Bi-Rads"].lower()
        if not any(row.values()):
            continue
        if category not in SEVERITIES and category != UNDECIDED:
            raise refused(table, line, f"Bi-Rads = {category!r}, allowed: 0 to 6, 4a, 4b and 4c")
        if category == UNDECIDED:
            yield "film of BI-RADS 0: incomplete assessment"
        elif number not in outlines:
            yield "film without an outlined lesion"
        elif number not in films:
            yield "its picture is missing"
        else:
            groups = {"side": row["Laterality"], "view": row["View"], "density": row["ACR"], "birads": category}
            yield from _lesions(films[number], outlines[number], SEVERITIES[category], groups)


def _lesions(film: Path, outline: Path, severity: str, groups: dict[str, str]) -> Iterator[Finding | str]:
    size = dicom_size(film)
    patient = film.name.split("_")[1] if "_" in film.name else film.stem
    for name, points in _regions(outline):
        if name.lower() in SINGLE:
            yield "single calcification, outlined by itself"
        elif len(points) < 3:
            yield "outline of fewer than 3 points"
        else:
            kind = KINDS.get(name.lower(), name.upper() or "UNNAMED")
            box = box_of(points, *size)
            yield Finding(film, patient, severity, kind, box, "", {**groups, "finding": kind.lower()})


def _regions(outline: Path) -> list[tuple[str, list[tuple[float, float]]]]:
    """Name and points (x, y) of each region. Raises MiramError if the file has another format."""
    try:
        regions: list[dict[str, Any]] = plistlib.loads(outline.read_bytes(), fmt=plistlib.FMT_XML)["Images"][0]["ROIs"]
        return [(str(region.get("Name", "")).strip(), list(map(_point, region["Point_px"]))) for region in regions]
    except (ExpatError, plistlib.InvalidFileException, LookupError, TypeError, ValueError) as error:
        raise MiramError(f"{outline} is not an outline of INbreast: {error!r}.", REMEDY) from error


def _point(text: str) -> tuple[float, float]:
    x, y = text.strip("() ").split(",")
    return float(x), float(y)
