"""The answers of a network on one split, what of them is right, and how sure it was; `weighted` has the metrics.

Axis letters: N lesions, C classes, B bins of confidence.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

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
    """The keywords of `weighted.weighted_scores`."""

    specificity: float
    threshold: float
    bins: int


class Answers(NamedTuple):
    """What a network answered, and the truth.

    truth: bool (N, C), one True a row unless `multilabel`; probabilities: float64 (N, C) in [0, 1], of sum 1 a row
    unless `multilabel`; classes: C names; positive: those that `sensitivity` is about, None for those of CBIS-DDSM, see
    `detections`.
    """

    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    multilabel: bool
    positive: tuple[str, ...] | None = None


def decisions(answers: Answers, threshold: float) -> np.ndarray:
    """The classes that are answered, bool (N, C): the first of the most probable; multi-label: all from `threshold`."""
    if answers.multilabel:
        return answers.probabilities >= threshold
    return np.arange(len(answers.classes)) == answers.probabilities.argmax(axis=1)[:, None]


def right(answers: Answers, threshold: float) -> np.ndarray:
    """Whether a lesion's whole answer is right, bool (N,)."""
    return (decisions(answers, threshold) == answers.truth).all(axis=1)


def detections(answers: Answers) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and score, both (N,), of each target that `sensitivity` is about.

    The positive classes together, their score the sum of their probabilities; without any nothing. Of CBIS-DDSM
    malignancy where the task tells it; else each class against the rest, and the sensitivity is the mean over those
    that have lesions with and without.
    """
    named = answers.positive
    positive = np.array([name.startswith(MALIGNANT) if named is None else name in named for name in answers.classes])
    if positive.any():
        truth = np.asarray(answers.truth[:, positive].any(axis=1))
        return [(truth, answers.probabilities[:, positive].sum(axis=1))]
    return list(zip(answers.truth.T, answers.probabilities.T, strict=True)) if named is None else []


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


def confidence_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each confidence, of so many of equal width."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def calibration(networks: Sequence[Answers], threshold: float, bins: int) -> pd.DataFrame:
    """Means of the non-empty bins of the calibration error, over all networks: confidence, right, and their count."""
    pairs = [confidences(answers, threshold) for answers in networks]
    confidence, outcome = (np.concatenate([np.ravel(own) for own in side]) for side in zip(*pairs, strict=True))
    every = pd.DataFrame({"confidence": confidence, "right": outcome, "count": 1})
    means = {"confidence": "mean", "right": "mean", "count": "sum"}
    return every.groupby(confidence_bins(confidence, bins)).agg(means)
