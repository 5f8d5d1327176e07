"""Grey levels: the range that a picture uses, by one of four rules, and the picture scaled to 16 bits.

The rules, a value of `sources.images.levels`:

* "stored": all levels that the declared bits can hold.
* "data": for files that declare more than 8 bits, the levels that the data set uses, per kind of file (see
`Facts.kind`); else as "stored". Few files with 12-bit levels declare 12 bits.
* "image": the levels that the picture uses.
* "window": those of the DICOM file's window or VOI LUT; without one as "data".
Ranges are rounded to whole bits, see `whole_bits`, so that brightness does not depend on one bright pixel.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from miram.data.pictures.picture import Facts, Picture, Range

WINDOW = "window"
EIGHTH = 8  # pictures that fill less than this part of their range are reported


class Scale(NamedTuple):
    """The range of a picture, and why someone should look at it; empty: no reason."""

    range: Range
    reason: str


def whole_bits(lowest: int, highest: int) -> Range:
    """The smallest range of whole bits that holds the levels; it begins at 0, or below it at a power of two."""
    low = 0 if lowest >= 0 else -(2 ** (-lowest - 1).bit_length())
    return Range(low, max(1, (highest - low).bit_length()))


def widened(one: Facts, other: Facts) -> Facts:
    """The first range, extended by the levels of both."""
    return replace(one, lowest=min(one.lowest, other.lowest), highest=max(one.highest, other.highest))


def used_ranges(pictures: Iterable[Facts]) -> dict[str, Range]:
    """The range that the pictures of each kind use together."""
    found: dict[str, Facts] = {}
    for facts in pictures:
        found[facts.kind] = widened(found.get(facts.kind, facts), facts)
    return {kind: whole_bits(facts.lowest, facts.highest) for kind, facts in sorted(found.items())}


def scale_of(facts: Facts, levels: str, ranges: Mapping[str, Range] | None) -> Scale:
    """The range of a picture under a rule; `ranges` are those of `used_ranges`, None where `stored` is known to hold.

    Under "data" a picture whose levels exceed the range of its kind, or fill less than an eighth of it and would be
    nearly black, gets its own range.
    """
    lowest, highest = facts.lowest, facts.highest
    chosen, reason = facts.stored, ""
    if levels == "image":
        chosen = whole_bits(lowest, highest)
    elif levels != "stored" and not facts.shown and facts.bits > 8:
        own = whole_bits(lowest, highest)
        chosen = facts.stored if ranges is None else ranges.get(facts.kind, own)
        if lowest < chosen.low or highest > chosen.high or highest - chosen.low < 2**chosen.bits / EIGHTH:
            reason = f"levels {lowest} to {highest} do not fit those of its kind, {chosen.low} to {chosen.high}"
            chosen = own
    if not reason and highest - lowest < 2**chosen.bits / EIGHTH:
        reason = f"levels {lowest} to {highest} fill less than an eighth of {chosen.low} to {chosen.high}"
    return Scale(chosen, reason)


def scaled(picture: Picture, chosen: Range) -> np.ndarray:
    """The picture as (R, C) uint16: `chosen` scaled to 0 to 65535, inverted where the file says so, padding black."""
    grey = picture.pixels
    if chosen != Range(0, 16):
        above = (np.clip(grey.astype(np.int32), chosen.low, chosen.high) - chosen.low).astype(np.uint32)
        grey = above * 65535 // (2**chosen.bits - 1)
    grey = grey.astype(np.uint16)
    if picture.facts.inverted:
        grey = 65535 - grey
    if picture.padding is not None:
        grey[picture.padding] = 0
    return grey
