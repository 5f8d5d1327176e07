"""A survey of all pictures of a data set before use: their grey levels, and which cannot be read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from miram.data.pictures.levels import scale_of, scaled, used_ranges, widened
from miram.data.pictures.picture import Facts, PictureError, Range
from miram.data.pictures.reader import read_picture
from miram.data.rows import first_few, write_rows

COLUMNS = [
    *("image", "format", "manufacturer", "bits", "signed", "inverted", "padding_px", "lowest", "highest"),
    *("shown_from", "shown_to", "note"),
]


class Reading(NamedTuple):
    """How pictures are read: the rule, and the range of each kind, see `scale_of`."""

    levels: str
    ranges: Mapping[str, Range] | None

    def read(self, path: Path) -> tuple[np.ndarray, str]:
        """A picture as (R, C) uint16, and why someone should look at it, if any. Raises as `read_picture`."""
        picture = read_picture(path, self.levels)
        found = scale_of(picture.facts, self.levels, self.ranges)
        return scaled(picture, found.range), found.reason


AS_STORED = Reading("stored", None)  # of the archive's own crops, and of masks, whose black may be another level
FILMS = Reading("data", None)  # of CBIS-DDSM: 16 bits, and all of them used


class Survey(NamedTuple):
    """One row of COLUMNS per picture, by name; why others cannot be read; the range of each kind."""

    rows: dict[str, dict[str, Any]]
    aside: dict[str, str]
    ranges: dict[str, Range]


def survey(
    paths: Mapping[str, Path],
    levels: str,
    track: Callable[[Iterable], Iterable],
    use: Callable[[str, np.ndarray], None] | None = None,
) -> Survey:
    """Read every picture, one in memory at a time; `track` reports progress.

    `use` gets the name and the pixels of each, as `Reading.read` gives them. A picture is decoded once, and again if a
    later one of its kind widened the range. Raises as `read_picture`, except PictureError.
    """
    seen: dict[str, Facts] = {}
    extent: dict[str, Facts] = {}  # the lowest and the highest level of each kind, so far
    used, aside, rows = {}, {}, {}
    for name, path in track(paths.items()):
        try:
            picture = read_picture(path, levels)
        except PictureError as error:
            aside[name] = error.message
            continue
        seen[name] = own = picture.facts
        extent[own.kind] = widened(extent.get(own.kind, own), own)
        if use:
            used[name] = scale_of(own, levels, used_ranges([extent[own.kind]])).range
            use(name, scaled(picture, used[name]))
    ranges = used_ranges(extent.values())
    for name, facts in seen.items():
        shown, note = scale_of(facts, levels, ranges)
        rows[name] = {"image": name, **asdict(facts), "shown_from": shown.low, "shown_to": shown.high, "note": note}
        if use and used[name] != shown:
            use(name, scaled(read_picture(paths[name], levels), shown))
    return Survey(rows, aside, ranges)


def write_survey(found: Survey, path: Path) -> None:
    """Write the rows as CSV."""
    write_rows(found.rows.values(), COLUMNS, path)


def summary(found: Survey, levels: str) -> str:
    """A summary in a few lines."""
    lines = [f"pictures: {len(found.rows)} read, {len(found.aside)} set aside; levels: {levels}"]
    table = pd.DataFrame(found.rows.values(), columns=COLUMNS)
    for (form, maker, bits), group in table.groupby(["format", "manufacturer", "bits"]):
        kind = ", ".join(filter(None, (str(form), str(maker), f"{bits} bits declared")))
        shown = [
            f"{low} to {high}" for low, high in dict.fromkeys(zip(group["shown_from"], group["shown_to"], strict=True))
        ]
        turned = f"; {group['inverted'].sum()} of them inverted" if group["inverted"].any() else ""
        lines.append(
            f"  {len(group)} of {kind}: levels {group['lowest'].min()} to {group['highest'].max()}, "
            f"shown {' or '.join(first_few(shown))}{turned}"
        )
    for title, notes in (
        ("look at", {name: row["note"] for name, row in found.rows.items() if row["note"]}),
        ("set aside", found.aside),
    ):
        lines += [f"  {title} {text}" for text in first_few([f"{name}: {why}" for name, why in notes.items()])]
    return "\n".join(lines)
