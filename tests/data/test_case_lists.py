import pytest

from miram.data.case_lists import needed_series, read_lesions
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.tasks import labels
from miram.errors import MiramError


@pytest.fixture(scope="module")
def real():
    return carried_lesions()


def test_real_lists_hold_3568_lesions_on_3103_films_of_1566_patients(real):
    assert (len(real), real["film_uid"].nunique(), real["patient_id"].nunique()) == (3568, 3103, 1566)
    assert real["lesion_id"].is_unique
    counts = real.groupby(["abnormality", "official_split"]).size().to_dict()
    assert counts == {
        ("mass", "train"): 1318,
        ("mass", "test"): 378,
        ("calcification", "train"): 1546,
        ("calcification", "test"): 326,
    }


def test_real_test_set_has_the_published_class_counts(real):
    counts = labels(real[real["official_split"] == "test"], "pathology_4class").value_counts().to_dict()
    assert counts == {"BENIGN_MASS": 231, "MALIGNANT_MASS": 147, "BENIGN_CALC": 197, "MALIGNANT_CALC": 129}


def test_real_lists_need_exactly_the_series_of_the_manifest(real, shared):
    (manifest,) = (shared / "data").glob("*.tcia")
    listed = manifest.read_text().split("ListOfSeriesToDownload=")[1].split()
    assert needed_series(real) == sorted(listed)
    assert len(listed) == 6775


def test_real_masks_lie_apart_from_their_crops_for_104_lesions(real):
    apart = real[real["mask_uid"] != real["crop_uid"]]
    assert apart.groupby(["abnormality", "official_split"]).size().to_dict() == {
        ("calcification", "train"): 1,
        ("mass", "test"): 11,
        ("mass", "train"): 92,
    }


def test_unknown_values_of_the_real_lists_are_blank_and_those_off_their_scale_named(real):
    assert real["breast_density"].dropna().between(1, 4).all() and real["subtlety"].dropna().between(1, 5).all()
    assert real["repairs"].value_counts().to_dict() == {"": 3564, "density_unknown": 2, "subtlety_unknown": 2}
    mass, calc = (real[real["abnormality"] == kind] for kind in ("mass", "calcification"))
    missing = [mass["mass_margins"], mass["mass_shape"], calc["calc_type"], calc["calc_distribution"]]
    assert [int((column == "").sum()) for column in missing] == [60, 4, 24, 439]


def test_a_lesion_is_joined_by_the_third_part_of_its_paths(archive, tmp_path):
    csv_dir, _ = archive.write(tmp_path)
    lesions = read_lesions(csv_dir).set_index("lesion_id")
    assert list(lesions.index) == [
        "Calc-Test_P_00003_LEFT_CC_1",
        "Calc-Training_P_00002_LEFT_CC_1",
        "Mass-Test_P_00001_LEFT_CC_1",
        "Mass-Training_P_00000_LEFT_CC_1",
    ]
    row = lesions.loc["Calc-Test_P_00003_LEFT_CC_1"]
    assert (row.film_uid, row.mask_uid, row.crop_uid) == ("1.2.3.3", "1.2.4.3", "1.2.4.3")
    assert (row.abnormality, row.official_split, row.pathology) == ("calcification", "test", "MALIGNANT")
    assert row.calc_type == "PLEOMORPHIC" and row.mass_shape == ""


def test_benign_without_callback_counts_as_benign(archive, tmp_path):
    archive.rows["mass_case_description_test_set.csv"][0]["pathology"] = "BENIGN_WITHOUT_CALLBACK"
    lesions = read_lesions(archive.write(tmp_path)[0])
    assert set(lesions[lesions["abnormality"] == "mass"]["pathology"]) == {"BENIGN", "MALIGNANT"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image file path", "folder/9.9/../000000.dcm"),
        ("ROI mask file path", "000000.dcm"),
        ("patient_id", "../../P_00001"),
        ("left or right breast", "MIDDLE"),
        ("image view", ""),
        ("pathology", "UNPROVEN"),
        ("abnormality id", "one"),
        ("breast density", ""),
        ("abnormality type", "calcification"),
    ],
)
def test_a_value_that_cannot_be_right_is_named_with_its_file(archive, tmp_path, column, value):
    archive.rows["mass_case_description_test_set.csv"][0][column] = value
    with pytest.raises(
        MiramError, match=r"mass_case_description_test_set\.csv holds .*, which is not valid, in its lesion 1"
    ):
        read_lesions(archive.write(tmp_path)[0])


def test_a_missing_list_a_missing_column_and_an_empty_list_are_named(archive, tmp_path):
    csv_dir, _ = archive.write(tmp_path)
    name = csv_dir / "calc_case_description_train_set.csv"
    text = name.read_text()
    name.write_text(text.replace("calc distribution", "spread"))
    with pytest.raises(MiramError, match=r"calc_case_description_train_set\.csv lacks .*calc_distribution"):
        read_lesions(csv_dir)
    name.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(MiramError, match=r"calc_case_description_train_set\.csv contains no lesion"):
        read_lesions(csv_dir)
    name.unlink()
    with pytest.raises(MiramError, match=r"calc_case_description_train_set\.csv is missing"):
        read_lesions(csv_dir)


def test_a_lesion_that_occurs_twice_is_named(archive, tmp_path):
    archive.rows["mass_case_description_test_set.csv"] *= 2
    with pytest.raises(MiramError, match="'Mass-Test_P_00001_LEFT_CC_1', which is not valid, in its lesion 2"):
        read_lesions(archive.write(tmp_path)[0])
