"""The metrics of one split under many weightings of its lesions at once, each from one sorting of the scores.

scikit-learn computes one weighting at a time; an evaluation needs millions. The tests compare every value with
scikit-learn's with `sample_weight`.

Axis letters: N lesions, C classes, R weightings, K distinct scores, from the highest down.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from miram.evaluate.scores import ROUNDING, Answers, Options, calibration_gaps, decisions, detections, right

AT_ONCE = 1000  # weightings in memory at once; does not affect results


class Measured(NamedTuple):
    """A network's answers on one split, its metrics, the metrics in each draw of patients, (R,) each, and its start."""

    answers: Answers
    values: dict[str, float]
    drawn: dict[str, np.ndarray]
    pretrain_seed: int | None = None  # of its pre-training; None: not pre-trained here


def weighted_scores(
    answers: Answers,
    weights: np.ndarray,
    metrics: Sequence[str],
    *,
    specificity: float,
    threshold: float,
    bins: int,
) -> dict[str, np.ndarray]:
    """These of METRICS with each column of `weights`, whole numbers (N, R): (R,) each, in [0, 1]; NaN where undefined.

    AP and AUC take one class against the rest. Macro: mean over the classes that have a lesion, for the AUC also one
    lesion without; micro: over all N x C pairs, so that probability given to a class without lesions is an error.
    accuracy: the whole answer is right, all classes of a multi-label task included. balanced_accuracy: mean recall of
    the classes; in a multi-label task mean over them of (sensitivity + specificity) / 2. sensitivity: the largest at a
    specificity of at least `specificity`, see `scores.detections`. ece: see `scores.calibration_gaps`. brier: mean
    squared error of the probabilities over all pairs. Lower is better for the last two alone. A lesion or class without
    weight counts as absent.
    """
    options: Options = {"specificity": specificity, "threshold": threshold, "bins": bins}
    blocks = [weights[:, start : start + AT_ONCE] for start in range(0, weights.shape[1], AT_ONCE)]
    found = [_block(answers, np.ascontiguousarray(block), metrics, **options) for block in blocks]
    return {metric: np.concatenate([np.empty(0), *(values[metric] for values in found)]) for metric in metrics}


def _block(
    answers: Answers, weights: np.ndarray, metrics: Sequence[str], *, specificity: float, threshold: float, bins: int
) -> dict[str, np.ndarray]:
    truth, probabilities, classes = answers[:3]

    @cache
    def per_class() -> list[tuple[np.ndarray, np.ndarray]]:
        return [_curve(*pair, weights) for pair in zip(truth.T, probabilities.T, strict=True)]

    @cache
    def pooled() -> tuple[np.ndarray, np.ndarray]:
        return _curve(truth.ravel(), probabilities.ravel(), np.repeat(weights, len(classes), axis=0))

    def detected() -> list[tuple[np.ndarray, np.ndarray]]:
        return [_curve(*pair, weights) for pair in detections(answers)]

    unknown = np.full(weights.shape[1], np.nan)
    ways = {
        "accuracy": lambda: _mean_lesion(right(answers, threshold), weights),
        "balanced_accuracy": lambda: _balanced_accuracy(answers, weights, threshold),
        "macro_ap": lambda: _mean_defined([_average_precision(*curve) for curve in per_class()]),
        "micro_ap": lambda: _average_precision(*pooled()),
        "macro_auc": lambda: _mean_defined([_auc(*curve) for curve in per_class()]),
        "micro_auc": lambda: _auc(*pooled()),
        "sensitivity": lambda: _mean_defined([unknown, *(_sensitivity(*curve, specificity) for curve in detected())]),
        "ece": lambda: np.abs(_mean_lesion(calibration_gaps(answers, threshold, bins), weights)).sum(axis=0),
        "brier": lambda: _mean_lesion(((truth - probabilities) ** 2).mean(axis=1), weights),
    }
    return {metric: ways[metric]() for metric in metrics}


def _curve(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the lesions with and without the class down to each distinct score, (K, R) both."""
    order = np.argsort(-score, kind="stable")
    last_of_equals = np.flatnonzero(np.diff(score[order], append=-np.inf))
    ordered = weights[order]
    with_class = _running_sum(ordered * truth[order, None])[last_of_equals]
    return with_class, _running_sum(ordered)[last_of_equals] - with_class


def _running_sum(rows: np.ndarray) -> np.ndarray:
    """Cumulative sum over rows, in place; several times faster than np.cumsum, which goes by columns."""
    for number in range(1, len(rows)):
        rows[number] += rows[number - 1]
    return rows


def _average_precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Sum of the precision at each score times the gain of recall that it brings; NaN without a positive."""
    precision = _quotient(true, true + false, nothing=0.0)
    return _quotient((np.diff(true, axis=0, prepend=0) * precision).sum(axis=0), true[-1])


def _auc(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Area under the ROC curve by trapezia; NaN without a positive or a negative."""
    before = np.vstack([np.zeros_like(true[:1]), true[:-1]])
    area = (np.diff(false, axis=0, prepend=0) * (true + before)).sum(axis=0) / 2
    return _quotient(area, true[-1] * false[-1])


def _sensitivity(true: np.ndarray, false: np.ndarray, specificity: float) -> np.ndarray:
    """The largest share of the positives found at a specificity of at least `specificity`; NaN as for the AUC."""
    allowed = 1 - _quotient(false, false[-1]) >= specificity - ROUNDING
    return np.where(false[-1] > 0, _quotient(np.where(allowed, true, 0).max(axis=0), true[-1]), np.nan)


def _balanced_accuracy(answers: Answers, weights: np.ndarray, threshold: float) -> np.ndarray:
    truth, decided = answers.truth, decisions(answers, threshold)
    recall = _quotient((truth & decided).T.astype(float) @ weights, truth.T.astype(float) @ weights)
    if not answers.multilabel:
        return _mean_defined(recall)
    specificity = _quotient((~truth & ~decided).T.astype(float) @ weights, (~truth).T.astype(float) @ weights)
    return _mean_defined((recall + specificity) / 2)


def _mean_lesion(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over lesions of (N,) or (N, B) values: (R,) or (B, R)."""
    return values.T.astype(float) @ weights / weights.sum(axis=0)


def _mean_defined(of_classes: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over classes, (C, R) to (R,), of the values that are not NaN; NaN where all are."""
    values = np.stack(list(of_classes))
    return _quotient(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))


def _quotient(above: np.ndarray, below: np.ndarray, nothing: float = np.nan) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), nothing), where=below > 0)
