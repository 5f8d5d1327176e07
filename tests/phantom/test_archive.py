"""The embedded archive: deterministic, with the form and the defects of CBIS-DDSM, and classes that can be learned."""

import csv
import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from miram.data.case_lists import read_lesions
from miram.phantom.archive import MANIFEST, write_archive
from miram.phantom.lesions import DRAWN, draw_lesion, place
from miram.phantom.tissue import load_breasts, vary

SIZES = {"patients": 100, "films_rows": 416, "films_columns": 288}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    return folder, write_archive(folder, **SIZES, seed=7)


@pytest.fixture(scope="module")
def lesions(archive):
    return read_lesions(archive[0] / "csv")


@pytest.fixture(scope="module")
def headers(archive):
    paths = sorted((archive[0] / "series").rglob("*.dcm"))
    return {path: dcmread(path, stop_before_pixels=True) for path in paths}


def bytes_of(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    small = {"patients": 40, "films_rows": 416, "films_columns": 288}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_archive(tmp_path / name, **small, seed=seed)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert not set(bytes_of(tmp_path / "a").values()) & set(bytes_of(tmp_path / "c").values())


def test_about_80_lesions_are_in_the_test_set_in_the_real_shares(lesions):
    test = lesions[lesions["official_split"] == "test"]
    assert 75 <= len(test) <= 95
    shares = test.groupby(["abnormality", "pathology"]).size() / len(test)
    assert shares["mass", "BENIGN"] == pytest.approx(0.33, abs=0.06)
    assert shares["calcification", "MALIGNANT"] == pytest.approx(0.18, abs=0.06)
    assert lesions["patient_id"].nunique() == 100


def test_every_file_has_the_form_of_the_real_ones_and_is_small(headers):
    for path, header in headers.items():
        assert path.stat().st_size < 1_000_000
        assert header.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert (header.PhotometricInterpretation, header.PixelRepresentation, header.InstanceNumber) == (
            "MONOCHROME2",
            0,
            1,
        )
        assert header.BitsAllocated == (8 if "mask" in header.SeriesDescription and header.BitsAllocated == 8 else 16)


def test_mask_and_crop_share_a_series_in_either_order_but_for_some(archive, lesions):
    orders = Counter()
    for row in lesions.itertuples():
        files = sorted((archive[0] / "series" / row.mask_uid).iterdir())
        if row.mask_uid == row.crop_uid:
            orders[tuple(dcmread(file, stop_before_pixels=True).BitsAllocated for file in files)] += 1
        else:
            orders["two series"] += 1
    assert orders[8, 16] > 50
    assert orders[16, 8] > 50
    assert 4 <= orders["two series"] <= 10


def test_the_defects_of_the_real_archive_are_planted(archive, lesions, headers):
    folder = archive[0]
    films = {
        uid: dcmread(next((folder / "series" / uid).iterdir()), stop_before_pixels=True) for uid in lesions["film_uid"]
    }
    ratios = Counter()
    for row in lesions.itertuples():
        film = films[row.film_uid]
        series = [file for uid in {row.mask_uid, row.crop_uid} for file in (folder / "series" / uid).iterdir()]
        mask = next(header for header in map(dcmread, series) if header.BitsAllocated == 8)
        ratios[round(mask.Rows / film.Rows, 2), round(mask.Columns / film.Columns, 2)] += 1
        ratios["empty"] += not mask.pixel_array.any()
        ratios["swapped"] += (
            dcmread(next((folder / "series" / row.mask_uid).iterdir())).BitsAllocated == 16 and len(series) == 2
        )
    assert ratios[0.87, 0.87] == 4
    assert ratios[0.8, 1.0] == 1
    assert ratios["empty"] == 1
    assert any(header.PatientID.startswith("P_") for header in headers.values())
    parts = lesions.groupby("patient_id")["official_split"].nunique()
    assert (parts == 2).sum() == 3


def test_shared_patients_have_the_same_film_under_two_uids(archive, lesions):
    shared = lesions[lesions.groupby("patient_id")["official_split"].transform("nunique") == 2]
    for _, film in shared.groupby(["patient_id", "view"]):
        uids = set(film["film_uid"])
        pixels = {dcmread(next((archive[0] / "series" / uid).iterdir())).PixelData for uid in uids}
        assert (len(uids), len(pixels)) == (2, 1)


def test_case_lists_have_the_quirks_of_the_real_ones(archive):
    heads = {}
    for name, quoted in (("mass", "ROI mask file path"), ("calc", "cropped image file path")):
        with open(archive[0] / "csv" / f"{name}_case_description_train_set.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        heads[name] = rows[0].keys()
        assert all(row[quoted].endswith("\n") for row in rows)
    assert "breast_density" in heads["mass"]
    assert "breast density" in heads["calc"]
    manifest = (archive[0] / "csv" / MANIFEST).read_text().splitlines()
    assert manifest[5] == "ListOfSeriesToDownload="
    assert len(manifest[6:]) == archive[1]["series"] == len(list((archive[0] / "series").iterdir()))


@pytest.fixture(scope="module")
def crops():
    """120 crops of each class as (N, 48, 48) float, their classes (N,), and their native sides (N,) in px."""
    breasts, random = load_breasts(SIZES["films_rows"], SIZES["films_columns"]), np.random.default_rng(0)
    images, classes, sides = [], [], []
    for number, kind in enumerate(list(DRAWN) * 120):
        breast = vary(breasts[("CC", "MLO")[number % 2]][int(random.integers(4))], 416, 288, random)
        lesion = draw_lesion(*kind, random)
        corner = place(lesion, breast.tissue, random)
        if corner is None:
            continue
        window = tuple(slice(start, start + len(lesion.grey)) for start in corner)
        crop = (np.clip(breast.film[window] + lesion.grey, 0, 1) * 255).astype(np.uint8)
        rows, columns = np.nonzero(lesion.outline)
        side = max(np.ptp(rows), np.ptp(columns)) + 1
        crop = crop[rows.min() : rows.min() + side, columns.min() : columns.min() + side]
        images.append(np.asarray(Image.fromarray(crop).resize((48, 48), Image.Resampling.BICUBIC), float))
        classes.append(list(DRAWN).index(kind))
        sides.append(side)
    return np.array(images), np.array(classes), np.array(sides)


def accuracy(model, features, classes):
    return cross_val_score(model, features, classes, cv=5).mean()


def test_mean_grey_and_size_do_not_tell_the_classes(crops):
    images, classes, sides = crops
    simple = np.stack([images.mean(axis=(1, 2)) / 255, sides / 60], axis=1)
    chance = np.bincount(classes).max() / len(classes)
    assert accuracy(LogisticRegression(C=100), simple, classes) < chance + 0.08


def test_texture_and_shape_tell_the_classes(crops):
    images, classes, _ = crops
    gradient = np.hypot(*np.gradient(images, axis=(1, 2)))
    blocks = gradient.reshape(len(images), 6, 8, 6, 8)
    texture = np.concatenate(
        [blocks.mean(axis=(2, 4)).reshape(len(images), -1), np.percentile(gradient, [50, 90, 99], axis=(1, 2)).T], 1
    )
    assert accuracy(RandomForestClassifier(100, random_state=0), texture, classes) > 0.7
