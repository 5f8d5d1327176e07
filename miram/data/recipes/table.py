"""What the recipes share: findings, the table made of them, and finding files and checking rows."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from miram.data.geometry import Box
from miram.data.tasks import CLASSES
from miram.errors import MiramError

COLUMNS = ["image", "patient", "label", "split", "x", "y", "width", "height"]
BENIGN, MALIGNANT = CLASSES["pathology"]
MASS, CALC = "MASS", "CALC"
REMEDY = "Correct that file, or download it again."


class Finding(NamedTuple):
    """A lesion, or a whole picture with a label."""

    image: Path  # of the picture
    patient: str
    severity: str  # BENIGN or MALIGNANT
    kind: str  # MASS, CALC, or another word of the data set
    box: Box | None  # in the picture; None: the whole picture
    split: str  # train, test, or "" where the data set has no split
    groups: dict[str, str]  # further columns, by which results can be grouped


def tabulated(found: Iterable[Finding | str], folder: Path, task: str) -> tuple[pd.DataFrame, Counter[str]]:
    """The findings as a table with COLUMNS (those that are in use) and their groups, and what is left out, by reason.

    Paths are below `folder`. `task`, one of `recipes.TASKS`, says what the labels are: severity only, or with
    MASS or CALC. Raises MiramError when nothing is left.
    """
    rows, left_out = [], Counter[str]()
    for finding in found:
        if isinstance(finding, str):
            left_out[finding] += 1
        elif task == "pathology_4class" and finding.kind not in (MASS, CALC):
            left_out[f"no class of {task}: {finding.kind.lower()}"] += 1
        elif finding.box is not None and not all(finding.box.shape):
            left_out["its box holds no pixel of the picture"] += 1
        else:
            rows.append(_row(finding, folder, task))
    if not rows:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it is empty"
        raise MiramError(f"{folder} holds no lesion that can be used: {reasons}.", "Name the folder of the data set.")
    table = pd.DataFrame(rows).fillna("")
    return table.loc[:, [name not in COLUMNS or bool((table[name] != "").any()) for name in table]], left_out


def _row(finding: Finding, folder: Path, task: str) -> dict[str, object]:
    label = finding.severity if task == "pathology" else f"{finding.severity}_{finding.kind}"
    place: tuple[object, ...] = ("", "", "", "")
    if finding.box is not None:
        rows, columns = finding.box.shape
        place = finding.box.x0, finding.box.y0, columns, rows
    known = (str(finding.image.relative_to(folder)), finding.patient, label, finding.split, *place)
    return {**dict(zip(COLUMNS, known, strict=True)), **finding.groups}


def box_of(points: Sequence[tuple[float, float]], rows: int, columns: int) -> Box:
    """The smallest box of whole pixels around points (x, y), in px, as far as it lies in a picture of this size."""
    x, y = zip(*points, strict=True)
    box = Box(math.floor(min(y)), math.floor(min(x)), math.ceil(max(y)), math.ceil(max(x)))
    return box.within(rows, columns)


def only_file(folder: Path, *names: str) -> Path:
    """The file below a folder that has one of the names, in any case. Raises MiramError unless there is exactly one."""
    wanted = {name.lower() for name in names}
    found = sorted(path for path in folder.rglob("*") if path.name.lower() in wanted)
    if len(found) != 1:
        said = f"{len(found)} files" if found else "no file"
        raise MiramError(
            f"There is {said} {' or '.join(names)} below {folder}.", "Name the folder with the data set as downloaded."
        )
    return found[0]


def read_csv(path: Path, columns: Sequence[str], separator: str = ",") -> pd.DataFrame:
    """A CSV file as text without blanks around it. Raises MiramError when it lacks one of the columns."""
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise MiramError(f"{path} cannot be read as CSV: {error}.", REMEDY) from error
    return checked(path, table, columns)


def checked(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A table of text without blanks around it. Raises MiramError when it lacks one of the columns."""
    table = table.rename(columns=lambda name: str(name).strip()).apply(lambda column: column.str.strip())
    missing = [name for name in columns if name not in table]
    if missing:
        raise MiramError(f"{path} lacks the column {', '.join(missing)}.", REMEDY)
    return table


def refused(path: Path, line: int, what: str) -> MiramError:
    """The error for a line of a file, counted from 1."""
    return MiramError(f"{path}, line {line}: {what}.", REMEDY)
