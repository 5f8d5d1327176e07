"""How a method looks in every figure: the colour, marker and line of its kind, independent of the other methods.

Colours are Okabe and Ito's and those of Tol's muted set, distinguishable for the colour-blind; markers and dashes
distinguish methods without colour.
"""

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import NamedTuple

from miram import kinds, layout
from miram.kinds import Drawing

STARTS = {  # of methods that are not pre-trained here
    layout.FROM_SCRATCH: Drawing("#56B4E9", "X", (1.5, 1.5)),
    layout.TIMM: Drawing("#999933", "*", (6, 1.5, 1.5, 1.5)),
}
UNKNOWN = Drawing("#882255", "d")  # of a kind that was measured but is no longer in the registry
VARIANTS = (("p", (8, 2)), ("h", (3, 3)), ("<", (8, 2, 2, 2)), (">", (3, 1, 1, 1)))  # further methods of one kind
SYMBOLS = dict(zip("os^DvPX*dph<>", "●■▲◆▼✚✖★♦⬟⬢◀▶", strict=True))  # of the markers, in text
LINES = {kinds.OURS: "-", kinds.PACKAGE: "--", kinds.NAIVE: ":"}  # of the forms of attention
ACCENT, PALE, GREY = "#0072B2", "#dddddd", "#555555"  # for anything but methods: a finding, a grid, a reference
CLASSES = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#009E73", "#CC79A7")  # of the classes of a task, in turn
CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class Look(NamedTuple):
    """How a method is drawn, recognisable without colour too."""

    colour: str
    dashes: tuple[float, ...]  # lengths on and off, in line widths; empty: solid
    marker: str
    symbol: str  # the marker in text


def looks(kind_of: Mapping[str, str]) -> dict[str, Look]:
    """The look of each method, from its kind: an attention, an objective, or one of STARTS.

    Of several methods of a kind the first has the kind's own look; the others have its colour, and another marker and
    line.
    """
    seen: dict[Drawing, int] = {}
    found = {}
    for method, kind in kind_of.items():
        drawing = _drawing(kind)
        number = seen[drawing] = seen.get(drawing, -1) + 1
        marker, dashes = drawing.marker, drawing.dashes
        if number:
            marker, dashes = VARIANTS[(number - 1) % len(VARIANTS)]
        found[method] = Look(drawing.colour, dashes, marker, SYMBOLS.get(marker, "●"))
    return found


def looks_of_kinds(names: Iterable[str]) -> dict[str, Look]:
    """The look of each kind, with a solid line: there the line shows the form, see LINES."""
    return {name: look._replace(dashes=()) for name, look in looks({name: name for name in names}).items()}


def looks_of_classes(names: Iterable[str]) -> dict[str, Look]:
    """The look of each class of a task, by its place in the list."""
    styles = zip(names, cycle(CLASSES), cycle(CLASS_MARKERS), strict=False)
    return {name: Look(colour, (), marker, SYMBOLS[marker]) for name, colour, marker in styles}


def _drawing(kind: str) -> Drawing:
    if kind in STARTS:
        return STARTS[kind]
    entry = kinds.ATTENTION.get(kind) or kinds.OBJECTIVES.get(kind)
    return UNKNOWN if entry is None or entry.drawing is None else entry.drawing
