"""What a file of a picture holds, before its grey levels are scaled."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miram.errors import MiramError


class PictureError(MiramError):
    """A file that holds no picture that can be used; the message names it and says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "Mend or replace the file, or take it out.")


class Range(NamedTuple):
    """The grey levels that are shown, `low` the darkest; there are 2 ** `bits` of them."""

    low: int
    bits: int

    @property
    def high(self) -> int:
        """The brightest grey level."""
        return self.low + 2**self.bits - 1


@dataclass(frozen=True)
class Facts:
    """What a file says of its grey levels, and which of them it holds; all that a rule of grey levels asks for."""

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
        """Which files of a data set are expected to use the same grey levels: those that say the same of themselves."""
        words = [self.format, f"{self.bits} bits" + " signed" * self.signed, self.manufacturer]
        return ", ".join(filter(None, words))

    @property
    def stored(self) -> Range:
        """All the grey levels that so many bits can hold."""
        return Range(-(2 ** (self.bits - 1)) if self.signed else 0, self.bits)


class Picture(NamedTuple):
    """Grey levels as a file stores them, (R, C) whole numbers, and what it says of them."""

    pixels: np.ndarray
    padding: np.ndarray | None  # (R, C), true where there is no picture; None: nowhere
    facts: Facts


def picture_of(pixels: np.ndarray, padding: np.ndarray | None = None, **told: Any) -> Picture:
    """A picture of grey levels (R, C) and of what its file tells, fields of Facts; levels of padding do not count."""
    inside = pixels if padding is None else pixels[~padding]
    lowest, highest = (int(inside.min()), int(inside.max())) if inside.size else (0, 0)
    return Picture(pixels, padding, Facts(lowest=lowest, highest=highest, padding_px=pixels.size - inside.size, **told))
