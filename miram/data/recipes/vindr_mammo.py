"""VinDr-Mammo: `finding_annotations.csv`, images/STUDY/IMAGE.dicom and, if it is there, `metadata.csv`.

The format is taken from a repository that quotes the data set's description, and from public code: one row per finding,
with a box xmin, ymin, xmax, ymax in px, finding_categories such as "['Mass']", finding_birads such as "BI-RADS 4", and
split (training, test). Rows of films without a finding say "['No Finding']" and have no box.

The labels are not pathology: BI-RADS 3 counts as benign, 4 and 5 as malignant; benign findings of BI-RADS 2 are not
marked in the data set. It names studies, not patients: each study counts as one patient.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from miram.data.recipes.table import BENIGN, CALC, MALIGNANT, MASS, Finding, box_of, only_file, read_csv, refused

EDGES = ("xmin", "ymin", "xmax", "ymax")
TABLE_COLUMNS = (
    *("study_id", "image_id", "laterality", "view_position", "height", "width"),
    *("breast_density", "finding_categories", "finding_birads", *EDGES, "split"),
)
SEVERITIES = {"BI-RADS 3": BENIGN, "BI-RADS 4": MALIGNANT, "BI-RADS 5": MALIGNANT}
SPLITS = {"training": "train", "test": "test"}
KINDS = {"Mass": MASS, "Suspicious Calcification": CALC}
NOTHING = "No Finding"


def findings(folder: Path) -> Iterator[Finding | str]:
    """The marked findings. Raises MiramError naming the first wrong line."""
    table = only_file(folder, "finding_annotations.csv")
    makers = _makers(table.with_name("metadata.csv"))
    for line, row in enumerate(read_csv(table, TABLE_COLUMNS).to_dict("records"), start=2):
        categories = _categories(table, line, row["finding_categories"])
        path = table.parent / "images" / row["study_id"] / f"{row['image_id']}.dicom"
        if row["split"] not in SPLITS:
            raise refused(table, line, f"split = {row['split']!r}, allowed: training, test")
        if categories == [NOTHING]:
            yield "film without a finding"
        elif row["finding_birads"] not in SEVERITIES:
            yield f"finding of {row['finding_birads'] or 'no BI-RADS category'}"
        elif not path.is_file():
            yield "its picture is missing"
        else:
            try:
                left, top, right, bottom = (float(row[edge]) for edge in EDGES)
                box = box_of([(left, top), (right, bottom)], int(row["height"]), int(row["width"]))
            except ValueError as error:
                raise refused(table, line, f"box or size of the film: {error}") from error
            kinds = [KINDS[name] for name in categories if name in KINDS]
            kind = kinds[0] if len(kinds) == 1 else " AND ".join(categories).upper()
            groups = {"side": row["laterality"], "view": row["view_position"], "density": row["breast_density"]}
            groups |= {"finding": ", ".join(categories).lower(), "maker": makers.get(row["image_id"], "")}
            severity, split = SEVERITIES[row["finding_birads"]], SPLITS[row["split"]]
            yield Finding(path, row["study_id"], severity, kind, box, split, groups)


def _categories(table: Path, line: int, text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list) or not found:
        raise refused(table, line, f"finding_categories = {text!r}, which is not a list of names")
    return [str(name) for name in found]


def _makers(metadata: Path) -> dict[str, str]:
    """The maker of each film's machine, by the film's id; empty where the data set comes without that table."""
    if not metadata.exists():
        return {}
    table = read_csv(metadata, ("SOP Instance UID", "Manufacturer"))
    return dict(zip(table["SOP Instance UID"], table["Manufacturer"], strict=True))
