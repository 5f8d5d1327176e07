"""The recipes on made-up files of the form in which the data sets come."""

import io
import plistlib
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from tiny_archive import dicom_bytes

from miram.cli import main

INFO = """\
INFORMATION:
This file lists the films in the MIAS database.
mdb000 is no line of it.

mdb001 G CIRC B 5 4 2
mdb002 G CIRC M 38 25 10
mdb003 D NORM
mdb004 D CALC M *NOTE 3*
mdb005 F CALC B 10 12 3
mdb005 F ASYM M 20 10 4
mdb006 F CIRC B
mdb007 G SPIC M 9 9 2
""".replace("mdb000 is", "The mdb000 is")
ROWS, COLUMNS = 30, 40


@pytest.fixture
def table_of(capsys):
    """table_of(recipe, folder, *arguments): the table that is printed, and what is said beside it."""

    def run(recipe, folder, *arguments):
        code = main(["recipe", recipe, str(folder), *arguments])
        out, said = capsys.readouterr()
        assert code == 0, said
        return pd.read_csv(io.StringIO(out), dtype=str, keep_default_na=False), said

    return run


def refusal(recipe, folder, capsys):
    assert main(["recipe", recipe, str(folder)]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    return said


@pytest.fixture
def mini_mias(tmp_path):
    folder = tmp_path / "all-mias"
    folder.mkdir()
    (folder / "Info.txt").write_text(INFO)
    for number in range(1, 7):
        Image.new("L", (COLUMNS, ROWS)).save(folder / f"mdb{number:03}.pgm")
    return folder


def test_mini_mias_counts_y_from_the_bottom_and_pairs_films(table_of, mini_mias):
    table, said = table_of("mini-mias", mini_mias)
    assert list(table) == ["image", "patient", "label", "x", "y", "width", "height", "density", "finding"]
    rows = table.values.tolist()
    # centre at x = 5 and, from above, y = 30 - 4 = 26
    assert rows[0] == ["mdb001.pgm", "pair-001", "BENIGN", "3", "24", "4", "4", "fatty-glandular", "CIRC"]
    assert rows[1][:7] == ["mdb002.pgm", "pair-001", "MALIGNANT", "28", "0", "12", "15"]  # cut at the film's edge
    assert [row[:3] for row in rows[2:]] == [
        ["mdb005.pgm", "pair-003", "BENIGN"],
        ["mdb005.pgm", "pair-003", "MALIGNANT"],
    ]
    assert "4 lesions of 3 pictures and 2 patients: BENIGN 2, MALIGNANT 2" in said
    for reason in ("1 normal film", "2 no circle: it is all over the film", "1 its picture is missing"):
        assert reason in said


def test_the_four_classes_leave_out_what_is_neither_mass_nor_calcification(table_of, mini_mias):
    table, said = table_of("mini-mias", mini_mias, "--task", "pathology_4class")
    assert table["label"].tolist() == ["BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC"]
    assert "1 no class of pathology_4class: asymmetry" in said


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("mdb008 X CIRC B 1 2 3", "line 13: tissue = 'X'"),
        ("mdb008 G CIRC Q 1 2 3", "line 13: severity = 'Q'"),
        ("mdb001 G CIRC B 1 2", "line 13: x, y, radius = '1 2'"),
    ],
)
def test_a_line_of_mini_mias_that_is_not_of_the_form_is_named(mini_mias, capsys, line, fault):
    (mini_mias / "Info.txt").write_text(f"{INFO}{line}\n")
    assert fault in refusal("mini-mias", mini_mias, capsys)


def outlined(*regions):
    """A property list as INbreast has it: name and points of each region."""
    rois = [
        {"Name": name, "NumberOfPoints": len(points), "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points]}
        for name, points in regions
    ]
    return plistlib.dumps({"Images": [{"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": rois}]})


@pytest.fixture
def inbreast(tmp_path):
    folder = tmp_path / "INbreast Release 1.0"
    for name in ("AllDICOMs", "AllXML"):
        (folder / name).mkdir(parents=True)
    lines = ["Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"]
    films = [(101, "L", "MLO", "3", "2"), (102, "R", "CC", "    ", "4c"), (103, "R", "CC", "1", "1")]
    films += [(104, "L", "CC", "2", "0"), (105, "L", "CC", "2", "6")]
    for number, side, view, density, category in films:
        lines.append(f"removed;removed;{side};{view};201001;{number};{density};{category}")
        if number != 105:
            name = f"{number}_abc{number % 2}_MG_{side}_{view}_ANON.dcm"
            (folder / "AllDICOMs" / name).write_bytes(dicom_bytes(np.zeros((ROWS, COLUMNS), np.uint16), "1.2"))
    (folder / "INbreast.csv").write_text("\n".join([*lines, ";;;;;;;", ""]))
    square = [(4.5, 6.2), (9.1, 6.2), (9.1, 11.9), (4.5, 11.9)]
    (folder / "AllXML" / "101.xml").write_bytes(outlined(("Mass", square), ("Calcification", square)))
    (folder / "AllXML" / "102.xml").write_bytes(
        outlined(("Cluster", [(-3, 2), (50, 2), (7, 9)]), ("Spiculated Region", square), ("Mass", square[:2]))
    )
    (folder / "AllXML" / "105.xml").write_bytes(outlined(("Mass", square)))
    return folder


def test_inbreast_gives_each_outline_the_category_of_its_film(table_of, inbreast):
    table, said = table_of("inbreast", inbreast.parent)
    assert list(table)[7:] == ["side", "view", "density", "birads", "finding"]
    rows = table.values.tolist()
    film = "INbreast Release 1.0/AllDICOMs/101_abc1_MG_L_MLO_ANON.dcm"
    assert rows[0] == [film, "abc1", "BENIGN", "4", "6", "6", "6", "L", "MLO", "3", "2", "mass"]
    assert rows[1][1:] == ["abc0", "MALIGNANT", "0", "2", "40", "7", "R", "CC", "", "4c", "calc"]
    assert rows[2][-1] == "spiculated region" and len(rows) == 3
    for reason in (
        "1 single calcification, outlined by itself",
        "1 outline of fewer than 3 points",
        "1 film without an outlined lesion",
        "1 film of BI-RADS 0: incomplete assessment",
        "1 its picture is missing",
    ):
        assert reason in said


def test_faults_of_inbreast_are_named(inbreast, capsys):
    text = (inbreast / "INbreast.csv").read_text()
    (inbreast / "INbreast.csv").write_text(text.replace(";4c", ";9"))
    assert "INbreast.csv, line 3: Bi-Rads = '9'" in refusal("inbreast", inbreast, capsys)
    (inbreast / "INbreast.csv").write_text(text.replace("File Name", "Filename"))
    assert "lacks the column File Name" in refusal("inbreast", inbreast, capsys)
    (inbreast / "INbreast.csv").write_text(text)
    (inbreast / "AllXML" / "102.xml").write_text("<plist>")
    assert "102.xml is not an outline of INbreast" in refusal("inbreast", inbreast, capsys)


VINDR = [
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split",
    "s1,e1,i1,L,CC,30,40,BI-RADS 4,DENSITY C,\"['Mass']\",BI-RADS 4,4.5,6.2,9.1,11.9,training",
    "s1,e1,i1,L,CC,30,40,BI-RADS 4,DENSITY C,\"['Mass', 'Suspicious Calcification']\",BI-RADS 5,0,0,41,3,training",
    "s2,e2,i2,R,MLO,30,40,BI-RADS 3,DENSITY B,\"['Suspicious Calcification', 'Skin Retraction']\","
    "BI-RADS 3,1,2,3,4,test",
    "s2,e2,i3,R,CC,30,40,BI-RADS 1,DENSITY B,\"['No Finding']\",,,,,,test",
    "s2,e2,i4,R,CC,30,40,BI-RADS 1,DENSITY B,\"['Nipple Retraction']\",,1,2,3,4,test",
    "s3,e3,i5,R,CC,30,40,BI-RADS 4,DENSITY B,\"['Mass']\",BI-RADS 4,1,2,3,4,test",
]


@pytest.fixture
def vindr(tmp_path):
    (tmp_path / "finding_annotations.csv").write_text("\n".join(VINDR))
    for study, image in (("s1", "i1"), ("s2", "i2")):
        (tmp_path / "images" / study).mkdir(parents=True)
        (tmp_path / "images" / study / f"{image}.dicom").touch()
    return tmp_path


def test_vindr_mammo_has_boxes_splits_and_makers(table_of, vindr):
    (vindr / "metadata.csv").write_text("SOP Instance UID,Manufacturer,Patient's Age\ni1,SIEMENS,042Y\n")
    table, said = table_of("vindr-mammo", vindr)
    assert list(table)[:4] == ["image", "patient", "label", "split"]
    rows = table.values.tolist()
    assert rows[0] == [
        *("images/s1/i1.dicom", "s1", "MALIGNANT", "train", "4", "6", "6", "6"),
        *("L", "CC", "DENSITY C", "mass", "SIEMENS"),
    ]
    assert rows[1][4:8] == ["0", "0", "40", "3"]
    assert rows[2][2:8] == ["BENIGN", "test", "1", "2", "2", "2"] and rows[2][-1] == ""
    for reason in ("1 film without a finding", "1 finding of no BI-RADS category", "1 its picture is missing"):
        assert reason in said


def test_a_mass_with_calcifications_is_none_of_four_classes(table_of, vindr):
    table, said = table_of("vindr-mammo", vindr, "--task", "pathology_4class")
    assert table["label"].tolist() == ["MALIGNANT_MASS", "BENIGN_CALC"]
    assert "1 no class of pathology_4class: mass and suspicious calcification" in said


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("training", "train", "line 2: split = 'train'"),
        ("4.5,6.2", "4.5,", "line 2: box or size of the film"),
        ("['Mass']", "Mass", "line 2: finding_categories = 'Mass'"),
    ],
)
def test_a_line_of_vindr_mammo_that_is_not_of_the_form_is_named(vindr, capsys, old, new, fault):
    (vindr / "finding_annotations.csv").write_text("\n".join(VINDR).replace(old, new))
    assert fault in refusal("vindr-mammo", vindr, capsys)


CMMD = [
    ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"],
    ["D1-0001", "R", 44, 2, "calcification", "Benign", ""],
    ["D2-0002", "L", 51, 2, "both", "Malignant", "Luminal A"],
    ["D2-0003", "L", 51, 2, "mass", "Malignant", "HER2-enriched"],
]


def xlsx(rows):
    """An Excel file as Excel writes it: shared texts, numbers as they are, empty cells left out."""
    texts = sorted({value for row in rows for value in row if isinstance(value, str) and value})
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    body = ""
    for number, row in enumerate(rows, start=1):
        body += f'<row r="{number}">'
        for letter, value in zip("ABCDEFG", row, strict=True):
            if isinstance(value, int):
                body += f'<c r="{letter}{number}"><v>{value}</v></c>'
            elif value:
                body += f'<c r="{letter}{number}" t="s"><v>{texts.index(value)}</v></c>'
        body += "</row>"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        shared = "".join(f"<si><t>{text}</t></si>" for text in texts)
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{shared}</sst>")
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>")
    return stream.getvalue()


@pytest.fixture
def cmmd(tmp_path):
    (tmp_path / "CMMD_clinicaldata_revision.xlsx").write_bytes(xlsx(CMMD))
    films = [("D1-0001", "R", "399162004"), ("D1-0001", "L", "399162004"), ("D2-0002", "L", "399368009")]
    for number, (patient, side, view) in enumerate(films):
        header = dcmread(io.BytesIO(dicom_bytes(np.zeros((ROWS, COLUMNS), np.uint16), f"1.{number}")))
        header.PatientID, header.ImageLaterality = patient, side
        code = Dataset()
        code.CodeValue = view
        header.ViewCodeSequence = [code]
        folder = tmp_path / "manifest" / "CMMD" / patient / "study"
        folder.mkdir(parents=True, exist_ok=True)
        header.save_as(folder / f"1-{number}.dcm")
    (tmp_path / "manifest" / "LICENSE").write_text("a licence")
    return tmp_path


def test_cmmd_gives_each_picture_the_row_of_its_breast(table_of, cmmd):
    table, said = table_of("cmmd", cmmd)
    assert list(table) == ["image", "patient", "label", "side", "view", "finding", "subtype"]
    assert table.values.tolist() == [
        ["manifest/CMMD/D1-0001/study/1-0.dcm", "D1-0001", "BENIGN", "R", "CC", "calc", ""],
        ["manifest/CMMD/D2-0002/study/1-2.dcm", "D2-0002", "MALIGNANT", "L", "MLO", "both", "Luminal A"],
    ]
    assert "1 picture of a breast that the table does not name" in said
    assert "1 breast of the table without a picture" in said
    table, said = table_of("cmmd", cmmd, "--task", "pathology_4class")
    assert table["label"].tolist() == ["BENIGN_CALC"] and "1 no class of pathology_4class: both" in said


def test_a_breast_of_two_rows_of_cmmd_has_both_their_kinds_and_subtypes(table_of, cmmd):
    more = [["D1-0001", "R", 44, 2, kind, "Benign", word] for kind, word in [("mass", "cyst"), ("calcification", "")]]
    (cmmd / "CMMD_clinicaldata_revision.xlsx").write_bytes(xlsx([*CMMD, *more]))
    table, _ = table_of("cmmd", cmmd)
    assert table[["finding", "subtype"]].values.tolist() == [["both", "cyst"], ["both", "Luminal A"]]


def test_a_damaged_picture_is_named_or_counted(table_of, mini_mias, inbreast, cmmd, capsys):
    (mini_mias / "mdb002.pgm").write_bytes(b"P5\n4")
    assert "mdb002.pgm cannot be decoded" in refusal("mini-mias", mini_mias, capsys)
    film = next(inbreast.rglob("101_*.dcm"))
    film.write_bytes(film.read_bytes()[:140])
    assert "101_abc1_MG_L_MLO_ANON.dcm is not a DICOM file that can be decoded" in refusal("inbreast", inbreast, capsys)
    film = next(cmmd.rglob("1-0.dcm"))
    damaged = [film.read_bytes()[:140], film.read_bytes()[:132] + 99 * b"\xff", film.read_bytes()[:340]]
    for number, body in enumerate(damaged):
        film.with_name(f"{number}.dcm").write_bytes(body)
    assert "4 its picture cannot be read" in table_of("cmmd", cmmd)[1]  # with that of INbreast, which lies below too


def test_faults_of_the_table_of_cmmd_are_named(cmmd, capsys):
    file = cmmd / "CMMD_clinicaldata_revision.xlsx"
    file.write_bytes(xlsx([*CMMD, ["D2-0003", "L", 51, 2, "mass", "Benign", ""]]))
    assert "line 5: D2-0003 L is benign in one row and malignant in another" in refusal("cmmd", cmmd, capsys)
    file.write_bytes(xlsx([*CMMD, ["D2-0004", "B", 51, 2, "mass", "Benign", ""]]))
    assert "line 5: LeftRight = 'B'" in refusal("cmmd", cmmd, capsys)
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be read as an Excel file" in refusal("cmmd", cmmd, capsys)
    file.unlink()
    assert "There is no file CMMD_clinicaldata_revision.xlsx or" in refusal("cmmd", cmmd, capsys)
    (cmmd / "CMMD_clinicaldata_revision.csv").write_text("\n".join(",".join(map(str, row)) for row in CMMD))
    assert main(["recipe", "cmmd", str(cmmd)]) == 0


def test_a_data_set_of_which_nothing_can_be_used_is_refused(mini_mias, capsys):
    (mini_mias / "Info.txt").write_text("mdb003 D NORM\n")
    assert "holds no lesion that can be used: 1 normal film" in refusal("mini-mias", mini_mias, capsys)


def test_the_recipe_is_one_of_those_that_there_are():
    with pytest.raises(SystemExit, match="2"):
        main(["recipe", "ddsm", "."])
