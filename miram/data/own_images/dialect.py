"""Tables as spreadsheets write them: the encoding and the separator, if the file is unambiguous."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from miram.errors import MiramError

MARKS = {  # byte order marks; that of UTF-32 begins with one of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes of .xlsx, .ods and .xls
WESTERN = re.compile(r"(?:[\0-\x7f\xa0]|(?<![À-ÿ]{2})(?![\xd7\xf7])[À-ÿ])*")  # no three letters with accents in a row
REMEDY = "Save the table as CSV in UTF-8; the separator may be a comma, a semicolon or a tab."


class Sheet(NamedTuple):
    """The cells of a table: headings in lower case, and the cells of each row by line of the file."""

    headings: list[str]
    rows: dict[int, dict[str, str]]
    written: str  # its encoding and its separator, in words


def read_sheet(path: Path, required: Collection[str]) -> Sheet:
    """The cells of a CSV file, stripped; empty rows and columns are left out.

    Raises MiramError if the file is not a table, is ambiguous, lacks a required heading, has a heading twice, or a row
    does not fit the headings.
    """
    text, encoding = _decoded(path)
    told = re.match(r"sep=(.)\s*\n", text)
    signs = [told[1]] if told else list(SEPARATORS)
    found = {sign: _headings(text, sign) for sign in signs}
    sign = max(signs, key=lambda own: (len(set(required) & set(found[own])), len(found[own])))
    headings = found[sign]
    try:
        rows = dict(list(_rows(text, sign))[1:])
    except csv.Error as error:
        raise MiramError(f"{path} cannot be read as CSV: {error}.", REMEDY) from error
    named = [name for name in headings if name]
    missing = [name for name in required if name not in named]
    if missing or not rows:
        what = f"lacks the column {', '.join(missing)}; it has {', '.join(named)}" if missing else "names no image"
        raise MiramError(f"{path} {what}.", f"It needs at least the columns {', '.join(required)}. {REMEDY}")
    _check_fit(path, headings, rows)
    cells = {
        line: {name: cell for name, cell in zip_longest(headings, row, fillvalue="") if name}
        for line, row in rows.items()
    }
    return Sheet(named, cells, f"{encoding}, columns separated by {SEPARATORS.get(sign, repr(sign))}")


def _decoded(path: Path) -> tuple[str, str]:
    """The text of a file, and the encoding that it is in."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise MiramError(f"There is no table {path}.", "Name it in params.yaml: sources.images.table_csv.") from error
    except OSError as error:
        raise MiramError(f"{path} cannot be read as CSV: {error.strerror}.", REMEDY) from error
    if content.startswith(SPREADSHEETS):
        raise MiramError(f"{path} is a spreadsheet, not CSV.", REMEDY)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    if b"\0" in content and encoding == "utf-8":  # headings are ASCII: in UTF-16 every other byte is zero
        encoding = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    try:
        return content.decode(encoding), encoding.upper().removesuffix("-SIG")
    except UnicodeDecodeError as error:
        western = content.decode("latin-1")
        if encoding != "utf-8" or not WESTERN.fullmatch(western):
            raise MiramError(f"{path}: its letters are not UTF-8, and the encoding is ambiguous.", REMEDY) from error
        return western, "Windows-1252"


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with its last line number; a leading `sep=` line is skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells) and not (reader.line_num == 1 and text.startswith("sep=")):
            yield reader.line_num, cells


def _headings(text: str, separator: str) -> list[str]:
    try:
        return [cell.casefold() for cell in next(_rows(text, separator), (0, []))[1]]
    except csv.Error:  # of another separator
        return []


def _check_fit(path: Path, headings: list[str], rows: dict[int, list[str]]) -> None:
    twice = next((name for name in headings if name and headings.count(name) > 1), None)
    if twice:
        raise MiramError(f"{path} has the heading {twice} twice.", "Rename or remove one of the two columns.")
    for line, row in rows.items():
        beyond = [cell for place, cell in enumerate(row) if cell and not "".join(headings[place : place + 1])]
        if beyond:
            raise MiramError(
                f"{path}: line {line} has {beyond[0]!r} in a column without a heading.",
                "Give the column a heading; put a cell that contains the separator in quotes.",
            )
