"""The stage `images`: what becomes of one's own images, of the boxes and masks on them, and what the check tells."""

import hashlib

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from tiny_archive import dicom_bytes

from miram.data.cutting import LESION_COLUMNS
from miram.data.geometry import Box, cut_window, window_around
from miram.data.own_images.names import lesion_id
from miram.data.own_images.overview import require_positive
from miram.data.own_images.stage import Places, check_images, import_images
from miram.data.own_images.table import read_table
from miram.data.pictures import survey as surveying
from miram.errors import MiramError

VALUES = {
    **{"levels": "data", "component": "union", "shape": "square", "margin": 0.0, "side_min": 1, "bits": 8},
    "set_aside_max": 0.1,
}
HEAD = ("image", "patient", "label", "split", "x", "y", "width", "height", "mask")
ROWS = [
    ("a/one.png", "P1", "cyst", "train"),
    ("a/two.png", "P1", "tumour", "train"),
    ("b/one.dcm", "P2", "tumour", "test"),
]
DIVISION = {"validation_fraction": 0.3, "test_fraction": 0.2, "candidates": 20, "seed": 0}


@pytest.fixture
def own(tmp_path):
    """A folder of two PNGs, of 8 and of 16 bits, and a DICOM."""
    random = np.random.default_rng(0)
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "b").mkdir()
    Image.fromarray(random.integers(0, 256, (6, 8), dtype=np.uint8)).save(tmp_path / "own" / "a" / "one.png")
    Image.fromarray(random.integers(0, 2**16, (5, 4), dtype=np.uint16)).save(tmp_path / "own" / "a" / "two.png")
    film = random.integers(0, 2**16, (7, 7), dtype=np.uint16)
    (tmp_path / "own" / "b" / "one.dcm").write_bytes(dicom_bytes(film, "1.2"))
    return tmp_path / "own"


def read(own, rows):
    path = own.parent / "images.csv"
    pd.DataFrame([(*row, *[""] * (len(HEAD) - len(row))) for row in rows], columns=HEAD).to_csv(path, index=False)
    return read_table(path, own)


def places_in(own):
    tables = ("lesions.csv", "set_aside.csv", "backgrounds.csv", "pictures.csv", "overview.md")
    return Places(*(own.parent / name for name in ("crops", *tables)))


def run(own, rows=ROWS, **changes):
    table, places = read(own, rows), places_in(own)
    named = {"folder": str(own), "table_csv": "images.csv", **VALUES, **changes}
    facts = import_images(table, places, **named)
    lesions, aside, backgrounds = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in places.tables[:3])
    return facts, lesions, aside, backgrounds


def look(own, rows, shown=24, divisions=(), **changes):
    named = {"folder": str(own), "table_csv": "images.csv", **VALUES, **changes}
    return check_images(read(own, rows), shown=shown, divisions=divisions, **named)


def crop(own, name, place=""):
    with Image.open(own.parent / "crops" / f"{lesion_id(name, place)}.png") as image:
        return np.asarray(image)


def pixels_of(own, name):
    with Image.open(own / name) as image:
        return np.asarray(image)


def grey(own, name, seed, shape=(20, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(own / name)
    return pixels


def test_an_image_becomes_a_square_crop_and_a_row_with_what_is_known(own):
    facts, lesions, aside, backgrounds = run(own)
    ranges = {kind: (0, bits) for kind, bits in (("DICOM, 16 bits", 16), ("PNG, 16 bits", 16), ("PNG, 8 bits", 8))}
    counts = {"lesions": 3, "images": 3, "patients": 2, "set_aside": 0, "classes": {"cyst": 1, "tumour": 2}}
    assert facts == counts | {"ranges": ranges}
    assert aside.empty and backgrounds.empty and "background_id" in backgrounds
    assert list(lesions) == [*LESION_COLUMNS, "label"]
    row = lesions.set_index("film_uid").loc["a/one.png"]
    told = row["patient_id"], row["label"], row["official_split"], row["lesion_id"]
    assert told == ("P1", "cyst", "train", lesion_id("a/one.png", ""))
    place = row["film_rows"], row["film_columns"], row["crop_rows"], row["y0"], row["pathology"]
    assert place == ("6", "8", "8", "-1", "")
    pixels = crop(own, "a/one.png")
    assert np.array_equal(pixels[1:7], pixels_of(own, "a/one.png")) and not pixels[[0, 7]].any()
    assert row["crop_sha256"] == hashlib.sha256(pixels).hexdigest()


def test_bits_and_shape_are_those_of_the_crops_of_films(own):
    run(own, bits=16, shape="tight")
    sixteen = pixels_of(own, "a/two.png")
    assert np.array_equal(crop(own, "a/two.png"), sixteen)
    run(own, bits=8, shape="tight")
    assert np.array_equal(crop(own, "a/two.png"), (sixteen >> 8).astype(np.uint8))


@pytest.mark.parametrize("rule", [{}, {"shape": "tight"}, {"margin": 0.25, "side_min": 9}])
def test_boxes_and_masks_are_cut_as_lesions_of_films_are(own, rule):
    pixels = grey(own, "c.png", 1)
    mask = np.zeros((20, 30), np.uint8)
    mask[15:19, 25:30] = 255
    Image.fromarray(mask).save(own / "mask.png")
    boxed = ("c.png", "P3", "cyst", "train", "4", "2", "8", "5")
    _, lesions, *_ = run(own, [*ROWS, boxed, ("c.png", "P3", "tumour", "train", *[""] * 4, "mask.png")], **rule)
    keywords = {name: {**VALUES, **rule}[name] for name in ("shape", "margin", "side_min")}
    for box, place in ((Box(2, 4, 7, 12), "2,4,7,12"), (Box(15, 25, 19, 30), "mask.png")):
        window = window_around(box, **keywords)
        assert np.array_equal(crop(own, "c.png", place), cut_window(pixels, window))
        row = lesions.set_index("lesion_id").loc[lesion_id("c.png", place)]
        assert [int(row[name]) for name in ("box_y0", "box_x0", "box_rows", "box_columns")] == [
            box.y0,
            box.x0,
            *box.shape,
        ]
    assert lesions.loc[lesions["film_uid"] == "c.png", "film_sha256"].nunique() == 1


def test_the_parts_of_a_mask_that_count_are_those_of_crops_component(own):
    grey(own, "c.png", 1)
    mask = np.zeros((20, 30), np.uint16)
    mask[1:3, 1:3], mask[10:16, 10:18] = 1, 1
    Image.fromarray(mask).save(own / "mask.tif")
    rows = [*ROWS, ("c.png", "P3", "cyst", "train", *[""] * 4, "mask.tif")]
    for component, box in (("union", ["1", "1", "15", "17"]), ("largest", ["10", "10", "6", "8"])):
        row = run(own, rows, component=component)[1].set_index("film_uid").loc["c.png"]
        assert list(row[["box_y0", "box_x0", "box_rows", "box_columns"]]) == box
        assert row["repairs"] == f"components_{component}"


def test_boxes_and_masks_that_cannot_be_on_their_image_are_set_aside_with_a_reason(own):
    grey(own, "c.png", 1)
    for name, levels in {
        "empty": np.zeros((20, 30)),
        "small": np.eye(9),
        "image": np.arange(600).reshape(20, 30) % 9,
    }.items():
        Image.fromarray((levels * 20).astype(np.uint8)).save(own / f"{name}.png")
    off = [
        ("c.png", "P3", "cyst", "train", x, y, "9", "9")
        for x, y in (("22", "3"), ("-2", "3"), ("300", "300"), ("21.5", "3"))
    ]
    masks = [("c.png", "P3", "cyst", "train", *[""] * 4, f"{name}.png") for name in ("empty", "small", "image")]
    _, lesions, aside, _ = run(own, [*ROWS, *off, *masks], set_aside_max=1.0)
    reasons = aside.set_index("lesion_id")["reason"]
    assert len(aside) == 5 and set(aside["label"]) == {"cyst"}
    assert "30 columns and 20 rows, and the box reaches from 22, 3 to 31, 12" not in "".join(reasons)  # rounding
    assert "30 columns and 20 rows, and the box reaches from -2, 3 to 7, 12" in reasons[lesion_id("c.png", "3,-2,12,7")]
    assert "it has 1 grey levels" in reasons[lesion_id("c.png", "empty.png")]
    assert "a mask of 9 x 9 px, its image has 30 x 20" in reasons[lesion_id("c.png", "small.png")]
    assert "it has 9 grey levels, not two" in reasons[lesion_id("c.png", "image.png")]
    clipped = lesions.set_index("lesion_id").loc[lesion_id("c.png", "3,22,12,31")]
    assert (clipped["repairs"], clipped["box_columns"]) == ("box_clipped", "8")


def test_images_that_cannot_be_read_are_set_aside_with_their_reason_and_old_crops_go(own):
    run(own)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(own / "a" / "colour.png")
    (own / "a" / "cut.png").write_bytes((own / "a" / "one.png").read_bytes()[:60])
    Image.new("L", (4, 4)).save(own / "a" / "short.tiff")
    (own / "a" / "short.tiff").write_bytes((own / "a" / "short.tiff").read_bytes()[:-5])
    (own / "a" / "text.dcm").write_text("no DICOM")
    names = ("colour.png", "cut.png", "short.tiff", "text.dcm")
    broken = [(f"a/{name}", "P3", "cyst", "train") for name in names]
    facts, lesions, aside, _ = run(own, [ROWS[0], ROWS[2], *broken], set_aside_max=0.8)
    assert facts["set_aside"] == len(aside) == 4 and len(lesions) == 2
    reasons = aside.set_index("film_uid")["reason"]
    assert "its channels differ" in reasons["a/colour.png"]
    assert "cannot be decoded" in reasons["a/cut.png"] and "cannot be decoded" in reasons["a/short.tiff"]
    assert "is not DICOM" in reasons["a/text.dcm"]
    assert not (own.parent / "crops" / f"{lesion_id('a/two.png', '')}.png").exists()


def test_a_class_that_loses_more_than_is_allowed_stops_the_run_with_the_reasons(own):
    rows = [*ROWS]
    for number in range(10):
        name = f"{number}.png"
        grey(own, name, number)
        rows.append((name, f"P{number + 10}", "cyst", "train"))
    Image.new("RGB", (4, 4), (1, 2, 3)).save(own / "0.png")
    assert run(own, rows)[0]["set_aside"] == 1  # 1 of 11
    places_in(own).lesions_csv.unlink()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(own / "1.png")
    named = "2 of 11 lesions of class cyst are set aside, which is more than 10%. 2 of cyst: is in colour"
    with pytest.raises(MiramError, match=named) as caught:
        run(own, rows)
    assert "sources.images.set_aside_max" in caught.value.remedy and not places_in(own).lesions_csv.exists()
    assert run(own, rows, set_aside_max=0.2)[0]["set_aside"] == 2
    with pytest.raises(MiramError, match=r"2 of 2 lesions can be used, of 1 classes \(tumour\)"):
        run(own, ROWS[1:])


def test_half_a_class_in_monochrome1_is_inverted_and_not_lost(own):
    white = pydicom.dcmread(own / "b" / "one.dcm")
    expected = white.pixel_array
    white.PhotometricInterpretation, white.PixelData = "MONOCHROME1", (65535 - expected).tobytes()
    white.save_as(own / "b" / "white")
    facts, *_ = run(own, [*ROWS, ("b/white", "P3", "tumour", "test")])
    assert facts["set_aside"] == 0 and np.array_equal(crop(own, "b/white"), expected >> 8)


def test_a_picture_is_decoded_once_and_once_more_where_a_later_one_widens_its_range(own, monkeypatch):
    rows, read_names = [*ROWS], []
    for number, bits in enumerate((10, 12, 12, 9)):
        pixels = np.linspace(0, 2**bits - 1, 600).astype(np.uint16).reshape(20, 30)
        Image.fromarray(pixels).save(own / f"{number}.png")
        rows.append((f"{number}.png", "P9", "cyst", "train", *(["2", "2", "9", "9"] if number else [])))
    (own / "a" / "two.png").write_bytes((own / "0.png").read_bytes())
    decode = surveying.read_picture
    monkeypatch.setattr(
        surveying, "read_picture", lambda path, levels: read_names.append(path.name) or decode(path, levels)
    )
    run(own, rows, bits=16, shape="tight")
    assert sorted(read_names) == sorted(
        ["one.png", "two.png", "two.png", "one.dcm", "0.png", "0.png", "1.png", "2.png", "3.png"]
    )
    shown = np.linspace(0, 1023, 600).astype(np.uint16).reshape(20, 30).astype(np.uint32) * 65535 // 4095
    assert np.array_equal(crop(own, "0.png"), shown)


def test_unlabelled_images_have_crops_and_no_class(own):
    grey(own, "c.png", 3)
    unlabelled = ("a/one.png", "P1", "", "pretrain", "1", "1", "3", "3")
    facts, lesions, *_ = run(own, [*ROWS[1:], unlabelled, ("c.png", "P4", "cyst", "train")])
    row = lesions.set_index("film_uid").loc["a/one.png"]
    assert (row["official_split"], row["label"]) == ("pretrain", "") and facts["classes"] == {"cyst": 1, "tumour": 2}
    assert crop(own, "a/one.png", "1,1,4,4").shape == (3, 3)


def test_the_positive_class_is_one_of_the_table():
    require_positive(None, ["a"])
    require_positive("a", ["a", "b"])
    with pytest.raises(
        MiramError, match=r"sources\.images\.positive: 'Malignant' is not a class of the table: 'benign', 'malignant'"
    ):
        require_positive("Malignant", ["malignant", "benign"])


def leaking(own):
    """Two classes of ten images; 3.png is 2.png once more, of a patient of the test set and of another class."""
    rows = []
    for number in range(20):
        grey(own, f"{number}.png", number)
        part = "test" if number < 6 else "train"
        rows.append((f"{number}.png", f"P{number}", ("benign", "malignant")[number % 2], part))
    (own / "7.png").write_bytes((own / "2.png").read_bytes())
    rows[8] = ("8.png", "P1", "benign", "train")
    grey(own, "more.png", 99)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(own / "19.png")
    return [*rows, ("more.png", "P0", "", "pretrain")]


def test_the_check_counts_classes_parts_patients_losses_and_leaks_and_writes_nothing(own):
    rows = leaking(own)
    found = look(own, rows, divisions=[{"protocol": name, **DIVISION} for name in ("strict", "published")])
    assert found.fault is None and not places_in(own).lesions_csv.exists() and not places_in(own).crops_dir.exists()
    lines = [" ".join(line.replace("|", " ").split()) for line in found.text.splitlines()]
    for expected in (
        "21 lesions on 21 images of 19 patients; 1 of them are set aside.",
        "class train test pretrain used set aside patients",
        "benign 7 3 0 10 0 10",
        "malignant 6 3 0 9 1 9",
        "(no label) 0 0 1 1 0 1",
        "all 13 6 1 20 1 18",
        "malignant 1 is in colour: its channels differ. 19.png",
        "* patients in train and test: 1 (P1)",
        "* patients in pretrain and test: 1 (P0)",
        "* pictures under several names: 1 (2.png = 7.png)",
        "* pictures under several patients: 1 (2.png = 7.png)",
        "* pictures under several classes: 1 (2.png = 7.png)",
        "* pictures under several parts: 1 (2.png = 7.png)",
        "* 20 of PNG, 8 bits declared: levels 0 to 255, shown 0 to 255",
        "* excluded: 1 no label, 1 benign, 1 malignant",
    ):
        assert expected in lines, (expected, lines)
    run(own, rows)
    assert places_in(own).overview_md.read_text() in found.text


def test_the_check_shows_crops_of_every_class_as_far_as_there_are_some(own):
    rows = leaking(own)
    found = look(own, rows, shown=7)
    counts = pd.Series([sample.label for sample in found.samples]).value_counts()
    assert counts.to_dict() == {"benign": 3, "malignant": 3, "(no label)": 1}
    shown = next(sample for sample in found.samples if sample.label == "(no label)")
    assert shown.text == "more.png, patient P0" and shown.crop.dtype == np.uint8
    run(own, rows)
    assert np.array_equal(shown.crop, crop(own, "more.png"))
    assert len(look(own, rows).samples) == 20


def test_the_check_tells_everything_before_what_would_stop_the_run(own):
    rows = leaking(own)
    found = look(own, rows, set_aside_max=0.0)
    assert "1 of 10 lesions of class malignant" in found.fault.message and "benign" in found.text
    few = look(own, ROWS, divisions=[{"protocol": "strict", **DIVISION}])
    assert "cannot be divided" in few.fault.message and "cannot be divided" in few.text
