"""The table of one's own images: how it may be written, and what is refused by name."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from miram.data.geometry import Box
from miram.data.own_images.names import lesion_id
from miram.data.own_images.table import image_paths, pixels_of_lesions, read_table
from miram.errors import MiramError

HEAD = ("image", "patient", "label", "split", "x", "y", "width", "height")
ROWS = [("a.png", "P1", "cyst", "train", "3,5", "2", "4", "4,5"), ("b.png", "P2", "tumour", "test", "", "", "", "")]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "größe.png"):
        Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12)).save(folder / name)
    return folder


def table_of(own, *rows, head=HEAD, sign=",", encoding="utf-8", begin="", end="\n"):
    def cell(text):
        return f'"{text}"' if sign in text else text

    lines = [sign.join(map(cell, row)) for row in (head, *rows)]
    path = own.parent / "images.csv"
    path.write_bytes((begin + end.join([*lines, ""])).encode(encoding))
    return path


def read(own, *rows, **ways):
    return read_table(table_of(own, *rows, **ways), own)


def test_a_row_is_a_lesion_with_the_whole_px_of_its_box(own):
    table = read(own, *ROWS)
    one, other = table.lesions
    assert (one.image, one.patient, one.label, one.part, one.mask) == ("a.png", "P1", "cyst", "train", "")
    assert one.box == Box(2, 3, 7, 8) and other.box is None and other.is_whole
    assert table.unread == [] and "comma" in table.written


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_every_dialect_of_a_spreadsheet_gives_the_same_table(own, encoding, sign):
    rows = [*ROWS, ("größe.png", "Müller", "cyst", "train", "", "", "", "")]
    expected = read(own, *rows).lesions
    found = read(own, *rows, encoding=encoding, sign=sign, end="\r\n")
    assert found.lesions == expected and found.lesions[2].patient == "Müller"
    told = ("UTF-8" if "utf-8" in encoding else encoding.upper()) if encoding != "cp1252" else "Windows-1252"
    assert told in found.written


def test_capital_headings_a_separator_line_blank_rows_and_trailing_signs_mean_nothing(own):
    expected = read(own, *ROWS).lesions
    head = [name.upper() + " " for name in HEAD]
    blank = [""] * len(HEAD)
    for begin in ("", "sep=;\r\n"):
        path = table_of(own, blank, *ROWS, blank, head=head, sign=";", begin=begin, end=";;\r\n")
        assert read_table(path, own).lesions == expected
    pipes = table_of(own, *ROWS, sign="|", begin="sep=|\n")
    assert read_table(pipes, own).lesions == expected
    assert read(own, *ROWS, end="\r").lesions == expected


def test_columns_that_are_not_read_are_told(own):
    table = read(own, ("a.png", "P1", "cyst", "note"), head=("image", "patient", "label", "Splitt"))
    assert table.unread == ["splitt"]


def test_a_file_that_may_be_read_in_two_ways_is_refused(own):
    path = own.parent / "images.csv"
    for text, encoding in (("乳腺囊肿", "gbk"), ("опухоль", "cp1251"), ("Geschwür", "mac_roman"), ("żółty", "cp1250")):
        path.write_bytes(f"image,patient,label\na.png,P1,{text}\n".encode(encoding))
        with pytest.raises(MiramError, match=r"not UTF-8, and the encoding is ambiguous"):
            read_table(path, own)
    path.write_bytes(b"PK\x03\x04 a workbook")
    with pytest.raises(MiramError, match="is a spreadsheet, not CSV"):
        read_table(path, own)


BOXED = ("a.png", "P1", "cyst", "train")


@pytest.mark.parametrize(
    ("boxes", "named"),
    [
        ([("1.234", "2", "3", "4")], "line 2: x = '1.234', which is ambiguous"),
        ([("1,5", "2.5", "3", "4")], "line 2: x = '1,5', which is ambiguous"),
        ([("one", "2", "3", "4")], "line 2: x = 'one', which is not a number"),
        ([("1.234,5", "2", "3", "4")], "which is not a number"),
        ([("1", "2", "", "4")], "line 2: width = '', which is not a number"),
        ([("1", "2", "0", "4")], "line 2: width = '0', less than one px"),
        ([("0.2", "0.2", "0.5", "0.4")], "line 2: width = '0.5', less than one px"),
        ([("1", "2", "3", "4"), ("1", "2", "3", "4")], "line 3: image = 'a.png', which is also on line 2"),
        ([("1", "2", "3", "4"), ("", "", "", "")], "line 3: image = 'a.png', which has a box or a mask only once"),
    ],
)
def test_a_box_that_cannot_be_right_or_means_two_things_is_named_with_its_line(own, boxes, named):
    with pytest.raises(MiramError, match=named):
        read(own, *[(*BOXED, *box) for box in boxes])


def test_decimals_are_clear_where_one_number_can_be_nothing_else(own):
    first, second = read(own, (*BOXED, "1.234", "2", "3", "4"), (*BOXED, "2.5", "2", "3", "4")).lesions
    assert (first.box.x0, first.box.x1) == (1, 5) and second.box.x1 == 6
    assert read(own, (*BOXED, "0,125", "2", "3", "4"), sign=";").lesions[0].box.x0 == 0


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (("none.png", "P1", "cyst", "train"), r"line 3: image = 'none.png', which is not in .*: it does not exist"),
        (("../images.csv", "P1", "cyst", "train"), r"'../images.csv', which leads out of"),
        ((r"..\images.csv", "P1", "cyst", "train"), r"images.csv', which leads out of"),
        (("/etc/hostname", "P1", "cyst", "train"), r"'/etc/hostname', which leads out of"),
        (("p{3}.png", "P1", "cyst", "train"), r"image = 'p\{3\}.png', but paths may not contain"),
        (("b.png", "P1", "", "train"), "line 3: label = '', which is empty"),
        (("b.png", " ", "cyst", "train"), "line 3: patient = '', which is empty"),
        (("b.png", "P1", "cyst", "holdout"), "split = 'holdout', allowed: train, test, pretrain"),
        (("b.png", "P1", "cyst", ""), "split = '', allowed: train, test, pretrain"),
        (("a.png", "P2", "cyst", "train"), "line 3: patient = 'P2', and line 2 gives the same image to 'P1'"),
        (("./a.png", "P1", "cyst", "train"), "which is also"),
        (("b.png", "P1", "cyst", "train", "beyond"), "line 3 has 'beyond' in a column without a heading"),
        (("b.png", "P1", "Cyst", "train"), r"label 'cyst' \(1\) and 'Cyst' \(1\) differ only in case"),
        (("b.png", "P1", "c yst", "train"), "differ only in case, blanks"),
        (("b.png", "p1", "cyst", "train"), r"patient 'P1' \(1\) and 'p1' \(1\) differ only in case"),
    ],
)
def test_a_fault_of_a_row_is_named_with_its_line(own, row, named):
    with pytest.raises(MiramError, match=named):
        read(own, ("a.png", "P1", "cyst", "train"), row, head=HEAD[:4])


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("1", "1,0"), ("7", "007"), ("0", "-0")])
def test_numbers_that_are_the_same_and_are_written_differently_are_named(own, one, other):
    rows = [("a.png", "P1", one), ("b.png", "P2", other)]
    with pytest.raises(MiramError, match=f"'{one}' .* and '{other}' .* differ only"):
        read(own, *rows, head=HEAD[:3], sign=";")
    with pytest.raises(MiramError, match="patient"):
        read(own, *[(image, label, "x") for image, _, label in rows], head=HEAD[:3], sign=";")
    long = [("a.png", "P1", "12345678901234567"), ("b.png", "P2", "12345678901234568")]
    assert len(read(own, *long, head=HEAD[:3]).lesions) == 2


def test_a_table_that_is_no_table_is_named(own):
    with pytest.raises(MiramError, match=r"no table .*none\.csv"):
        read_table(own / "none.csv", own)
    with pytest.raises(MiramError, match="lacks the column patient, label; it has image"):
        read(own, ("a.png",), head=("image",))
    with pytest.raises(MiramError, match="has the column x, y and lacks width, height"):
        read(own, ("a.png", "P1", "cyst", "train", "1", "2"), head=HEAD[:6])
    with pytest.raises(MiramError, match="has the heading image twice"):
        read(own, ("a.png", "P1", "cyst", "b.png"), head=("image", "patient", "label", "Image"))
    for rows in ([], [("", "", "")]):
        with pytest.raises(MiramError, match="names no image"):
            read(own, *rows, head=HEAD[:3])
    (own.parent / "images.csv").write_text('image,patient,label\n"a,P,x\n')
    with pytest.raises(MiramError, match=r"images\.csv cannot be read as CSV"):
        read_table(own.parent / "images.csv", own)
    with pytest.raises(MiramError, match="cannot be read as CSV: Is a directory"):
        read_table(own, own)


def test_unlabelled_images_need_no_class_and_lose_the_one_they_have(own):
    rows = [("a.png", "P1", "cyst", ""), ("b.png", "P2", "", "PRETRAIN"), ("c.png", "P3", "tumour", "pretrain")]
    found = read(own, *rows, head=HEAD[:4]).lesions
    assert [(lesion.label, lesion.part) for lesion in found] == [("cyst", ""), ("", "pretrain"), ("", "pretrain")]


def test_a_mask_is_a_file_beside_the_images_and_an_input_of_the_workflow(own):
    (own / "masks").mkdir()
    (own / "a.png").rename(own / "masks" / "one.png")
    head = (*HEAD[:4], "mask")
    rows = [("b.png", "P1", "cyst", "train", "masks/one.png"), ("c.png", "P1", "cyst", "train", "")]
    assert image_paths(table_of(own, *rows, head=head), own) == [
        own / name for name in ("b.png", "masks/one.png", "c.png")
    ]
    with pytest.raises(MiramError, match=r"mask = 'masks/two.png', which is not in"):
        read(own, ("b.png", "P1", "cyst", "train", "masks/two.png"), head=head)
    with pytest.raises(MiramError, match=r"line 2: mask = 'masks/one.png', in addition to a box"):
        read(own, (*rows[0], "1", "1", "2", "2"), head=(*head, *HEAD[4:]))


def test_links_are_followed_and_one_that_leads_nowhere_is_called_so(own):
    (own / "a.png").rename(own.parent / "elsewhere")
    (own / "a.png").symlink_to(own.parent / "elsewhere")
    (own / "d").symlink_to(own, target_is_directory=True)
    found = read(own, ("a.png", "P1", "cyst"), ("d/b.png", "P1", "cyst"), ("b.png", "P1", "cyst"), head=HEAD[:3])
    assert len({lesion.lesion_id for lesion in found.lesions}) == 3
    (own.parent / "elsewhere").unlink()
    with pytest.raises(MiramError, match=r"'a\.png', which is not in .*: it is a link to .*elsewhere, where"):
        read(own, ("a.png", "P1", "cyst"), head=HEAD[:3])


def test_a_path_is_found_with_other_slashes_and_with_composed_letters(own):
    (own / "d").mkdir()
    (own / "d" / "e.png").write_bytes((own / "a.png").read_bytes())
    apart = unicodedata.normalize("NFD", "größe.png")
    found = read(own, ("d\\e.png", "P1", "cyst"), (apart, "P1", "cyst"), head=HEAD[:3]).lesions
    assert [lesion.image for lesion in found] == [os.path.join("d", "e.png"), "größe.png"]


def test_ids_are_readable_stable_and_never_collide():
    names = [
        "1.2.840.2",
        "1.2.840.3",
        "a/x.png",
        "a/x.dcm",
        "a_x.tiff",
        "ä.png",
        "ö.png",
        "B.PNG",
        "b.png",
        "乳腺/影像.png",
    ]
    names += [f"{'n' * 200}.png", f"{'n' * 201}.png", f"{'乳' * 80}.png", f"{'乳' * 81}.png"]
    ids = [lesion_id(name, "") for name in names]
    assert (
        ids[0].startswith("Image_1.2.840.2_")
        and ids[7].startswith("Image_B_")
        and ids[9].startswith("Image_乳腺_影像_")
    )
    assert len({name.lower() for name in ids}) == len(names)
    assert max(len(f"{name}.png.tmp".encode()) for name in ids) < 200
    assert not any("/" in name for name in ids)
    assert lesion_id("a.png", "1,2,3,4") != lesion_id("a.png", "1,2,3,5")
    assert lesion_id("a/x.png", "") == "Image_a_x_3cc19d99a7"  # whatever else the table holds


def test_what_the_crops_will_take_is_counted_in_decoded_pixels(own):
    boxed, whole = ROWS
    assert pixels_of_lesions(table_of(own, boxed, whole), own) == 5 * 5 + 10 * 12  # a PNG of these has 80 bytes
