"""What a file of a picture holds, before its grey levels are scaled."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miram.errors import MiramError


class PictureError(MiramError):
    """A file without a usable picture; the message names it and says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "Correct, replace or remove the file.")


class Range(NamedTuple):
    """The 2 ** `bits` grey levels that are shown; `low` is the darkest."""

    low: int
    bits: int

    @property
    def high(self) -> int:
        """The brightest grey level."""
        return self.low + 2**self.bits - 1


@dataclass(frozen=True)
class Facts:
    """What a file says about its grey levels, and which of them it uses: the input of the rules in `levels`."""

    format: str  # DICOM, or Pillow's word: PNG, TIFF, JPEG, PPM, BMP, JPEG2000
    bits: int  # that the file declares for a grey level
    lowest: int  # level, outside the padding
    highest: int
    padding_px: int
    signed: bool = False
    inverted: bool = False  # high levels are dark
    manufacturer: str = ""
    shown: bool = False  # the file's window, or its table of grey levels, is applied

    @property
    def kind(self) -> str:
        """Files of the same kind are expected to use the same grey levels: their headers agree."""
        bits = f"{self.bits} bits" + " signed" * self.signed + " windowed" * self.shown
        words = [self.format, bits, self.manufacturer]
        return ", ".join(filter(None, words))

    @property
    def stored(self) -> Range:
        """All grey levels of this many bits."""
        return Range(-(2 ** (self.bits - 1)) if self.signed else 0, self.bits)


class Picture(NamedTuple):
    """Grey levels as stored, (R, C) whole numbers, and what the file says about them."""

    pixels: np.ndarray
    padding: np.ndarray | None  # (R, C), true where there is no picture; None: nowhere
    facts: Facts


def picture_of(pixels: np.ndarray, padding: np.ndarray | None = None, **told: Any) -> Picture:
    """A picture from grey levels (R, C) and fields of Facts; levels of padding do not count."""
    inside = pixels if padding is None else pixels[~padding]
    lowest, highest = (int(inside.min()), int(inside.max())) if inside.size else (0, 0)
    return Picture(pixels, padding, Facts(lowest=lowest, highest=highest, padding_px=pixels.size - inside.size, **told))
