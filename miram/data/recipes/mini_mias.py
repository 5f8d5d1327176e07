"""mini-MIAS: `Info.txt` and mdb001.pgm to mdb322.pgm.

The format is taken from the data set's README, as public notebooks quote it; a line is "mdb001 G CIRC B 535 425 197":
film, tissue (F, G, D), class, severity (B, M), centre and radius of a circle, in px. The origin is the lower left
corner. Two consecutive films belong to one patient. Normal films have neither severity nor circle; calcifications
all over a film have no circle, or "*NOTE 3*" in its place.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from miram.data.pictures.pillow import pillow_size
from miram.data.recipes.table import BENIGN, CALC, MALIGNANT, MASS, Finding, box_of, only_file, refused

KINDS = {"CALC": CALC, "CIRC": MASS, "SPIC": MASS, "MISC": MASS, "ARCH": "DISTORTION", "ASYM": "ASYMMETRY"}
SEVERITIES = {"B": BENIGN, "M": MALIGNANT}
TISSUES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
LINE = re.compile(r"mdb(\d{3})\b(.*)", re.IGNORECASE)


def findings(folder: Path) -> Iterator[Finding | str]:
    """The lesions of `Info.txt`. Raises MiramError naming a line with another format, or a damaged picture."""
    info = only_file(folder, "Info.txt")
    films = {path.stem.lower(): path for path in folder.rglob("*") if path.suffix.lower() == ".pgm"}
    for number, text in enumerate(info.read_text(encoding="latin-1").splitlines(), start=1):
        if line := LINE.match(text.strip()):
            yield _finding(info, number, int(line[1]), line[2].split(), films.get(f"mdb{line[1]}"))


def _finding(info: Path, number: int, film: int, words: list[str], path: Path | None) -> Finding | str:
    tissue, kind, *rest = words if len(words) > 1 else ("", "")
    if tissue not in TISSUES or kind not in {*KINDS, "NORM"}:
        raise refused(info, number, f"tissue = {tissue!r} and class = {kind!r}")
    if kind == "NORM":
        return "normal film"
    if not rest or rest[0] not in SEVERITIES:
        raise refused(info, number, f"severity = {''.join(rest[:1])!r}, allowed: B, M")
    if len(rest) == 1 or rest[1].startswith("*NOTE"):
        return "no circle: it is all over the film"
    if path is None:
        return "its picture is missing"
    try:
        x, y, radius = (int(word) for word in rest[1:])
    except ValueError as error:
        raise refused(info, number, f"x, y, radius = {' '.join(rest[1:])!r}, which are not three numbers") from error
    rows, columns = pillow_size(path)
    centre = rows - y  # the file counts from the bottom
    box = box_of([(x - radius, centre - radius), (x + radius, centre + radius)], rows, columns)
    groups = {"density": TISSUES[tissue], "finding": kind}
    return Finding(path, f"pair-{(film + 1) // 2:03}", SEVERITIES[rest[0]], KINDS[kind], box, "", groups)
