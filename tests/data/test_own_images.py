import hashlib

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from tiny_archive import dicom_bytes

from miram.data.own_images import identifiers, image_paths, import_images, read_table
from miram.errors import MiramError

WINDOW = {"levels": "data", "shape": "square", "margin": 0.0, "side_min": 1, "bits": 8}
TABLES = ("lesions", "set_aside", "backgrounds", "pictures")
ROWS = [  # image, patient, label, split
    ("a/one.png", "P1", "cyst", "train"),
    ("a/two.png", "P1", "tumour", "train"),
    ("b/one.dcm", "P2", "tumour", "test"),
]


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


def write_table(own, rows=ROWS, columns=("image", "patient", "label", "split")):
    table = own.parent / "images.csv"
    pd.DataFrame(rows, columns=list(columns)).to_csv(table, index=False)
    return table


def run(own, table, **changes):
    tables = [own.parent / f"{name}.csv" for name in TABLES]
    facts = import_images(own.parent / "crops", *tables, folder=str(own), table_csv=str(table), **{**WINDOW, **changes})
    return facts, *(pd.read_csv(path, dtype=str, keep_default_na=False) for path in tables[:3])


def crop(own, name):
    with Image.open(own.parent / "crops" / f"{name}.png") as image:
        return np.asarray(image)


def test_an_image_becomes_a_square_crop_and_a_row_with_what_is_known(own):
    facts, lesions, aside, backgrounds = run(own, write_table(own))
    ranges = {kind: (0, bits) for kind, bits in (("DICOM, 16 bits", 16), ("PNG, 16 bits", 16), ("PNG, 8 bits", 8))}
    assert facts == {"images": 3, "set_aside": 0, "classes": {"cyst": 1, "tumour": 2}, "ranges": ranges}
    assert aside.empty and backgrounds.empty and "background_id" in backgrounds
    assert list(lesions["lesion_id"]) == ["Image_a_one", "Image_a_two", "Image_b_one"]
    row = lesions.set_index("lesion_id").loc["Image_a_one"]
    assert (row["patient_id"], row["label"], row["official_split"], row["film_uid"]) == (
        "P1",
        "cyst",
        "train",
        "a/one.png",
    )
    assert (row["film_rows"], row["film_columns"], row["crop_rows"], row["y0"], row["pathology"]) == (
        "6",
        "8",
        "8",
        "-1",
        "",
    )
    pixels = crop(own, "Image_a_one")
    with Image.open(own / "a" / "one.png") as image:
        assert np.array_equal(pixels[1:7], np.asarray(image)) and not pixels[[0, 7]].any()
    assert row["crop_sha256"] == hashlib.sha256(pixels).hexdigest()


def test_bits_and_shape_are_those_of_the_crops_of_films(own):
    run(own, write_table(own), bits=16, shape="tight")
    assert crop(own, "Image_a_two").shape == (5, 4)
    with Image.open(own / "a" / "two.png") as image:
        sixteen = np.asarray(image)
    assert np.array_equal(crop(own, "Image_a_two"), sixteen)
    run(own, write_table(own), bits=8, shape="tight")
    assert np.array_equal(crop(own, "Image_a_two"), (sixteen >> 8).astype(np.uint8))


def test_images_that_cannot_be_read_are_set_aside_with_their_reason_and_old_crops_go(own):
    run(own, write_table(own))
    Image.new("RGB", (4, 4), (1, 2, 3)).save(own / "a" / "colour.png")
    (own / "a" / "cut.png").write_bytes((own / "a" / "one.png").read_bytes()[:60])
    Image.new("L", (4, 4)).save(own / "a" / "short.tiff")
    (own / "a" / "short.tiff").write_bytes((own / "a" / "short.tiff").read_bytes()[:-5])
    (own / "a" / "text.dcm").write_text("no DICOM")
    names = ("colour.png", "cut.png", "short.tiff", "text.dcm")
    broken = [(f"a/{name}", "P3", "cyst", "train") for name in names]
    facts, lesions, aside, _ = run(own, write_table(own, [ROWS[0], ROWS[2], *broken]))
    assert facts["set_aside"] == len(aside) == 4 and len(lesions) == 2
    reasons = aside.set_index("film_uid")["reason"]
    assert "its channels differ" in reasons["a/colour.png"]
    assert "cannot be decoded" in reasons["a/cut.png"] and "cannot be decoded" in reasons["a/short.tiff"]
    assert "is no DICOM" in reasons["a/text.dcm"]
    assert not (own.parent / "crops" / "Image_a_two.png").exists()


def test_a_table_without_a_split_leaves_it_blank_and_paths_are_those_of_its_images(own):
    table = write_table(own, [row[:3] for row in ROWS], ("image", "patient", "label"))
    assert set(read_table(table, own)["official_split"]) == {""}
    assert image_paths(table, own) == [own / row[0] for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([("a/none.png", "P1", "cyst", "train")], r"image 1 .* image = 'a/none.png', which is not in"),
        ([("../images.csv", "P1", "cyst", "train")], r"'../images.csv', which leads out of"),
        ([("a/p{3}.png", "P1", "cyst", "train")], r"image = 'a/p\{3\}.png', in whose path a brace"),
        ([("/etc/hostname", "P1", "cyst", "train")], r"'/etc/hostname', which leads out of"),
        ([ROWS[0], ("a/two.png", "P1", "", "train")], r"image 2 .* label = '', which is empty"),
        ([ROWS[0], ("a/two.png", " ", "cyst", "train")], r"image 2 .* patient = '', which is empty"),
        ([ROWS[0], ("a/two.png", "P1", "cyst", "holdout")], r"split = 'holdout', allowed: train, test"),
        ([ROWS[0], ("a/two.png", "P1", "cyst", "")], r"split = '', allowed: train, test"),
        ([ROWS[0], ROWS[0]], r"image 2 .* which stands twice"),
        ([ROWS[1], ROWS[2]], r"2 of 2 images can be read, of 1 classes"),
        ([], "names no image"),
    ],
)
def test_a_fault_of_the_table_is_named_with_its_row(own, rows, named):
    (own / "a" / "one.dcm").write_bytes(b"")
    with pytest.raises(MiramError, match=named):
        run(own, write_table(own, rows))
    assert not (own.parent / "lesions.csv").exists()


def test_a_table_that_is_no_table_is_named(own):
    with pytest.raises(MiramError, match=r"no table .*none\.csv"):
        read_table(own / "none.csv", own)
    with pytest.raises(MiramError, match="lacks the column patient, label"):
        read_table(write_table(own, [("a/one.png",)], ("image",)), own)
    (own / "bad.csv").write_text('image,patient,label\n"a,P,x\n')
    for path in (own / "bad.csv", own / "a"):
        with pytest.raises(MiramError, match=f"{path} cannot be read as CSV"):
            read_table(path, own)


def test_links_are_followed_and_one_that_leads_nowhere_is_called_so(own):
    (own / "a" / "two.png").rename(own.parent / "elsewhere")
    (own / "a" / "two.png").symlink_to(own.parent / "elsewhere")
    (own / "c").symlink_to(own / "b")
    rows = [*ROWS, ("c/one.dcm", "P2", "tumour", "test")]
    assert run(own, write_table(own, rows))[0]["images"] == 4
    (own.parent / "elsewhere").unlink()
    with pytest.raises(
        MiramError, match=r"image 2 .*two\.png', which is not in .*: it is a link to .*elsewhere, where"
    ):
        read_table(write_table(own), own)


def test_ids_are_readable_and_never_collide(own):
    names = ["1.2.840.2", "1.2.840.3", "a/x.png", "a/x.dcm", "a_x.tiff", "ä.png", "ö.png", "B.PNG", f"{'n' * 200}.png"]
    ids = list(identifiers(pd.Series(names)))
    assert ids[:2] == ["Image_1.2.840.2", "Image_1.2.840.3"] and ids[7] == "Image_B"
    assert len({name.lower() for name in ids}) == len(names) and max(map(len, ids)) < 130
    assert all(name.isascii() and name.startswith("Image_") for name in ids)
    assert ids[2].startswith("Image_a_x_") and ids[3].startswith("Image_a_x_")
    assert identifiers(pd.Series(names[2:4]))[0] == ids[2]


def test_half_a_class_in_monochrome1_is_inverted_and_not_lost(own):
    white = pydicom.dcmread(own / "b" / "one.dcm")
    expected = white.pixel_array
    white.PhotometricInterpretation, white.PixelData = "MONOCHROME1", (65535 - expected).tobytes()
    white.save_as(own / "b" / "white")
    facts, *_ = run(own, write_table(own, [*ROWS, ("b/white", "P3", "tumour", "test")]))
    assert facts["set_aside"] == 0 and np.array_equal(crop(own, "Image_b_white"), expected >> 8)
