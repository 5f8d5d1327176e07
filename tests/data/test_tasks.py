import numpy as np
import pandas as pd
import pytest

from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.tasks import CLASSES, MULTI_LABEL, classes, labels, strata, targets

LESIONS = pd.DataFrame(
    {"pathology": ["BENIGN", "MALIGNANT", "BENIGN", "MALIGNANT"], "abnormality": ["mass"] * 2 + ["calcification"] * 2}
)


def test_four_classes_are_pathology_and_abnormality_in_the_order_of_the_score_columns():
    assert tuple(labels(LESIONS, "pathology_4class")) == classes("pathology_4class", LESIONS)


def test_two_classes_are_the_pathology():
    assert list(labels(LESIONS, "pathology")) == ["BENIGN", "MALIGNANT"] * 2


def test_several_labels_are_put_in_order_each_once_and_synonyms_become_one():
    told = ["", "LUCENT_CENTERED-ROUND_AND_REGULAR", "PLEOMORPHIC-PLEOMORPHIC", "AMORPHOUS-PLEOMORPHIC"]
    found = labels(pd.DataFrame({"calc_type": told}), "calc_type")
    assert list(found) == ["", "LUCENT_CENTER-ROUND_AND_REGULAR", "PLEOMORPHIC", "PLEOMORPHIC-AMORPHOUS"]


def test_targets_mark_each_class_of_a_label_and_a_class_may_hold_the_sign_that_joins():
    assert targets(pd.Series(["B-A", "C"]), ("A", "B", "C")).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert targets(pd.Series(["non-small", "small"]), ("non-small", "small")).tolist() == [[1, 0], [0, 1]]
    assert targets(pd.Series([], dtype=str), ("A", "B")).shape == (0, 2)


def test_the_classes_of_ones_own_images_are_those_of_the_table_sorted():
    own = pd.DataFrame({"label": ["cyst", "tumour", "cyst", "artefact"]})
    assert classes("label", own) == ("artefact", "cyst", "tumour")
    assert list(labels(own, "label")) == list(strata(own)) == list(own["label"])


def test_an_unknown_task_or_value_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="'stage', allowed: pathology_4class, pathology, mass_margins"):
        classes("stage", LESIONS)
    with pytest.raises(ValueError, match="pathology = 'UNPROVEN'"):
        labels(LESIONS.replace("BENIGN", "UNPROVEN"), "pathology_4class")
    with pytest.raises(ValueError, match=r"mass_shape = 'OVAL-FLAT' .*: FLAT"):
        labels(pd.DataFrame({"mass_shape": ["OVAL-FLAT"]}), "mass_shape")


def test_the_classes_are_the_words_of_the_real_case_lists():
    lesions = carried_lesions()
    sizes = {"mass_margins": 5, "mass_shape": 8, "calc_type": 13, "calc_distribution": 5}
    labelled = {"mass_margins": 1636, "mass_shape": 1692, "calc_type": 1848, "calc_distribution": 1433}
    assert {task: len(CLASSES[task]) for task in MULTI_LABEL} == sizes
    for task in MULTI_LABEL:
        found = labels(lesions, task)
        own = targets(found[found != ""], CLASSES[task])
        assert len(own) == labelled[task]
        assert (own.sum(axis=0) > 0).all() and (own.sum(axis=1) > 0).all()
        of_other_kind = lesions["abnormality"] != ("mass" if task.startswith("mass") else "calcification")
        assert (found[of_other_kind] == "").all()
    assert np.array_equal(targets(labels(lesions, "pathology"), CLASSES["pathology"]).sum(axis=1), np.ones(3568))
