"""What each part of a film shows: breast, air, or something bright that is not breast (burnt-in labels, borders).

Films are (R, C) unsigned; a map of areas is (R // step, C // step) or one more, each value that of step x step pixels.
"""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from miram.data.geometry import Box, select_component

MAP_ROWS = 128  # at least: enough for outlines, and few enough that a memory map reads little of the film


class Area(IntEnum):
    """What a pixel of a film shows."""

    AIR = 0
    BREAST = 1
    FOREIGN = 2  # a label, a clip, the border of the film or of its scan


class Areas(NamedTuple):
    """A map of `Area` values, and its step in film pixels."""

    map: np.ndarray
    step: int

    def of(self, window: Box) -> np.ndarray:
        """The area of each film pixel of a window that lies inside the film."""
        return self.map[np.ix_(*(np.arange(*ends) // self.step for ends in zip(window[:2], window[2:], strict=True)))]


def find_areas(pixels: np.ndarray, air: float) -> Areas:
    """The areas of a film, from every step-th pixel of every step-th row.

    `air`: grey below which it shows no breast, as a fraction of the brightest that it can hold. The breast is the
    largest bright area, its holes filled. Lines of one or two map pixels, such as the border of a scan, are removed
    first: they would join it to labels.
    """
    step = max(1, pixels.shape[0] // MAP_ROWS)
    film = np.asarray(pixels[::step, ::step])
    bright = ndimage.gaussian_filter(film.astype(np.float32), 1) > air * np.iinfo(pixels.dtype).max
    breast, _ = select_component(ndimage.binary_opening(bright, np.ones((3, 3))), "largest")
    breast = ndimage.binary_fill_holes(breast)
    return Areas(np.where(breast, Area.BREAST, np.where(bright, Area.FOREIGN, Area.AIR)).astype(np.uint8), step)


def shares(areas: Areas, window: Box, film_shape: tuple[int, int]) -> dict[str, float]:
    """The shares of a window's pixels that are outside the film, air, and foreign, to 4 digits; the rest is breast."""
    inside = window.within(*film_shape)
    total, there = math.prod(window.shape), math.prod(inside.shape)
    found = np.bincount(areas.of(inside).ravel(), minlength=len(Area)).tolist()
    counts = {"outside_film": total - there, "air": found[Area.AIR], "foreign": found[Area.FOREIGN]}
    return {name: round(count / total, 4) for name, count in counts.items()}
