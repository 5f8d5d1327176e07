"""The archive's own crops as named pictures: every lesion, its labels, the leak, and crops that cannot be right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_runs import cut_tiny, lesions, list_tiny, made

from miram.data.audit import audit, catalogue_overlap, effect_on_test
from miram.data.case_lists import read_lesions
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.crop_rules import Taking
from miram.data.splits import write_splits
from miram.data.taking import read_boxes
from miram.data.tasks import labels
from miram.errors import MiramError
from miram.planning.sources import check_source

SHARED = Path(__file__).parents[3] / "shared" / "lesions"
HEADINGS = "image,mask_minx,mask_miny,mask_maxx,mask_maxy\n"
DIVISION = {"validation_fraction": 0.3, "test_fraction": 0.2, "candidates": 20, "seed": 42}
CLASSES = {  # of CBIS-DDSM: training, test
    "BENIGN_MASS": (681, 231),
    "MALIGNANT_MASS": (637, 147),
    "BENIGN_CALC": (1002, 197),
    "MALIGNANT_CALC": (544, 129),
}
needs_lesions = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/lesions, the archive's own crops")


def of_folder(folder: Path) -> dict[str, object]:
    return {"source": "local", "settings": {"folder": str(folder), "csv_url": str(folder), "crops_from": "archive"}}


def taken(folder: Path, where: dict[str, object], doubtful="keep", bits=8, carried=False, **changes):
    list_tiny(folder, where, carried=carried)
    return cut_tiny(folder, where, rule=Taking(bits=bits, doubtful=doubtful), **changes)


@pytest.fixture
def named(archive, tmp_path):
    """A folder with the case lists of the tiny archive and a grey picture for each of its lesions."""
    folder = tmp_path / "named"
    folder.mkdir()
    for name, body in archive.case_lists().items():
        (folder / name).write_bytes(body)
    for number, name in enumerate(read_lesions(folder)["lesion_id"]):
        Image.fromarray(np.full((60 + number, 40), 60 * number, np.uint8)).save(folder / f"{name}.png")
    return folder


def picture(folder: Path) -> Path:
    return min(folder.glob("*.png"))


def check_all_lesions(folder: Path, facts: dict[str, object], tmp_path: Path) -> None:
    table = pd.read_csv(folder / "lesions.csv", dtype=str, keep_default_na=False)
    assert (facts["lesions"], facts["set_aside"], facts["backgrounds"]) == (3568, 0, 0)
    counts = pd.crosstab(labels(table, "pathology_4class"), table["official_split"])
    assert {name: tuple(counts.loc[name, ["train", "test"]]) for name in counts.index} == CLASSES
    overlap = catalogue_overlap(table)
    assert (len(overlap["patients"]), overlap["test_lesions_of_patients_in_both"]) == (31, 60)
    paths = {protocol: tmp_path / f"{protocol}.csv" for protocol in ("strict", "published")}
    for protocol, path in paths.items():
        write_splits(folder / "lesions.csv", path, protocol=protocol, **DIVISION)
    split = {
        name: table["lesion_id"].map(pd.read_csv(path).set_index("lesion_id")["split"]) for name, path in paths.items()
    }
    assert effect_on_test(table, split["published"])["patient seen"] == 60
    assert effect_on_test(table, split["strict"]) == {
        "test lesions": 704,
        "patient seen": 0,
        "film seen": 0,
        "view seen": 0,
    }
    audit(folder / "lesions.csv", folder / "set_aside.csv", paths, tmp_path / "audit.md", preset="small")
    page = (tmp_path / "audit.md").read_text()
    assert "Not known: the crops are the archive's own" in page and "not known" in page


def test_a_folder_of_named_pictures_gives_every_lesion_its_label_and_shows_the_leak(tmp_path):
    folder = tmp_path / "folder" / "below"
    folder.mkdir(parents=True)
    for number, name in enumerate(carried_lesions()["lesion_id"]):
        Image.fromarray(np.array([[number % 256, number // 256]], np.uint8)).save(folder / f"{name}.png")
    facts = taken(tmp_path, of_folder(tmp_path / "folder"), carried=True)
    check_all_lesions(tmp_path, facts, tmp_path)


@needs_lesions
@pytest.mark.slow
def test_the_archives_own_crops_are_taken_as_they_are(tmp_path):
    facts = taken(tmp_path, of_folder(SHARED), carried=True)
    check_all_lesions(tmp_path, facts, tmp_path)
    for path in sorted((SHARED / "images").glob("*.jpg"))[::100]:
        assert np.array_equal(Image.open(path), Image.open(tmp_path / "crops" / f"{path.stem}.png"))
    assert lesions(tmp_path)["repairs"].str.contains("crop_doubtful").sum() == 82
    assert facts["verified_images"] == 3568  # by their SHA-256, in the data lock


def test_pictures_are_taken_as_they_are_and_their_films_are_unknown(named, tmp_path):
    facts = taken(tmp_path / "run", of_folder(named))
    table = lesions(tmp_path / "run")
    assert (facts["lesions"], facts["backgrounds"], facts["verified_images"]) == (4, 0, 4)
    for path in named.glob("*.png"):
        assert np.array_equal(Image.open(path), Image.open(tmp_path / "run" / "crops" / path.name))
        assert tuple(table.loc[path.stem, ["crop_columns", "crop_rows"]].astype(int)) == Image.open(path).size
    unknown = ["film_rows", "film_columns", "film_sha256", "x0", "y0", "box_x0", "air", "foreign", "outside_film"]
    assert (table[unknown] == "").all(axis=None)
    assert (table["repairs"].str.contains("crop_doubtful")).sum() == 0


def test_8_bits_fill_16(named, tmp_path):
    taken(tmp_path / "run", of_folder(named), bits=16)
    path = max(named.glob("*.png"))
    deep = np.asarray(Image.open(tmp_path / "run" / "crops" / path.name)).astype(int)
    assert np.array_equal(deep, np.asarray(Image.open(path)).astype(int) * 257) and deep.max() > 255


def test_a_lesion_without_picture_is_set_aside_by_name(named, tmp_path):
    gone = picture(named)
    gone.unlink()
    facts = taken(tmp_path / "run", of_folder(named))
    aside = pd.read_csv(tmp_path / "run" / "set_aside.csv")
    assert (facts["lesions"], facts["set_aside"]) == (3, 1)
    assert aside["lesion_id"].tolist() == [gone.stem] and "no crop" in aside["reason"][0]


def test_a_second_run_takes_nothing_again_and_a_changed_picture_is_noticed(named, tmp_path):
    taken(tmp_path / "run", of_folder(named))
    before, ledger = made(tmp_path / "run"), (tmp_path / "run" / "ledger.jsonl").read_bytes()
    taken(tmp_path / "run", of_folder(named))
    assert made(tmp_path / "run") == before and (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger
    Image.fromarray(np.full((30, 40), 99, np.uint8)).save(picture(named))
    (tmp_path / "run" / "crops" / picture(named).name).unlink()
    with pytest.raises(MiramError, match="differ from those verified before"):
        taken(tmp_path / "run", of_folder(named))


def test_one_lesion_in_two_files_is_refused(named, tmp_path):
    Image.open(picture(named)).save(named / f"{picture(named).stem}.jpg")
    with pytest.raises(MiramError, match="both the crop of one lesion"):
        taken(tmp_path / "run", of_folder(named))


def test_pictures_with_other_names_are_refused(named, tmp_path):
    for path in named.glob("*.png"):
        path.rename(named / f"x{path.name}")
    with pytest.raises(MiramError, match="holds no DICOM file; files of it: 4 PNG, 4 other") as refused:
        taken(tmp_path / "run", of_folder(named))
    assert "named by lesion, such as Mass-Training_P_00001_LEFT_CC_1.png" in refused.value.remedy
    assert check_source(**of_folder(named), timeout_seconds=60.0)[0].level == "stop"
    for number, path in enumerate(named.glob("x*.png")):
        path.rename(named / f"Mass-Test_Q_{number}_LEFT_CC_1.png")
    with pytest.raises(MiramError, match="holds 4 PNG or JPEG files named by lesion, and none is of the case lists: "):
        taken(tmp_path / "run", of_folder(named))


def test_a_picture_in_colour_sets_its_lesion_aside(named, tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(colours).save(picture(named))
    assert taken(tmp_path / "run", of_folder(named))["set_aside"] == 1


@pytest.mark.parametrize("box", ["0,0,5,5", ",,,", "0,0,41,31"])
def test_crops_that_disagree_with_the_box_of_their_mask_are_named_or_left_out(named, tmp_path, box):
    rows = [f"{path.name},0,0,20,40" for path in sorted(named.glob("*.png"))]  # about 20 px less than the crops
    rows[0] = f"{picture(named).name},{box}"
    (named / "lesions.csv").write_text("\n".join([HEADINGS.strip(), *rows]) + "\n")
    facts = taken(tmp_path / "run", of_folder(named))
    words = lesions(tmp_path / "run")["repairs"]
    assert facts["repairs"]["crop_doubtful"] == 1 and "crop_doubtful" in words[picture(named).stem]
    facts = taken(tmp_path / "run", of_folder(named), doubtful="set_aside")
    assert facts["set_aside"] == 1 and picture(named).stem not in lesions(tmp_path / "run").index


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "lacks the column image"),
        ("image,mask_minx,mask_miny,mask_maxx\na.png,0,0,5\n", "lacks the column mask_maxy"),
        (f"{HEADINGS}a.png,0,0,5,5,7\n", "line 2 has '7' in a column without a heading"),
        (f"{HEADINGS}a.png,0,left,5,5\n", "line 2: mask_minx, mask_miny, mask_maxx, mask_maxy = 0, left, 5, 5"),
        (f"{HEADINGS}a.png,0,0,5\n", "line 2: mask_minx, mask_miny, mask_maxx, mask_maxy = 0, 0, 5, "),
        (f"{HEADINGS},0,0,5,5\n", "line 2: image is empty"),
    ],
)
def test_a_list_of_boxes_that_cannot_be_read_is_named_with_its_line(tmp_path, text, why):
    (tmp_path / "lesions.csv").write_text(text)
    with pytest.raises(MiramError, match=f"lesions.csv:? {why}"):
        read_boxes(tmp_path)


def test_a_list_of_boxes_may_have_semicolons_and_may_be_absent(tmp_path):
    assert read_boxes(tmp_path) == {}
    (tmp_path / "lesions.csv").write_text(f"{HEADINGS}b/a.png,1,2,21.0,42\nb.png,,,,\n".replace(",", ";"))
    assert read_boxes(tmp_path) == {"a": (20, 40), "b": None}


def test_the_doctor_sees_the_pictures(named):
    found = check_source(**of_folder(named), timeout_seconds=60.0)
    assert [finding.level for finding in found] == ["ok", "ok"] and "4 PNG or JPEG files" in found[0].text


@pytest.mark.parametrize("are_named", [True, False])
def test_the_doctor_and_the_run_see_the_same_in_a_folder_of_pictures_and_dicom(archive, named, tmp_path, are_named):
    for uid, files in archive.series.items():
        (named / f"{uid}.dcm").write_bytes(files["1-1.dcm"])
    for path in named.glob("*.png"):
        path.rename(path if are_named else named / f"x{path.name}")
    said = check_source(**of_folder(named), timeout_seconds=60.0)[0].text
    assert ("4 PNG or JPEG files" in said) == are_named and ("DICOM" in said) != are_named
    taken(tmp_path / "run", of_folder(named))
    assert set(lesions(tmp_path / "run")["crop_columns"] == 40) == {are_named}
