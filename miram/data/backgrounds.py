"""Where breast without a lesion is: squares that pre-training sees in addition to the lesions."""

import numpy as np

from miram.data.breast import Area, Areas
from miram.data.geometry import Box


def sample_squares(
    areas: Areas,
    film_shape: tuple[int, int],
    avoid: list[Box],
    sides: list[int],
    count: int,
    random: np.random.Generator,
) -> list[Box]:
    """Up to `count` squares of film pixels that show only breast and overlap neither `avoid` nor each other.

    The side of each is drawn from `sides`, its position from all where it fits; if none is left, there are fewer.
    """
    rows, columns = (length // areas.step for length in film_shape)  # map pixels that lie wholly inside the film
    free = areas.map[:rows, :columns] == Area.BREAST
    for box in avoid:
        _occupy(free, box.within(*film_shape), areas.step)
    squares = []
    for _ in range(count):
        side = int(random.choice(sides))
        places = _places(free, _cells(0, side, areas.step).stop)
        if len(places):
            y0, x0 = (int(place) * areas.step for place in places[random.integers(len(places))])
            squares.append(Box(y0, x0, y0 + side, x0 + side))
            _occupy(free, squares[-1], areas.step)
    return squares


def _places(free: np.ndarray, cells: int) -> np.ndarray:
    """The (row, column) of each square of cells x cells map pixels that are all free, by its first one."""
    sums = np.pad(free.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[cells:, cells:] - sums[:-cells, cells:] - sums[cells:, :-cells] + sums[:-cells, :-cells]
    return np.argwhere(inside == cells**2)


def _occupy(free: np.ndarray, box: Box, step: int) -> None:
    free[_cells(box.y0, box.y1, step), _cells(box.x0, box.x1, step)] = False


def _cells(start: int, end: int, step: int) -> slice:
    """The map pixels that film pixels `start` to `end` - 1 touch."""
    return slice(start // step, -(-end // step))
