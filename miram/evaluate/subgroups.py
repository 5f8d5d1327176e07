"""Groups of lesions, and the metrics of networks on each of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from miram.predictions import Predictions

GROUPINGS = {  # heading -> column of lesions.csv
    "kind": "abnormality",
    "pathology": "pathology",
    "label": "label",
    "density": "breast_density",
    "assessment": "assessment",
    "subtlety": "subtlety",
    "view": "view",
}
SIZE = "crop size"  # in thirds of all lesions, by the longer side
SIZES = ("small", "medium", "large")
Rows = list[dict[str, object]]


def with_groups(lesions: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """lesions.csv with a column per grouping, and their headings; a column that is blank throughout is left out.

    A value that a lesion lacks is "unknown".
    """
    known = {heading: column for heading, column in GROUPINGS.items() if column in lesions and lesions[column].any()}
    found = lesions.assign(**{heading: lesions[column].replace("", "unknown") for heading, column in known.items()})
    sides = lesions[["crop_rows", "crop_columns"]].astype(int).max(axis=1)
    bounds = [int(sides.quantile(share)) for share in (1 / 3, 2 / 3)]
    ranges = (f"up to {bounds[0]} px", f"{bounds[0] + 1} to {bounds[1]} px", f"above {bounds[1]} px")
    names = [f"{name}, {text}" for name, text in zip(SIZES, ranges, strict=True)]
    places = (sides > bounds[0]).astype(int) + (sides > bounds[1])
    return found.assign(**{SIZE: places.map(dict(enumerate(names)))}), [*known, SIZE]


def group_rows(networks: Sequence[Predictions], column: str, measure: Callable[[list[Predictions]], Rows]) -> Rows:
    """What `measure` returns for each group of a column of the tables of `networks`, which are of the same lesions.

    Each row gets `column`, `group` and the number of `patients`.
    """
    rows: Rows = []
    for group in sorted(networks[0].table[column].unique()):
        parts = [replace(own, table=own.table[own.table[column] == group]) for own in networks]
        place = {"column": column, "group": str(group), "patients": parts[0].table["patient_id"].nunique()}
        rows += [{**row, **place} for row in measure(parts)]
    return rows
