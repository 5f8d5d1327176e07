"""The tables of lesions, and the images that belong to their rows."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miram.files import write_csv

FEW = 5  # that a message names


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def write_rows(rows: Iterable[dict[str, Any]], columns: list[str], path: Path) -> None:
    """Write rows as CSV with these columns, sorted by the first one; missing values are blank."""
    # as objects: whole numbers stay whole where others are unknown
    table = pd.DataFrame(rows, columns=columns, dtype=object).sort_values(columns[0])
    write_csv(table, path)


def remove_others(folder: Path, names: set[str]) -> None:
    """Remove the images of earlier runs from a folder: all except <name>.png."""
    for png in folder.glob("*.png"):
        if png.stem not in names:
            png.unlink()


def first_few(texts: Sequence[str]) -> list[str]:
    """The first five of the texts and, if there are others, how many."""
    return [*texts[:FEW], *[f"{len(texts) - FEW} more"] * (len(texts) > FEW)]


def as_markdown(table: pd.DataFrame, index: str = "") -> str:
    """A table as Markdown; `index` is the heading of its index, without it the index is left out."""
    if index:
        table = table.rename_axis(index).rename_axis(None, axis="columns").reset_index()
    return table.to_markdown(index=False, disable_numparse=True)
