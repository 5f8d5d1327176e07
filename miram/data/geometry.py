"""Where a lesion is in its film and what is cut around it: masks, boxes, windows.

Films, masks and crops are (R, C) arrays; positions are film pixels, x along columns, y along rows.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Box(NamedTuple):
    """A half-open rectangle: rows y0 to y1 - 1, columns x0 to x1 - 1; a window may reach beyond its film."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    def within(self, rows: int, columns: int) -> "Box":
        """The part inside a film; empty when there is none."""
        y0, x0 = min(max(0, self.y0), rows), min(max(0, self.x0), columns)
        return Box(y0, x0, max(y0, min(rows, self.y1)), max(x0, min(columns, self.x1)))


def bounding_box(mask: np.ndarray) -> Box:
    """The smallest box around the True pixels of a mask (R, C). Raises ValueError when there are none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        raise ValueError("an empty mask has no box")
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def window_around(box: Box, *, shape: str, margin: float, side_min: int) -> Box:
    """The window to cut for a box, centred on it to half a pixel.

    For "square" both sides are the box's longer side, for "tight" the box's sides; `margin` times the longer side is
    added at each end, and no side is shorter than `side_min` px.
    """
    longer = max(box.shape)
    sides = {"square": (longer, longer), "tight": box.shape}[shape]
    rows, columns = (max(side + 2 * round(margin * longer), side_min) for side in sides)
    y0, x0 = box.y0 + (box.shape[0] - rows) // 2, box.x0 + (box.shape[1] - columns) // 2
    return Box(y0, x0, y0 + rows, x0 + columns)


def cut_window(pixels: np.ndarray, window: Box) -> np.ndarray:
    """Cut a window from a film (R, C); zero where it lies outside the film, and only there."""
    inside = window.within(*pixels.shape)
    crop = np.zeros(window.shape, dtype=pixels.dtype)
    if all(inside.shape):
        y0, x0 = inside.y0 - window.y0, inside.x0 - window.x0
        part = pixels[inside.y0 : inside.y1, inside.x0 : inside.x1]
        crop[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = part
    return crop


def select_component(mask: np.ndarray, component: str) -> tuple[np.ndarray, int]:
    """The parts of a mask (R, C) that count, and how many parts it has (8-connected).

    "union": all; "largest": the one with most pixels, of equal ones the first in reading order.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if component == "largest" and count > 1:
        return parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1, count
    return mask, count


def lesion_box(mask: np.ndarray, component: str) -> tuple[Box, int]:
    """The box of the parts of a mask (R, C) that count, and how many parts it has, see `select_component`.

    Raises ValueError for an empty mask.
    """
    outer = bounding_box(mask)
    part, count = select_component(mask[outer.y0 : outer.y1, outer.x0 : outer.x1], component)
    inner = bounding_box(part)
    return Box(outer.y0 + inner.y0, outer.x0 + inner.x0, outer.y0 + inner.y1, outer.x0 + inner.x1), count


def fit_mask(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """A mask (R', C') enlarged or reduced to (rows, columns) by the nearest pixel centre."""
    scales = zip(mask.shape, (rows, columns), strict=True)
    return mask[np.ix_(*(((np.arange(to) + 0.5) * have / to).astype(int) for have, to in scales))]
