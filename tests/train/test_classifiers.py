import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from miram.train.classifiers import best, macro_auc, validation_scores


def test_macro_auc_is_that_of_one_class_against_the_rest():
    random = np.random.default_rng(0)
    labels, probabilities = np.arange(40) % 4, random.dirichlet(np.ones(4), 40)
    reference = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auc(np.eye(4)[labels], probabilities) == pytest.approx(reference)


def test_macro_auc_leaves_out_a_class_that_no_lesion_or_every_lesion_has():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    probabilities = np.array([[0.9, 0.1, 0.5], [0.2, 0.9, 0.5], [0.1, 0.2, 0.9]])
    assert macro_auc(targets, probabilities) == roc_auc_score(targets[:, 0], probabilities[:, 0])


def test_an_answer_with_several_classes_is_right_where_all_of_them_are():
    targets = np.array([[1, 0], [1, 1], [0, 1]])
    probabilities = np.array([[0.9, 0.4], [0.6, 0.4], [0.3, 0.5]])
    for threshold, right in ((0.5, 2 / 3), (0.3, 1 / 3)):
        scores = validation_scores(targets, probabilities, multi_label=True, threshold=threshold)
        assert scores["val_accuracy"] == pytest.approx(right)
    one = validation_scores(targets[[0, 2]], probabilities[[0, 2]], multi_label=False, threshold=0.5)
    assert one["val_accuracy"] == 1


def test_the_best_has_the_highest_auc_then_the_highest_accuracy_then_is_the_first():
    scores = [(0.5, 0.9), (0.7, 0.5), (0.7, 0.6), (0.7, 0.6)]
    log = [{"epoch": i, "val_macro_auc": auc, "val_accuracy": accuracy} for i, (auc, accuracy) in enumerate(scores)]
    assert best(log)["epoch"] == 2
