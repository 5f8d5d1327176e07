import hashlib
import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from tiny_archive import FILM_SHAPE, Server, dicom_bytes, mask_of
from tiny_runs import run_tiny, tcia

from miram.data import cutting as crops
from miram.data.case_lists import read_lesions
from miram.data.crop_rules import Cutting
from miram.data.cutting import cut_film, open_only
from miram.data.dicom import open_pixels
from miram.data.geometry import Box, fit_mask

MASK = mask_of(FILM_SHAPE, (20, 30, 40, 60))
RESCANNED = (round(0.87 * FILM_SHAPE[0]), round(0.87 * FILM_SHAPE[1]))
BACKGROUNDS = {"backgrounds_per_film": 2, "backgrounds_seed": 0}
VALUES = {"component": "union", "shape": "square", "margin": 0.0, "side_min": 1, "bits": 16, "air": 0.08}


def cut(archive, folder, **changes):
    """Serve the archive, cut it, and return facts, lesions and lesions set aside, both by lesion_id."""
    with closing(Server(archive)) as server:
        settings = {"keep_dicom": True, "crops": VALUES | BACKGROUNDS | changes}
        facts = run_tiny(folder, tcia(server), **settings)
    lesions, aside = (
        pd.read_csv(folder / f"{name}.csv", keep_default_na=False).set_index("lesion_id")
        for name in ("lesions", "set_aside")
    )
    assert len(lesions) + len(aside) == sum(map(len, archive.rows.values())), "a lesion vanished"
    assert {path.stem for path in (folder / "crops").iterdir()} == set(lesions.index)
    return facts, lesions, aside


def crop_of(folder, lesion_id) -> np.ndarray:
    return np.asarray(Image.open(folder / "crops" / f"{lesion_id}.png"))


def pixels_of(archive, film_uid, folder) -> np.ndarray:
    return pydicom.dcmread(folder / "dicom" / film_uid / "1-1.dcm").pixel_array


def test_plain_lesions_are_cut_at_native_size_with_their_facts(archive, tmp_path):
    facts, lesions, aside = cut(archive, tmp_path)
    counts = ("lesions", "set_aside", "backgrounds", "films")
    assert [facts[name] for name in counts] == [4, 0, 4, 4]
    assert facts["repairs"] == {} and aside.empty
    row = lesions.loc["Mass-Test_P_00001_LEFT_CC_1"]
    assert (row.box_x0, row.box_y0, row.box_columns, row.box_rows) == (30, 20, 30, 20)
    assert (row.x0, row.y0, row.crop_columns, row.crop_rows) == (30, 15, 30, 30)
    assert (row.film_rows, row.film_columns) == FILM_SHAPE
    whole, crop = pixels_of(archive, row.film_uid, tmp_path), crop_of(tmp_path, row.name)
    assert np.array_equal(crop, whole[15:45, 30:60])
    assert row.film_sha256 == hashlib.sha256(whole.astype("<u2").tobytes()).hexdigest()
    assert row.crop_sha256 == hashlib.sha256(crop.astype("<u2").tobytes()).hexdigest()
    assert (row.roi_uid, row.pathology, row.breast_density) == ("1.2.4.1", "MALIGNANT", 3)


def test_the_columns_are_those_that_other_stages_read(archive, tmp_path):
    cut(archive, tmp_path)
    assert (tmp_path / "lesions.csv").read_text().splitlines()[0] == (
        "lesion_id,patient_id,abnormality,official_split,side,view,abnormality_id,pathology,breast_density,assessment,"
        "subtlety,mass_shape,mass_margins,calc_type,calc_distribution,film_uid,roi_uid,film_rows,film_columns,box_x0,"
        "box_y0,box_columns,box_rows,x0,y0,crop_columns,crop_rows,outside_film,air,foreign,repairs,film_sha256,"
        "crop_sha256"
    )
    assert (tmp_path / "set_aside.csv").read_text() == "lesion_id,patient_id,official_split,side,view,film_uid,reason\n"


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
    assert (lesions.loc[name].x0, lesions.loc[name].y0, lesions.loc[name].crop_rows) == (-25, -10, 60)
    crop = crop_of(tmp_path, name)
    assert not crop[:10].any() and not crop[:, :25].any()
    assert np.array_equal(crop[10:, 25:], pixels_of(archive, "1.2.3.9", tmp_path)[:50, :35])


def test_tight_crops_are_no_squares_and_short_sides_are_lengthened(archive, tmp_path):
    _, lesions, _ = cut(archive, tmp_path, shape="tight", side_min=24)
    row = lesions.loc["Mass-Test_P_00001_LEFT_CC_1"]
    assert (row.x0, row.y0, row.crop_columns, row.crop_rows) == (30, 18, 30, 24)
    assert np.array_equal(crop_of(tmp_path, row.name), pixels_of(archive, row.film_uid, tmp_path)[18:42, 30:60])


def test_what_surrounds_the_breast_in_a_crop_is_told(archive, tmp_path):
    film = np.zeros(FILM_SHAPE, np.uint16)
    film[30:, 50:] = 40000  # breast
    film[10:20, 30:60] = 65535  # a label
    name = archive.lesion(9, archive.film(9, film), mask_of(FILM_SHAPE, (0, 20, 60, 100)))
    _, lesions, _ = cut(archive, tmp_path)
    row = lesions.loc[name]  # a window of 80 x 80 from (-10, 20)
    assert row.outside_film == 800 / 6400
    assert row.foreign == pytest.approx(300 / 6400, abs=0.04)  # outlines are a pixel wider
    assert row.air == pytest.approx(1 - (800 + 300 + 40 * 50) / 6400, abs=0.04)


def test_a_film_that_gives_slices_only_is_cut_alike_and_its_hash_is_unknown(archive, tmp_path):
    class Remote:
        def __init__(self, film):
            self.pixels = open_pixels(film)
            self.shape, self.dtype = self.pixels.shape, self.pixels.dtype

        def __getitem__(self, slices):
            return np.array(self.pixels[slices])

    _, dicom_dir = archive.write(tmp_path)
    lesions = read_lesions(tmp_path / "csv")
    on_film = lesions[lesions["film_uid"] == "1.2.3.1"].to_dict("records")
    cutting = Cutting(**VALUES, **BACKGROUNDS)
    (here, crop), (there, same) = (
        next(cut_film(on_film, open_only(dicom_dir, "1.2.3.1", air=cutting.air, open_film=way), dicom_dir, cutting))
        for way in (open_pixels, Remote)
    )
    assert np.array_equal(crop, same)
    assert here.pop("film_sha256") and there.pop("film_sha256") == "" and here == there


def test_backgrounds_are_pieces_of_training_films_away_from_the_lesions(archive, tmp_path):
    archive.lesion(20, archive.film(20), mask_of(FILM_SHAPE))  # its lesion is set aside: nobody knows where it is
    cut(archive, tmp_path, bits=8)
    table = pd.read_csv(tmp_path / "backgrounds.csv")
    assert sorted(table["film_uid"]) == ["1.2.3.0", "1.2.3.0", "1.2.3.2", "1.2.3.2"]
    assert set(table["official_split"]) == {"train"}
    assert {path.stem for path in (tmp_path / "backgrounds").iterdir()} == set(table["background_id"])
    lesion = mask_of(FILM_SHAPE, (15, 30, 45, 60))
    for row in table.itertuples():
        patch = np.asarray(Image.open(tmp_path / "backgrounds" / f"{row.background_id}.png"))
        own = Box(row.y0, row.x0, row.y0 + row.side_px, row.x0 + row.side_px)
        assert np.array_equal(patch, pixels_of(archive, row.film_uid, tmp_path)[own.y0 : own.y1, own.x0 : own.x1] >> 8)
        assert patch.shape == (30, 30) and not lesion[own.y0 : own.y1, own.x0 : own.x1].any()


def test_no_background_is_cut_where_none_is_asked_for(archive, tmp_path):
    assert cut(archive, tmp_path, backgrounds_per_film=0)[0]["backgrounds"] == 0
    assert len(pd.read_csv(tmp_path / "backgrounds.csv")) == 0


def test_mask_and_crop_are_told_apart_in_any_order_and_in_two_series(archive, tmp_path):
    names = [archive.lesion(number, archive.film(number), MASK) for number in (10, 11, 12)]
    one, two = archive.series["1.2.4.10"]["1-1.dcm"], archive.series["1.2.4.10"]["1-2.dcm"]
    archive.series["1.2.4.10"] = {"1-1.dcm": two, "1-2.dcm": one}
    rows = archive.rows["mass_case_description_train_set.csv"]
    for number, swapped in ((11, False), (12, True)):
        image = archive.series[f"1.2.4.{number}"]
        mask, crop = f"1.2.5.{number}", f"1.2.6.{number}"
        for uid, name in ((mask, "1-2.dcm"), (crop, "1-1.dcm")):
            pixels = pydicom.dcmread(io.BytesIO(image[name])).pixel_array
            archive.series[uid] = {"1-1.dcm": dicom_bytes(pixels, uid)}
        named = (crop, mask) if swapped else (mask, crop)
        row = next(row for row in rows if row["patient_id"] == f"P_{number:05d}")
        row["ROI mask file path"], row["cropped image file path"] = (f"f/9/{uid}/0.dcm" for uid in named)
    _, lesions, aside = cut(archive, tmp_path)
    assert aside.empty
    assert [lesions.loc[name].repairs for name in names] == ["", "", "series_swapped"]
    assert [lesions.loc[name].roi_uid for name in names] == ["1.2.4.10", "1.2.5.11", "1.2.5.12"]
    assert (lesions.loc[names][["x0", "y0", "crop_rows"]] == (30, 15, 30)).all(axis=None)


def test_a_rescanned_mask_is_resized_and_marked(archive, tmp_path):
    name = archive.lesion(9, archive.film(9), fit_mask(MASK, *RESCANNED), **{"breast density": "0", "subtlety": "0"})
    facts, lesions, _ = cut(archive, tmp_path)
    row = lesions.loc[name]
    assert row.repairs == "density_unknown;subtlety_unknown;mask_resized"
    assert facts["repairs"] == {"density_unknown": 1, "mask_resized": 1, "subtlety_unknown": 1}
    assert np.abs(np.array([row.x0, row.y0, row.crop_rows]) - (30, 15, 30)).max() <= 1
    assert (row.breast_density, row.subtlety) == ("", "")


@pytest.mark.parametrize(("component", "side"), [("union", 50), ("largest", 20)])
def test_a_mask_in_several_parts_follows_the_component_rule(archive, tmp_path, component, side):
    name = archive.lesion(9, archive.film(9), mask_of(FILM_SHAPE, (10, 10, 30, 30), (55, 50, 60, 55)))
    _, lesions, _ = cut(archive, tmp_path, component=component)
    assert (lesions.loc[name].crop_rows, lesions.loc[name].repairs) == (side, f"components_{component}")


def test_what_no_rule_saves_is_set_aside_with_the_file_and_the_reason(archive, tmp_path):
    def spoil(number: int, mask: np.ndarray | None, **files: bytes | None) -> str:
        name = archive.lesion(number, archive.film(number), mask)
        archive.series[f"1.2.4.{number}"] |= {
            key.replace("_", "-") + ".dcm": body for key, body in files.items() if body
        }
        return name

    whole = dicom_bytes(MASK, "1.2.4.25")
    reasons = {
        spoil(20, mask_of(FILM_SHAPE)): r"1\.2\.4\.20/1-2\.dcm is an empty mask",
        spoil(
            21, mask_of((RESCANNED[0], FILM_SHAPE[1]), (5, 5, 9, 9))
        ): r"no mask with the shape .*1\.2\.4\.21/1-2\.dcm of 104 x 100",
        spoil(22, mask_of((60, 50), (5, 5, 9, 9))): r"of 60 x 50 px",
        spoil(23, None): r"1\.2\.4\.23: no 8-bit image",
        spoil(
            24, None, _1_2=None, a=dicom_bytes(None, "1.2.4.24")
        ): r"no 8-bit image.*1\.2\.4\.24/a\.dcm holds no pixel data",
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
        paths = [path for path in tmp_path.glob("*/*.png")] + list(tmp_path.glob("*.csv"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    cut(archive, tmp_path)
    first = digests()
    (tmp_path / "crops" / "Mass-Test_P_99999_LEFT_CC_1.png").write_bytes(b"old")
    (tmp_path / "backgrounds" / "background_1.2.3.99_0.png").write_bytes(b"old")
    cut(archive, tmp_path)
    assert digests() == first


def test_the_rescan_tolerance_covers_rounding_and_nothing_more():
    def film(rows, columns):
        return crops.Film(Path("x"), "1.2", rows, columns, 8, None)

    assert crops._fits(film(3856, 2492), film(4432, 2864))
    assert crops._fits(film(362, 251), film(416, 288))
    assert not crops._fits(film(3856, 2864), film(4432, 2864))
    assert not crops._fits(film(4300, 2779), film(4432, 2864))
