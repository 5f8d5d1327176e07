"""The metrics of one split, by scikit-learn.

Axis letters: N lesions, C classes, T targets of detection, B bins of confidence.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_ap",
    "micro_ap",
    "macro_auc",
    "micro_auc",
    "sensitivity",
    "ece",
    "brier",
)
MEANS_OVER_CLASSES = ("balanced_accuracy", "macro_ap", "macro_auc")  # and so blind to a class without lesions
MALIGNANT = "MALIGNANT"  # how the names of malignant classes begin
ROUNDING = 1e-12  # what counts as equal among quotients of whole numbers


class Options(TypedDict):
    """The keywords of `scores`."""

    specificity: float
    threshold: float
    bins: int


class Answers(NamedTuple):
    """What a network answered, and the truth.

    truth: bool (N, C), one True a row unless `multilabel`; probabilities: float64 (N, C) in [0, 1], of sum 1 a row
    unless `multilabel`; classes: C names; positive: those that `sensitivity` is about, None for those of CBIS-DDSM, see
    `detection`.
    """

    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    multilabel: bool
    positive: tuple[str, ...] | None = None


def scores(
    answers: Answers, metrics: Sequence[str] = METRICS, *, specificity: float, threshold: float, bins: int
) -> dict[str, float]:
    """These metrics of METRICS, each in [0, 1]; NaN where it is undefined.

    AP and AUC take one class against the rest. Macro: mean over the classes that have a lesion, for the AUC also one
    lesion without; micro: over all N x C pairs, so that probability given to a class without lesions is an error.
    accuracy: the whole answer is right, all classes of a multi-label task included. balanced_accuracy: mean recall of
    the classes; in a multi-label task mean over them of (sensitivity + specificity) / 2. sensitivity: the largest at a
    specificity of at least `specificity`, see `detection`. ece: see `calibration_gaps`. brier: mean squared error of
    the probabilities over all pairs. Lower is better for the last two alone.
    """
    from sklearn import metrics as of  # a second, which those who only read metrics.csv need not spend

    truth, probabilities, _, multilabel, _ = answers
    decided = decisions(answers, threshold)
    present = truth.any(axis=0)
    both = present & ~truth.all(axis=0)

    def balanced_accuracy() -> float:
        if not multilabel:
            labels, options = np.flatnonzero(present), {"average": "macro", "zero_division": 0.0}
            return of.recall_score(truth.argmax(1), decided.argmax(1), labels=labels, **options)
        halves = [of.balanced_accuracy_score(truth[:, c], decided[:, c]) for c in np.flatnonzero(both)]
        return float(np.mean(halves)) if halves else np.nan

    def macro_auc() -> float:
        return of.roc_auc_score(truth[:, both], probabilities[:, both], average="macro") if both.any() else np.nan

    def sensitivity() -> float:
        found = [_sensitivity(*pair, specificity) for pair in detections(answers) if len(set(pair[0])) == 2]
        return float(np.mean(found)) if found else np.nan

    ways = {
        "accuracy": lambda: of.accuracy_score(truth, decided),
        "balanced_accuracy": balanced_accuracy,
        "macro_ap": lambda: of.average_precision_score(truth[:, present], probabilities[:, present], average="macro"),
        "micro_ap": lambda: of.average_precision_score(truth, probabilities, average="micro"),
        "macro_auc": macro_auc,
        "micro_auc": lambda: np.nan if truth.all() else of.roc_auc_score(truth, probabilities, average="micro"),
        "sensitivity": sensitivity,
        "ece": lambda: np.abs(calibration_gaps(answers, threshold, bins).mean(axis=0)).sum(),
        "brier": lambda: of.mean_squared_error(truth, probabilities),
    }
    return {metric: ways[metric]() for metric in metrics}


def decisions(answers: Answers, threshold: float) -> np.ndarray:
    """The classes that are answered, bool (N, C): the first of the most probable; multi-label: all from `threshold`."""
    if answers.multilabel:
        return answers.probabilities >= threshold
    return np.arange(len(answers.classes)) == answers.probabilities.argmax(axis=1)[:, None]


def right(answers: Answers, threshold: float) -> np.ndarray:
    """Whether a lesion's whole answer is right, bool (N,)."""
    return (decisions(answers, threshold) == answers.truth).all(axis=1)


def detections(answers: Answers) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Truth and score, both (N,), of each of the T targets that `sensitivity` is about, see `detection`."""
    truth, score = detection(answers)
    return zip(truth.T, score.T, strict=True)


def detection(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Truth and score, both (N, T), of what `sensitivity` is about.

    The positive classes, their score the sum of their probabilities (T = 1); without any nothing (T = 0). Of CBIS-DDSM
    malignancy where the task tells it; else each class against the rest (T = C), and the sensitivity is the mean over
    those that have lesions with and without.
    """
    named = answers.positive
    positive = np.array([name.startswith(MALIGNANT) if named is None else name in named for name in answers.classes])
    if not positive.any():
        none = slice(None) if named is None else slice(0)
        return answers.truth[:, none], answers.probabilities[:, none]
    truth = np.asarray(answers.truth[:, positive].any(axis=1, keepdims=True))
    return truth, answers.probabilities[:, positive].sum(axis=1, keepdims=True)


def calibration_gaps(answers: Answers, threshold: float, bins: int) -> np.ndarray:
    """Right answers less confidence, by lesion and bin of confidence: (N, B), bins of equal width.

    The expected calibration error (Guo et al. 2017, ICML) is the sum over bins of the absolute mean over lesions.
    Confidence is the largest probability, its class the answer that is right or wrong; in a multi-label task each of
    the C probabilities counts, with its class as the truth, by 1/C.
    """
    confidence, outcome = confidences(answers, threshold)
    chosen = confidence_bins(confidence, bins)
    gaps = (outcome - confidence) / confidence.shape[1]
    return np.stack([np.where(chosen == number, gaps, 0.0).sum(axis=1) for number in range(bins)], axis=1)


def confidences(answers: Answers, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """What `calibration_gaps` compares: confidence, and whether it was right, both (N, 1) or (N, C)."""
    if answers.multilabel:
        return answers.probabilities, answers.truth
    return answers.probabilities.max(axis=1, keepdims=True), right(answers, threshold)[:, None]


def _sensitivity(truth: np.ndarray, score: np.ndarray, specificity: float) -> float:
    from sklearn.metrics import roc_curve  # as above

    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    return true[1 - false >= specificity - ROUNDING].max()


def confidence_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence, of so many of equal width."""
    return np.minimum((confidence * bins).astype(int), bins - 1)
