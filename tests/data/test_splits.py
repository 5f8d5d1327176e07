import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.splits import (
    pretraining_backgrounds,
    pretraining_lesions,
    split_lesions,
    training_labels,
    with_test_set,
    write_splits,
)
from miram.data.tasks import labels
from miram.errors import MiramError

LEAKING = (
    "16 41 159 394 495 510 591 601 639 652 678 723 753 882 906 924 969 1108 1152 1179 1237 1307 1365 1467 1566 1605"
)
LEAKING += " 1621 1635 1741 1803 1883"


@pytest.fixture(scope="module")
def real():
    lesions = carried_lesions()
    return lesions.assign(film_sha256=lesions["film_uid"])  # without pixels, each film counts as its own


def split(lesions, protocol="strict", candidates=200, seed=42):
    return split_lesions(lesions, protocol=protocol, validation_fraction=0.3, candidates=candidates, seed=seed)


def test_strict_leaves_2781_lesions_to_train_on_and_704_to_test_and_says_why(real):
    result = split(real)
    assert result["split"].replace("validation", "train").value_counts().to_dict() == {
        "train": 2781,
        "test": 704,
        "excluded": 83,
    }
    excluded = result[result["split"] == "excluded"]
    assert set(excluded["patient_id"]) == {f"P_{int(number):05d}" for number in LEAKING.split()}
    assert all(patient in reason for patient, reason in zip(excluded["patient_id"], excluded["reason"], strict=True))
    test = real[real["official_split"] == "test"]
    assert int(test["patient_id"].isin(excluded["patient_id"]).sum()) == 60
    assert (result["reason"][result["split"] != "excluded"] == "").all()


def test_strict_has_no_patient_and_no_film_in_two_splits(real):
    used = real.merge(split(real).query("split != 'excluded'"), on=["lesion_id", "patient_id"])
    assert used.groupby("patient_id")["split"].nunique().max() == 1
    assert used.groupby("film_sha256")["split"].nunique().max() == 1


def test_strict_validation_holds_its_share_of_every_class(real):
    joined = real.merge(split(real), on="lesion_id")
    classes = labels(joined, "pathology_4class")
    training = joined["split"].isin(["train", "validation"])
    share = (joined["split"] == "validation")[training].groupby(classes[training]).mean()
    assert share.between(0.28, 0.32).all(), share


def test_the_best_of_more_candidates_keeps_the_shares_of_the_classes_better(real):
    farthest = {}
    for candidates in (1, 200):
        joined = real.merge(split(real, candidates=candidates), on="lesion_id")
        training = joined[joined["split"].isin(["train", "validation"])]
        share = (training["split"] == "validation").groupby(labels(training, "pathology_4class")).mean()
        farthest[candidates] = (share - 0.3).abs().max()
    assert farthest[200] < farthest[1]


def test_paper_splits_images_so_that_patients_lie_on_both_sides(real):
    result = split(real, "published")
    assert result["split"].value_counts().to_dict() == {"train": 2004, "validation": 860, "test": 704}
    joined = real.merge(result, on=["lesion_id", "patient_id"])
    share = (joined["split"] == "validation").groupby([joined["official_split"], joined["pathology"]]).mean()["train"]
    assert share.to_numpy() == pytest.approx(0.3, abs=0.001)
    assert joined[joined["split"] != "test"].groupby("patient_id")["split"].nunique().max() == 2


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows(real, protocol):
    first = split(real, protocol)
    assert first.equals(split(real.sample(frac=1, random_state=1), protocol))
    assert not first.equals(split(real, protocol, seed=43))
    assert first["lesion_id"].is_monotonic_increasing and set(first["lesion_id"]) == set(real["lesion_id"])


def lesions_of(rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["patient_id", "film_sha256", "official_split", "pathology", "abnormality"])
    table = table.astype(str)
    return table.assign(film_uid=table["film_sha256"], lesion_id=[f"L{number:03d}" for number in range(len(table))])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.integers(0, 60),
            st.sampled_from(["train", "train", "test"]),
            st.sampled_from(["BENIGN", "MALIGNANT"]),
            st.sampled_from(["mass", "calcification"]),
        ),
        max_size=80,
    )
)
def test_strict_never_shares_a_patient_or_film_whatever_the_table(rows):
    train = [(100 + number, 100 + number, "train", "BENIGN", "mass") for number in range(2)]
    lesions = lesions_of(rows + train)
    used = lesions.merge(split(lesions).query("split != 'excluded'"), on=["lesion_id", "patient_id"])
    assert used.groupby("patient_id")["split"].nunique().max() == 1
    assert used.groupby("film_sha256")["split"].nunique().max() == 1
    assert {"train", "validation"} <= set(used["split"])


def test_strict_excludes_a_training_film_that_is_a_test_film_under_another_patient():
    rows = [(number, number, "train", "BENIGN", "mass") for number in range(5)] + [(9, 0, "test", "BENIGN", "mass")]
    result = split(lesions_of(rows))
    assert result["split"].iloc[0] == "excluded" and "film 0 " in result["reason"].iloc[0]


def test_a_film_of_unknown_pixels_is_no_other_film():
    rows = [(number, "", "train", "BENIGN", "mass") for number in range(8)] + [(9, "", "test", "BENIGN", "mass")]
    lesions = lesions_of(rows).assign(film_uid=[f"1.{number}" for number in range(9)])
    assert split(lesions)["split"].value_counts().to_dict() == {"train": 5, "validation": 3, "test": 1}
    same = lesions.assign(film_uid=["1.0", *lesions["film_uid"][1:8], "1.0"])  # its UID still tells it
    assert split(same)["split"].iloc[0] == "excluded"


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_pretraining_sees_no_background_of_the_test_set(real, tmp_path, protocol):
    films = real.drop_duplicates("film_uid")
    backgrounds = films.assign(background_id="background_" + films["film_uid"])
    backgrounds.to_csv(tmp_path / "backgrounds.csv", index=False)
    shared = real["film_uid"][real["official_split"] == "test"].iloc[
        0
    ]  # a training film with the pixels of a test film
    first = (real["official_split"] == "train").idxmax()
    lesions = real.assign(film_sha256=real["film_sha256"].mask(real["film_uid"] == real["film_uid"][first], shared))
    lesions.to_csv(tmp_path / "lesions.csv", index=False)
    split(lesions, protocol).to_csv(tmp_path / "splits.csv", index=False)
    paths = (tmp_path / f"{name}.csv" for name in ("lesions", "splits", "backgrounds"))
    seen = backgrounds[backgrounds["background_id"].isin(pretraining_backgrounds(*paths))]
    test = real[real["official_split"] == "test"]
    assert not set(seen["film_uid"]) & {*test["film_uid"], real["film_uid"][first]}
    patients = set(seen["patient_id"]) & set(test["patient_id"])
    assert len(patients) == {"strict": 0, "published": 31}[protocol]
    assert len(seen) > 2300


def test_pretraining_sees_no_lesion_of_a_test_patient_under_strict(real, tmp_path):
    split(real).to_csv(tmp_path / "splits.csv", index=False)
    seen, pictured = pretraining_lesions(tmp_path / "splits.csv")
    of = real.set_index("lesion_id")
    test = set(of["patient_id"][of["official_split"] == "test"])
    assert len(seen) == 2781 and not set(of["patient_id"][seen]) & test and set(pictured) <= set(seen)


def test_the_labels_of_the_training_lesions_are_those_that_are_known(real, tmp_path):
    splits = split(real)
    real.to_csv(tmp_path / "lesions.csv", index=False)
    splits.to_csv(tmp_path / "splits.csv", index=False)
    train = real[real["lesion_id"].isin(splits.loc[splits["split"] == "train", "lesion_id"])]
    for task, separator in (("pathology_4class", None), ("mass_margins", "-")):
        own, classes, joint = training_labels(tmp_path / "lesions.csv", tmp_path / "splits.csv", task)
        assert joint == separator and {name for label in own for name in label.split("-")} <= set(classes)
        masses = (train["abnormality"] == "mass").sum()
        assert (len(own) == len(train)) if separator is None else (0.9 * masses < len(own) <= masses)


def written(folder, lesions, **changes):
    lesions.to_csv(folder / "lesions.csv", index=False)
    values = {"protocol": "strict", "validation_fraction": 0.3, "test_fraction": 0.2, "candidates": 200, "seed": 1}
    return write_splits(folder / "lesions.csv", folder / "splits.csv", **{**values, **changes})


def test_the_stage_writes_one_row_a_lesion_and_counts_classes(tmp_path):
    rows = [(number, number, "train", ("BENIGN", "MALIGNANT")[number % 2], "mass") for number in range(10)]
    assert written(tmp_path, lesions_of([*rows, (99, 99, "test", "MALIGNANT", "mass")])) == {
        "train": {"BENIGN_MASS": 3, "MALIGNANT_MASS": 4},
        "validation": {"BENIGN_MASS": 2, "MALIGNANT_MASS": 1},
        "test": {"MALIGNANT_MASS": 1},
        "excluded": {},
    }
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert len(lines) == 12 and lines[0] == "lesion_id,patient_id,split,reason" and lines[-1] == "L010,99,test,"


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_a_division_that_nothing_can_be_trained_or_tested_with_is_refused_with_its_remedy(tmp_path, protocol):
    one = ("train", "BENIGN", "mass")
    cases = [
        (own_images(split="train"), "no lesion is in the test set", "column split"),
        (lesions_of([(n, n, "train", ("BENIGN", "MALIGNANT")[n % 2], "mass") for n in range(9)]), "no lesion", "films"),
        (lesions_of([*((n, n, *one) for n in range(9)), (9, 9, "test", "MALIGNANT", "mass")]), "BENIGN_MASS", "add"),
    ]
    for lesions, told, remedy in cases:
        with pytest.raises(MiramError, match=f"Protocol {protocol}: .*{told}") as fault:
            written(tmp_path, lesions, protocol=protocol)
        assert remedy in fault.value.remedy and not (tmp_path / "splits.csv").exists()


def test_a_drawn_division_of_three_patients_is_refused(tmp_path):
    with pytest.raises(MiramError, match="all train lesions are"):
        written(tmp_path, own_images(patients=3))


def test_too_few_patients_are_refused_with_what_to_change():
    lesions = lesions_of([(1, number, "train", "BENIGN", "mass") for number in range(5)])
    with pytest.raises(MiramError, match=r"5 training lesions of 1 patients[\s\S]*splits\.validation_fraction"):
        split(lesions)


def own_images(patients=60, split=""):
    rows = [(patient, f"{patient}-{view}", split, "", "") for patient in range(patients) for view in range(2)]
    lesions = lesions_of(rows)
    return lesions.assign(label=[("cyst", "tumour", "other")[int(patient) % 3] for patient in lesions["patient_id"]])


def written_from(folder, lesions, protocol):
    lesions.to_csv(folder / "lesions.csv", index=False)
    values = {"validation_fraction": 0.3, "test_fraction": 0.2, "candidates": 20, "seed": 0}
    return write_splits(folder / "lesions.csv", folder / "splits.csv", protocol=protocol, **values)


def with_drawn_test(lesions, seed=1):
    return with_test_set(lesions, test_fraction=0.2, candidates=200, seed=seed)


def test_without_an_official_split_a_test_set_is_drawn_by_patient_with_its_share_of_each_class():
    lesions = own_images()
    drawn = with_drawn_test(lesions)
    assert drawn.groupby("patient_id")["official_split"].nunique().max() == 1
    assert (drawn["official_split"] == "test").groupby(drawn["label"]).mean().between(0.15, 0.25).all()
    again, other = (with_drawn_test(lesions.sample(frac=1, random_state=2), seed=s) for s in (1, 2))
    assert drawn.equals(again) and not drawn.equals(other)
    given = own_images(split="train")
    assert with_drawn_test(given).equals(given)
    with pytest.raises(MiramError, match=r"test_fraction = 0.2[\s\S]*splits\.test_fraction"):
        with_drawn_test(own_images(patients=1))


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_unlabelled_images_are_for_pretraining_alone_unless_the_test_set_knows_them(tmp_path, protocol):
    lesions = own_images()
    rows = [("new", "u1", "pretrain", "", ""), ("new", "u2", "pretrain", "", ""), ("0", "u3", "pretrain", "", "")]
    unlabelled = lesions_of(rows).assign(label="", lesion_id=["u1", "u2", "u3"])
    lesions = pd.concat([lesions, unlabelled], ignore_index=True)
    lesions.loc[
        lesions["patient_id"].isin(["0", "1", "2", "3", "4", "5"]) & (lesions["label"] != ""), "official_split"
    ] = "test"
    lesions.loc[lesions["official_split"] == "", "official_split"] = "train"
    lesions.loc[lesions["lesion_id"] == "u2", "film_sha256"] = lesions.loc[
        lesions["patient_id"] == "1", "film_sha256"
    ].iloc[0]
    counts = written_from(tmp_path, lesions, protocol)
    splits = pd.read_csv(tmp_path / "splits.csv").set_index("lesion_id")
    assert splits.loc[["u1", "u2", "u3"], "split"].tolist() == ["pretrain", "excluded", "excluded"]
    assert "pixels of a film of the test set" in splits.at["u2", "reason"] and "patient 0" in splits.at["u3", "reason"]
    assert counts["pretrain"] == {"no label": 1} and counts["excluded"] == {"no label": 2}
    seen, pictured = pretraining_lesions(tmp_path / "splits.csv")
    assert "u1" in seen and not {"u2", "u3"} & {*seen} and "u1" not in pictured


def test_a_test_set_is_drawn_from_the_labelled_images_alone():
    lesions = own_images()
    unlabelled = lesions_of([("new", "u1", "pretrain", "", "")]).assign(label="", lesion_id="u1")
    drawn = with_drawn_test(pd.concat([lesions, unlabelled], ignore_index=True)).set_index("lesion_id")[
        "official_split"
    ]
    assert drawn["u1"] == "pretrain"
    assert drawn.drop("u1").equals(with_drawn_test(lesions).set_index("lesion_id")["official_split"])


@pytest.mark.parametrize("protocol", ["strict", "published"])
def test_own_images_are_split_by_their_own_classes(protocol):
    result = own_images().merge(split(with_drawn_test(own_images()), protocol))
    share = (result["split"] == "validation").groupby(result["label"]).sum() / (result["split"] != "test").sum()
    assert share.between(0.07, 0.13).all()
    assert (result[result["split"] != "test"].groupby("patient_id")["split"].nunique().max() > 1) == (
        protocol == "published"
    )
