import pandas as pd
import pytest

from miram.data.tasks import classes, labels

LESIONS = pd.DataFrame(
    {"pathology": ["BENIGN", "MALIGNANT", "BENIGN", "MALIGNANT"], "abnormality": ["mass"] * 2 + ["calcification"] * 2}
)


def test_four_classes_are_pathology_and_abnormality_in_the_order_of_the_score_columns():
    assert tuple(labels(LESIONS, "pathology_4class")) == classes("pathology_4class")


def test_two_classes_are_the_pathology():
    assert list(labels(LESIONS, "pathology")) == ["BENIGN", "MALIGNANT"] * 2


def test_an_unknown_task_or_value_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="'stage', allowed: pathology_4class, pathology"):
        classes("stage")
    with pytest.raises(ValueError, match="pathology = 'UNPROVEN'"):
        labels(LESIONS.replace("BENIGN", "UNPROVEN"), "pathology_4class")
