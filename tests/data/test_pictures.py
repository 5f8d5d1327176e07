import io

import numpy as np
import pandas as pd
import pytest
from pictures_in_files import COLUMNS, ROWS, deep_png, dicom, dicom_ways, levels, other_ways, picture, pillow
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from miram.data.own_images.stage import Places, import_images
from miram.data.own_images.table import read_table
from miram.data.pictures.levels import whole_bits
from miram.data.pictures.picture import Range
from miram.data.pictures.reader import count_pixels, read_picture
from miram.data.pictures.survey import FILMS, Reading, summary, survey
from miram.errors import MiramError
from miram.train.predict import look
from miram.train.seen import Seen

WINDOW = {"shape": "tight", "margin": 0.0, "side_min": 1}
TABLES = ("lesions.csv", "set_aside.csv", "backgrounds.csv", "pictures.csv", "overview.md")
WAYS = dicom_ways() | other_ways()


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def imported(folder, names, levels="data", classes=2):
    """Crops, by lesion_id, and how `predict` reads, of a data set of some files of a folder."""
    rows = [(name, f"P{number}", f"class {number % classes}") for number, name in enumerate(names)]
    table = folder.parent / "images.csv"
    pd.DataFrame(rows, columns=["image", "patient", "label"]).to_csv(table, index=False)
    places = Places(*(folder.parent / name for name in ("crops", *TABLES)))
    own = {"folder": str(folder), "table_csv": str(table), "set_aside_max": 1.0}
    rule = {"levels": levels, "component": "union", **WINDOW, "bits": 8}
    facts = import_images(read_table(table, folder), places, **own, **rule)
    crops = {path.stem: np.asarray(Image.open(path)) for path in (folder.parent / "crops").iterdir()}
    return crops, Seen(levels=levels, ranges=facts["ranges"], films=False, component="union", **WINDOW)


def read(path, levels="data", ranges=None):
    return Reading(levels, {} if ranges is None else ranges).read(path)[0] >> 8


def survey_of(paths, levels="data"):
    return survey(paths, levels, list)


def same(found, tolerance=1):
    return found.shape == (ROWS, COLUMNS) and np.abs(found.astype(int) - picture()).max() <= tolerance


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_picture_is_the_same_for_training_and_for_predict_however_it_is_written(tmp_path, name):
    (tmp_path / "scratch").mkdir()
    content = WAYS[name](tmp_path / "scratch")
    paths = write(tmp_path / "own", {name: content, f"copy of {name}": content})
    crops, reading = imported(tmp_path / "own", paths)
    assert len(crops) == 2 and all(same(crop) for crop in crops.values())
    assert same(look(paths[name], None, reading)[0])


@pytest.mark.parametrize("name", sorted(WAYS))
def test_the_header_alone_tells_how_many_pixels_will_be_decoded(tmp_path, name):
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "picture"
    path.write_bytes(WAYS[name](tmp_path / "scratch"))
    assert count_pixels(path) == ROWS * COLUMNS
    path.write_bytes(b"no picture")
    assert count_pixels(path) == 0


def test_a_jpeg_is_the_same_picture_but_for_what_jpeg_loses(tmp_path):
    smooth = np.add.outer(np.arange(ROWS) * 10, np.arange(COLUMNS) * 9).astype(np.uint8)
    for image, name in ((Image.fromarray(smooth), "grey.jpg"), (Image.fromarray(smooth).convert("RGB"), "rgb.jpeg")):
        paths = write(tmp_path / "own", {name: pillow(image, "JPEG", quality=98)})
        assert np.abs(read(paths[name]).astype(int) - smooth).max() <= 4


def test_black_and_white_is_black_and_white_in_either_polarity(tmp_path):
    mask = picture() > 127
    image = Image.fromarray(mask)
    files = {"1.png": pillow(image, "PNG"), "1.tif": pillow(image, "TIFF"), "1.pbm": pillow(image, "PPM")}
    packed = np.packbits(mask.ravel(), bitorder="little")
    header = dcmread(io.BytesIO(dicom(picture(), stored=8)))
    header.BitsAllocated, header.BitsStored, header.HighBit = 1, 1, 0
    header.PixelData = packed.tobytes() + b"\0" * (packed.size % 2)
    stream = io.BytesIO()
    header.save_as(stream)
    for path in write(tmp_path / "own", files | {"1.dcm": stream.getvalue()}).values():
        assert np.array_equal(read(path), 255 * mask), path


@pytest.mark.parametrize("rule", ["stored", "data", "image"])
def test_honest_files_are_alike_under_every_rule(tmp_path, rule):
    files = {f"{bits}.dcm": dicom(levels(bits), stored=bits) for bits in (10, 12, 14, 16)}
    paths = write(tmp_path / "own", files | {"8.png": pillow(Image.fromarray(picture()), "PNG")})
    crops, reading = imported(tmp_path / "own", paths, rule)
    assert all(same(crop) for crop in crops.values()) and len(crops) == 5
    assert all(same(look(path, None, reading)[0]) for path in paths.values())


def test_by_the_rule_stored_levels_of_12_bits_in_16_stay_dark_and_are_named(tmp_path):
    paths = write(tmp_path / "own", {"12 in 16.png": pillow(Image.fromarray(levels(12)), "PNG")})
    found = survey_of(paths, "stored")
    assert read(paths["12 in 16.png"], "stored").max() == 15
    assert "fill less than an eighth of 0 to 65535" in found.rows["12 in 16.png"]["note"]
    assert "look at 12 in 16.png" in summary(found, "stored")


def test_a_darker_picture_of_a_data_set_stays_darker_but_not_nearly_black(tmp_path):
    files = {"bright.png": levels(12), "darker.png": levels(12) // 4, "16 bits.png": levels(16)}
    paths = write(tmp_path / "own", {name: pillow(Image.fromarray(own), "PNG") for name, own in files.items()})
    found = survey_of({name: paths[name] for name in ("bright.png", "darker.png")})
    assert found.ranges == {"PNG, 16 bits": Range(0, 12)}
    assert read(paths["darker.png"], ranges=found.ranges).max() == 63
    mixed = survey_of(paths)
    assert mixed.ranges == {"PNG, 16 bits": Range(0, 16)}
    assert same(read(paths["bright.png"], ranges=mixed.ranges)) and same(
        read(paths["16 bits.png"], ranges=mixed.ranges)
    )
    assert "do not fit those of its kind" in mixed.rows["bright.png"]["note"] and not mixed.rows["16 bits.png"]["note"]


def test_makers_whose_files_declare_the_same_bits_have_ranges_of_their_own(tmp_path):
    files = {f"{bits}.dcm": dicom(levels(bits), stored=16, Manufacturer=f"Maker {bits}") for bits in (12, 14)}
    paths = write(tmp_path / "own", files)
    found = survey_of(paths)
    assert found.ranges == {f"DICOM, 16 bits, Maker {bits}": Range(0, bits) for bits in (12, 14)}
    assert all(same(read(path, ranges=found.ranges)) for path in paths.values())
    assert "1 of DICOM, Maker 12, 16 bits declared: levels 0 to 4095, shown 0 to 4095" in summary(found, "data")


def test_predict_reads_with_the_ranges_of_training_and_says_where_a_picture_leaves_them(tmp_path):
    dark, brighter = levels(12) // 2, levels(14)
    paths = write(
        tmp_path / "own", {f"{n}.png": pillow(Image.fromarray(own), "PNG") for n, own in enumerate((dark, brighter))}
    )
    trained = Reading("data", {"PNG, 16 bits": Range(0, 12)})
    assert (trained.read(paths["0.png"])[0] >> 8).max() == 127 and not trained.read(paths["0.png"])[1]
    pixels, note = trained.read(paths["1.png"])
    assert same(pixels >> 8) and "do not fit those of its kind, 0 to 4095" in note


def test_a_network_of_films_takes_16_bits_as_they_are_and_brightens_what_would_be_nearly_black(tmp_path):
    half = levels(16) // 2
    paths = write(
        tmp_path / "own", {f"{n}.png": pillow(Image.fromarray(own), "PNG") for n, own in enumerate((half, levels(12)))}
    )
    assert np.array_equal(FILMS.read(paths["0.png"])[0], half)
    pixels, note = FILMS.read(paths["1.png"])
    assert same(pixels >> 8) and "levels 0 to 4095" in note


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        *[(0, 0, (0, 1)), (0, 1, (0, 1)), (7, 255, (0, 8)), (0, 256, (0, 9)), (0, 65535, (0, 16))],
        *[(-2048, 2047, (-2048, 12)), (-1024, 3071, (-1024, 12)), (-5, 4000, (-8, 12)), (-1, 0, (-1, 1))],
    ],
)
def test_a_range_of_whole_bits_holds_the_levels(lowest, highest, expected):
    assert whole_bits(lowest, highest) == expected


def test_the_window_of_a_file_is_used_where_it_is_asked_for(tmp_path):
    twelve = levels(12)
    window = {"WindowCenter": [1024.5, 9], "WindowWidth": [1025, 9]}  # 512 to 1536
    files = {
        "window.dcm": dicom(twelve, stored=12, **window),
        "inverted.dcm": dicom(4095 - twelve, stored=12, RescaleSlope="-1", RescaleIntercept="4095", **window),
        "monochrome1.dcm": dicom(
            4095 - twelve, stored=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=3071.5, WindowWidth=1025
        ),
        "exact.dcm": dicom(twelve, stored=12, WindowCenter=1024, WindowWidth=1024, VOILUTFunction="LINEAR_EXACT"),
        "none.dcm": dicom(twelve, stored=16),
    }
    paths = write(tmp_path / "own", files)
    expected = np.clip((twelve.astype(float) - 512) / 1024, 0, 1) * 255
    for name in list(files)[:4]:
        assert np.abs(read(paths[name], "window") - expected).max() <= 1.1, name
    assert same(read(paths["none.dcm"], "window")) and same(read(paths["window.dcm"], "data"))
    files = {"window.dcm": dicom(twelve, stored=16, **window), "none.dcm": dicom(levels(14), stored=16)}
    found = survey(write(tmp_path / "mixed", files), "window", iter)  # the window's own range widens none
    assert [found.rows[name]["shown_to"] for name in files] == [65535, 16383]


def test_a_voi_lut_is_used_where_it_is_asked_for_and_a_modality_lut_always(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096)[::-1] * 16).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    table.ModalityLUTType = "US"
    files = {
        f"{name}.dcm": dicom(4095 - levels(12), stored=12, **{f"{name}LUTSequence": [table]})
        for name in ("VOI", "Modality")
    }
    paths = write(tmp_path / "own", files)
    assert same(read(paths["VOI.dcm"], "window")) and not same(read(paths["VOI.dcm"]))
    assert same(read(paths["Modality.dcm"])) and same(read(paths["Modality.dcm"], "window"))


def refused():
    """Files that hold no picture that can be used, and what is said of them."""
    eight, twelve = picture(), levels(12)
    grey, other = Image.fromarray(eight), Image.fromarray(255 - eight)
    several = np.repeat(twelve[None], 3, axis=0).reshape(-1, COLUMNS)
    deep = pillow(grey, "PNG")
    return {
        "colour.png": (pillow(Image.merge("RGB", [grey, grey, other]), "PNG"), "is in colour: its channels differ"),
        "see through.png": (pillow(Image.merge("LA", [grey, other]), "PNG"), "is transparent in places"),
        "cmyk.jpg": (pillow(grey.convert("CMYK"), "JPEG"), "is in colour: Pillow's mode CMYK"),
        "two.tif": (pillow(grey, "TIFF", save_all=True, append_images=[other]), "holds 2 pages"),
        "fractions.tif": (pillow(Image.fromarray(twelve / np.float32(7)), "TIFF"), "32 bits that are not whole"),
        "48.png": (deep_png(twelve), "3 channels of 16 bits, of which Pillow reads 8"),
        "wide.tif": (pillow(Image.fromarray(twelve.astype(np.int32) * 99), "TIFF"), "32 bits that are not whole"),
        "cut.png": (deep[: len(deep) // 2], "cannot be decoded"),
        "text.dcm": (b"no picture", "cannot be decoded: it is not DICOM, PNG"),
        "empty.png": (b"", "cannot be decoded: it is not DICOM, PNG"),
        "mark.dcm": (b"\0" * 128 + b"DICM" + b"rubbish", "not a DICOM file"),
        "cut.dcm": (dicom(twelve, stored=12)[:-20], "not a DICOM file that can be decoded"),
        "bare.dcm": (dicom(twelve, stored=12, without=("PixelData",)), "holds no pixel data"),
        "beyond.dcm": (dicom(twelve, stored=11), "BitsStored = 11, and a pixel of 4095"),
        "frames.dcm": (dicom(several, stored=12, Rows=ROWS, NumberOfFrames=3), "holds 3 frames"),
        "palette.dcm": (dicom(eight, stored=8, PhotometricInterpretation="PALETTE COLOR"), "is not grey: .*PALETTE"),
        "32.dcm": (dicom(twelve.astype(np.uint32), stored=32), "grey levels of 32 bits"),
    }


@pytest.mark.parametrize("name", sorted(refused()))
def test_what_cannot_be_used_is_set_aside_with_a_true_reason(tmp_path, name):
    content, why = refused()[name]
    path = write(tmp_path / "own", {name: content})[name]
    with pytest.raises(MiramError, match=why) as fault:
        read_picture(path, "data")
    assert str(path) in fault.value.message
    found = survey_of({name: path})
    assert name in found.aside and not found.rows and f"set aside {name}" in summary(found, "data")


def test_a_link_is_followed_and_one_that_leads_nowhere_is_called_so(tmp_path):
    path = write(tmp_path / "own", {"8.png": pillow(Image.fromarray(picture()), "PNG")})["8.png"]
    (tmp_path / "good").symlink_to(path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    assert same(read(tmp_path / "good"))
    with pytest.raises(
        MiramError, match=r"dangling\.png cannot be read: it is a link to .*gone, where there is no file"
    ):
        read_picture(tmp_path / "dangling.png", "data")
    with pytest.raises(MiramError, match="it does not exist"):
        read_picture(tmp_path / "none.png", "data")


def test_what_was_found_is_kept_as_a_table_and_printed(tmp_path, capsys):
    one = dicom(4095 - levels(12), stored=12, PhotometricInterpretation="MONOCHROME1", Manufacturer="Maker")
    paths = write(
        tmp_path / "own", {"a.dcm": one, "b.dcm": one, "c.png": pillow(Image.fromarray(picture()), "PNG"), "d.png": b""}
    )
    crops, _ = imported(tmp_path / "own", paths)
    assert all(same(crop) for crop in crops.values())
    table = pd.read_csv(tmp_path / "pictures.csv", keep_default_na=False).set_index("image")
    assert list(table.index) == ["a.dcm", "b.dcm", "c.png"]
    row = table.loc["a.dcm"]
    assert (row["format"], row["manufacturer"], row["bits"], row["inverted"]) == ("DICOM", "Maker", 12, True)
    assert (row["lowest"], row["highest"], row["shown_from"], row["shown_to"]) == (0, 4095, 0, 4095)
    said = capsys.readouterr().out
    assert "3 read, 1 set aside; levels: data" in said and "2 of DICOM, Maker, 12 bits declared" in said
    assert "2 of them inverted" in said and "set aside d.png" in said
