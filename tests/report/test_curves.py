import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from miram.evaluate.scores import Answers, calibration
from miram.evaluate.weighted import weighted_scores
from miram.report import curves
from miram.report.study import Run

CLASSES = ("A", "B", "C")


def run_of(labels, probabilities):
    lesions = pd.DataFrame({"lesion_id": [f"l{i}" for i in range(len(labels))], "label": list(labels)})
    truth = np.array([[name == label for name in CLASSES] for label in labels])
    return Run(lesions, Answers(truth, np.asarray(probabilities, float), CLASSES, False))


@pytest.fixture
def run():
    random = np.random.default_rng(0)
    labels = np.repeat(CLASSES, 100)
    logits = 1.5 * (labels[:, None] == np.array(CLASSES)) + random.normal(0, 1, (300, 3))
    return run_of(labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def test_the_areas_of_the_curves_are_scikit_learns_but_for_the_grid(run):
    for number in range(3):
        truth, scores = run.answers.truth[:, number], run.answers.probabilities[:, number]
        assert auc(curves.GRID, curves.roc([run], number)) == pytest.approx(roc_auc_score(truth, scores), abs=0.01)
        area = auc(curves.GRID, curves.precision_recall([run], number))
        assert area == pytest.approx(average_precision_score(truth, scores), abs=0.02)


def test_a_curve_is_the_mean_over_seeds(run):
    blind = run._replace(answers=run.answers._replace(probabilities=np.full((300, 3), 1 / 3)))
    both = curves.roc([run, blind], 0)
    np.testing.assert_allclose(both, (curves.roc([run], 0) + curves.GRID) / 2)


def test_a_class_without_lesions_or_without_others_has_no_curve():
    alone = run_of("AAA", [[0.5, 0.3, 0.2]] * 3)
    assert curves.roc([alone], 0) is None  # no other class
    assert curves.roc([alone], 1) is None
    assert curves.precision_recall([alone], 1) is None
    assert curves.precision_recall([alone], 0) == pytest.approx(1)


def test_confusion_counts_shares_of_each_true_class_over_seeds():
    first = run_of("AAB", [[0.9, 0.1, 0], [0.1, 0.9, 0], [0, 1, 0]])
    second = run_of("AAB", [[0.9, 0.1, 0], [0.9, 0.1, 0], [1, 0, 0]])
    rows = curves.confusion([first, second])
    assert [row["lesions"] for row in rows] == [2, 1, 0]
    assert [row["shares"] for row in rows] == [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 0]]
    assert [row["place"] for row in rows] == [0, 1, 2]


def test_answers_as_sure_as_they_are_right_lie_on_the_diagonal():
    random = np.random.default_rng(1)
    confidence = random.uniform(0.5, 1, 20_000)
    labels = np.where(random.random(20_000) < confidence, "A", "B")
    answers = run_of(labels, np.c_[confidence, 1 - confidence, 0 * confidence]).answers
    means = calibration([answers], 0.5, bins=10)
    assert len(means) == 5  # no answer has a confidence below one half
    np.testing.assert_allclose(means["right"], means["confidence"], atol=0.02)


def test_the_dots_of_calibration_are_the_bins_of_the_calibration_error(run):
    means, lesions = calibration([run.answers, run.answers], 0.5, bins=15), len(run.lesions)
    options = {"specificity": 0.9, "threshold": 0.5, "bins": 15}
    (error,) = weighted_scores(run.answers, np.ones((lesions, 1)), ["ece"], **options)["ece"]
    shares = means["count"] / (2 * lesions)
    assert (shares * (means["right"] - means["confidence"]).abs()).sum() == pytest.approx(error)


def test_confident_errors_come_surest_first_each_lesion_once():
    sure = [run_of("AAB", [[0, 1, 0], [0.9, 0.1, 0], [0.2, 0.8, 0]])]
    unsure = [run_of("AAB", [[0.3, 0.7, 0], [0.4, 0.6, 0], [0.6, 0.4, 0]])]
    found = curves.confident_errors({"sure": sure, "unsure": unsure}, count=2)
    assert [(error["lesion_id"], error["method"], error["methods_wrong"]) for error in found] == [
        ("l0", "sure", 2),
        ("l1", "unsure", 1),
    ]


def test_errors_are_of_probabilities_averaged_over_seeds():
    seeds = [run_of("A", [[0.4, 0.6, 0]]), run_of("A", [[0.9, 0.1, 0]])]
    assert curves.confident_errors({"both": seeds}, count=3) == []
