"""The first sheet of an Excel file, as text; no library in the lock reads this format."""

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from miram.data.recipes.table import REMEDY
from miram.errors import MiramError

SHEET, TEXTS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def read_xlsx(path: Path) -> pd.DataFrame:
    """The sheet as text, its first row as the names of the columns. Raises MiramError when it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [_text(item) for item in _root(archive, TEXTS)] if TEXTS in archive.namelist() else []
            rows = [_cells(row, texts) for row in _root(archive, SHEET).iterfind(".//{*}row")]
    except (OSError, zipfile.BadZipFile, KeyError, IndexError, ValueError, ElementTree.ParseError) as error:
        raise MiramError(f"{path} cannot be read as an Excel file: {error}.", REMEDY) from error
    names, *others = rows or [{}]
    return pd.DataFrame([{name: row.get(place, "") for place, name in names.items()} for row in others], dtype=str)


def _root(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(archive.read(name))


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter() if part.tag.endswith("}t"))


def _cells(row: ElementTree.Element, texts: list[str]) -> dict[str, str]:
    """The letters of each column -> the text of its cell."""
    found = {}
    for cell in row.iterfind("{*}c"):
        value = cell.find("{*}v")
        text = _text(cell) if value is None else value.text or ""
        found[re.sub(r"\d", "", cell.attrib["r"])] = texts[int(text)] if cell.get("t") == "s" else text
    return found
