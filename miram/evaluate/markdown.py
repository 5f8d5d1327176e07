"""Markdown that is also readable as plain text."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

MODELS = {  # of each preset
    "demo": "small models",
    "paper": "models of full size",
    "paper-448": "models of full size, 224 -> 448 px",
    "paper-896": "models of full size, 448 -> 896 px",
    "small": "small models on the archive's own crops",
}

LINE_WIDTH = 110  # characters; the files are printed on terminals too


def preset_of(title: str) -> str:
    """The preset that a title names, with or without a data set."""
    return title.partition(" on ")[0]


def subject(title: str) -> str:
    """The subject of results in one line; `title`: a preset, or "PRESET on NAME" for the own data set NAME."""
    preset, _, name = title.partition(" on ")
    if name:
        return f"{name}: own images, {MODELS[preset]} of preset {preset}"
    if preset == "demo":
        return f"DEMO: phantom lesions and {MODELS[preset]}; says nothing about the methods"
    return f"CBIS-DDSM, {MODELS[preset]}"


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of LINE_WIDTH, those after the first indented."""
    return textwrap.fill(text, LINE_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def measured(row: Mapping[Any, Any]) -> str:
    """Value and interval of a row of figures, in per cent; "-" if it has no value."""
    if math.isnan(row["value"]):
        return "-"
    low, high = row["low"], row["high"]
    return f"{100 * row['value']:.1f}" + ("" if math.isnan(low) else f" ({100 * low:.1f} to {100 * high:.1f})")


def aligned(rows: list[dict[str, str]]) -> str:
    """A table whose columns are as wide as their widest text, which pandas' own pads beyond a terminal.

    A bar in a text is escaped, and a line break is a blank: a label may hold either.
    """
    texts = [[_cell(text) for text in line] for line in (rows[0], *(row.values() for row in rows))]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())
