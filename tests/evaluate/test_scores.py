import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    mean_squared_error,
    roc_auc_score,
    roc_curve,
)

from miram.evaluate.scores import MEANS_OVER_CLASSES, METRICS, Answers
from miram.evaluate.weighted import weighted_scores

OPTIONS = {"specificity": 0.8, "threshold": 0.5, "bins": 10}
PATHOLOGY = ("BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC")
MARGINS = ("ILL_DEFINED", "CIRCUMSCRIBED", "SPICULATED", "OBSCURED")


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def single(truth, probabilities, classes=PATHOLOGY):
    return Answers(np.asarray(truth)[:, None] == np.arange(len(classes)), np.asarray(probabilities), classes, False)


def scores(answers, **options):
    """The metrics where each lesion counts once."""
    found = weighted_scores(answers, np.ones((len(answers.truth), 1)), METRICS, **options)
    return {metric: value for metric, (value,) in found.items()}


def random_answers(seed, multilabel=False, lesions=60):
    """Every class occurs; some probabilities are equal."""
    generator = np.random.default_rng(seed)
    if multilabel:
        truth = generator.random((lesions, 4)) < [0.6, 0.3, 0.2, 0.1]
        truth[np.arange(4), np.arange(4)] = True
        return Answers(truth, generator.random((lesions, 4)).round(1), MARGINS, True)
    labels = np.concatenate([np.arange(4), generator.integers(4, size=lesions - 4)])
    probabilities = generator.multinomial(20, generator.dirichlet(np.ones(4), lesions)) / 20
    return single(labels, probabilities)


def without(answers, absent):
    """The lesions that are not of class `absent`; for a multi-label task none is any more."""
    keep = ~answers.truth[:, absent]
    return answers._replace(truth=answers.truth[keep], probabilities=answers.probabilities[keep])


DEGENERATE = {
    "one class absent": without(random_answers(1), 2),
    "one class absent, multi-label": without(random_answers(1, True), 0),
    "all equal": single([0, 0, 1, 2, 3, 3], np.full((6, 4), 0.25)),
    "all one prediction": single([0, 1, 1, 1, 2, 3], np.tile([0.0, 1, 0, 0], (6, 1))),
    "one class alone": single([3] * 8, random_answers(2).probabilities[:8]),
    "benign alone": single([0, 2, 2, 0], random_answers(3).probabilities[:4]),
    "one lesion": single([1], [[0.1, 0.2, 0.3, 0.4]]),
    "a class in all lesions": Answers(np.array([[1, 0, 1, 0]] * 5, bool), np.full((5, 4), 0.7), MARGINS, True),
    "every class in all lesions": Answers(
        np.ones((5, 4), bool), random_answers(4, True).probabilities[:5], MARGINS, True
    ),
}
RANDOM = {
    f"random {seed}{label}": random_answers(seed, label != "") for seed in range(4) for label in ("", ", multi-label")
}


def binary_sensitivity(truth, score, weights=None):
    false, true, _ = roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
    return max(t for f, t in zip(false, true, strict=True) if 1 - f >= OPTIONS["specificity"] - 1e-9)


def calibration_error(answers, weights):
    """Straight from the definition, lesion by lesion."""
    sums = {}
    for truth, probabilities, weight in zip(answers.truth, answers.probabilities, weights, strict=True):
        pairs = zip(probabilities, truth, strict=True)
        if not answers.multilabel:
            pairs = [(probabilities.max(), truth[probabilities.argmax()])]
        for confidence, outcome in pairs:
            number = min(int(confidence * OPTIONS["bins"]), OPTIONS["bins"] - 1)
            sums.setdefault(number, []).append(weight * (outcome - confidence))
    pairs_a_lesion = answers.truth.shape[1] if answers.multilabel else 1
    return sum(abs(sum(values)) for values in sums.values()) / (weights.sum() * pairs_a_lesion)


def by_scikit_learn(answers, weights):
    """Every metric as scikit-learn gives it for the lesions of positive weight."""
    kept = weights > 0
    truth, probabilities, weights = answers.truth[kept], answers.probabilities[kept], weights[kept]
    answers = answers._replace(truth=truth, probabilities=probabilities)
    present = [number for number in range(4) if truth[:, number].any()]
    both = [number for number in present if not truth[:, number].all()]
    options = {"sample_weight": weights}
    if answers.multilabel:
        decided = probabilities >= OPTIONS["threshold"]
        balanced = [balanced_accuracy_score(truth[:, n], decided[:, n], **options) for n in both]
        accuracy = accuracy_score(truth, decided, **options)
        detected = [(truth[:, n], probabilities[:, n]) for n in both]
    else:
        label, decided = truth.argmax(axis=1), probabilities.argmax(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class is answered which no lesion has
            balanced = [balanced_accuracy_score(label, decided, **options)]
        accuracy = accuracy_score(label, decided, **options)
        malignant = np.isin(label, (1, 3))
        detected = [(malignant, probabilities[:, [1, 3]].sum(axis=1))] if 0 < malignant.sum() < len(label) else []
    pooled = {"sample_weight": np.repeat(weights, 4)}
    flat = truth.ravel(), probabilities.ravel()

    def mean(values):
        return np.mean(values) if values else np.nan

    return {
        "accuracy": accuracy,
        "balanced_accuracy": mean(balanced),
        "macro_ap": mean([average_precision_score(truth[:, n], probabilities[:, n], **options) for n in present]),
        "micro_ap": average_precision_score(*flat, **pooled),
        "macro_auc": mean([roc_auc_score(truth[:, n], probabilities[:, n], **options) for n in both]),
        "micro_auc": np.nan if truth.all() else roc_auc_score(*flat, **pooled),
        "sensitivity": mean([binary_sensitivity(*pair, weights) for pair in detected]),
        "ece": calibration_error(answers, weights),
        "brier": mean_squared_error(truth, probabilities, **options),
    }


@pytest.mark.parametrize("answers", (RANDOM | DEGENERATE).values(), ids=(RANDOM | DEGENERATE).keys())
def test_equal_scikit_learn_on_random_and_degenerate_input(answers):
    found = scores(answers, **OPTIONS)
    assert found == pytest.approx(by_scikit_learn(answers, np.ones(len(answers.truth))), nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("answers", (RANDOM | DEGENERATE).values(), ids=(RANDOM | DEGENERATE).keys())
def test_many_weightings_at_once_equal_scikit_learn_with_sample_weight(answers):
    lesions = len(answers.truth)
    weights = np.random.default_rng(0).multinomial(lesions, np.full(lesions, 1 / lesions), size=4).T.astype(float)
    found = weighted_scores(answers, weights, METRICS, **OPTIONS)
    for number, column in enumerate(weights.T):
        own = {metric: values[number] for metric, values in found.items()}
        assert own == pytest.approx(by_scikit_learn(answers, column), nan_ok=True, abs=1e-12)


def test_the_metrics_are_the_same_in_any_block(monkeypatch):
    monkeypatch.setattr("miram.evaluate.weighted.AT_ONCE", 2)
    answers = random_answers(5)
    found = weighted_scores(answers, np.ones((60, 5)), METRICS, **OPTIONS)
    for metric, value in scores(answers, **OPTIONS).items():
        assert found[metric] == pytest.approx(np.full(5, value), abs=1e-12)


def test_means_over_classes_leave_an_absent_class_out_and_micro_counts_what_it_was_given():
    answers = DEGENERATE["one class absent"]
    absent, given = scores(answers, **OPTIONS), answers.probabilities.copy()
    given[:, 2] = 0  # what went to the absent class
    spared = scores(answers._replace(probabilities=given), **OPTIONS)
    changed = {metric for metric in METRICS if absent[metric] != pytest.approx(spared[metric])}
    assert changed & {"micro_ap", "micro_auc"} == {"micro_ap", "micro_auc"}
    assert not changed & {"macro_ap", "macro_auc"}
    assert set(MEANS_OVER_CLASSES) == {"balanced_accuracy", "macro_ap", "macro_auc"}


def test_what_a_single_class_leaves_undefined_is_nan():
    found = scores(DEGENERATE["one class alone"], **OPTIONS)
    assert {metric for metric, value in found.items() if np.isnan(value)} == {"macro_auc", "sensitivity"}


def test_sensitivity_is_that_of_malignancy_where_the_task_tells_it():
    probabilities = [[0.1, 0.5, 0.0, 0.4], [0.6, 0.2, 0.1, 0.1], [0.2, 0.2, 0.2, 0.4], [0.1, 0.1, 0.8, 0.0]]
    found = scores(single([3, 0, 1, 2], probabilities), **OPTIONS)
    assert found["sensitivity"] == 1.0  # 0.9 and 0.6 above 0.3 and 0.1, though both malignant classes are mistaken
    assert found["accuracy"] == 0.5


def test_sensitivity_is_that_of_the_class_that_is_named_or_is_not_measured():
    answers = single(
        [0, 0, 1, 1, 2],
        [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.9, 0], [0.5, 0.2, 0.3], [0, 0.1, 0.9]],
        ("benign", "malignant", "normal"),
    )
    by_default = scores(answers, **OPTIONS)["sensitivity"]
    named = scores(answers._replace(positive=("malignant",)), **OPTIONS)["sensitivity"]
    assert named == 0.5 and by_default == pytest.approx(2.5 / 3)  # lower case is no word of the case lists
    nothing = answers._replace(positive=())
    assert np.isnan(scores(nothing, **OPTIONS)["sensitivity"])
    weights = np.ones((5, 3), int)
    drawn = weighted_scores(nothing, weights, METRICS, **OPTIONS)
    assert np.isnan(drawn["sensitivity"]).all() and not np.isnan(drawn["macro_auc"]).any()
    one = weighted_scores(answers._replace(positive=("malignant",)), weights, METRICS, **OPTIONS)
    assert (one["sensitivity"] == 0.5).all()
