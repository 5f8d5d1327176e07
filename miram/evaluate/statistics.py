"""Uncertainty: draws of patients, intervals, correction for several tests, and the number of lesions needed.

Patients are drawn, never lesions: lesions of one patient are similar, and drawing them one by one would give intervals
that are too short. A draw is a weight for each lesion; `weighted.weighted_scores` computes a metric for all draws.

Axis letters: N lesions of one split, R draws.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import (
    ndtri,
    stdtrit,
)  # quantiles of the normal and of Student's law; scipy.stats takes a second to import

from miram.evaluate.scores import ROUNDING

NO_INTERVAL = "no interval"  # how a note begins that says why
ONE_PATIENT = f"{NO_INTERVAL}: all test lesions are of one patient"


def patient_resamples(patients: ArrayLike, *, resamples: int, seed: int) -> np.ndarray:
    """How often each lesion counts if as many patients are drawn with replacement, R times: float64 (N, R).

    For a single patient R = 0: all draws would be equal, as if other patients changed nothing.
    """
    names, owner = np.unique(patients, return_inverse=True)
    shares, draws = np.full(len(names), 1 / len(names)), resamples if len(names) > 1 else 0
    drawn = np.random.default_rng(seed).multinomial(len(names), shares, size=draws)
    return drawn.T[owner].astype(float)


def patient_exchanges(patients: ArrayLike, *, resamples: int, seed: int) -> np.ndarray:
    """Whether two methods exchange their answers, by a coin tossed for each patient, R times: 0.0 or 1.0, (N, R)."""
    names, owner = np.unique(patients, return_inverse=True)
    return np.random.default_rng(seed).integers(2, size=(len(names), resamples))[owner].astype(float)


def interval(value: float, drawn: np.ndarray, confidence: float, min_draws_share: float) -> tuple[float, float]:
    """The middle `confidence` of the values drawn, (R,), after moving their mean to `value`.

    A draw repeats lesions and so adds error, which raises metrics of absolute errors such as the ECE; moved back, the
    interval is around the value. Draws without a value do not count; NaN if fewer than `min_draws_share` have one, as
    these would not be a sample of the patients, and where the middle is one value: draws of lesions that are all
    answered alike tell nothing of other patients. `draws_note` says which.
    """
    if np.isnan(value) or draws_note(drawn, "", confidence, min_draws_share).startswith(NO_INTERVAL):
        return math.nan, math.nan
    low, high = _middle(drawn, confidence) - np.nanmean(drawn) + value
    return float(low), float(high)


def draws_note(drawn: np.ndarray, metric: str, confidence: float, min_draws_share: float) -> str:
    """Why the draws, (R,), of a value leave no interval, or how many have no value; empty where all have one."""
    missing = int(np.isnan(drawn).sum())
    if not len(drawn):
        return ONE_PATIENT
    lacking = f"{missing} of {len(drawn)} draws of patients have no {metric}"
    if missing == len(drawn) or 1 - missing / len(drawn) < min_draws_share:
        return f"{NO_INTERVAL}: {lacking}"
    if np.ptp(_middle(drawn, confidence)) <= ROUNDING:
        return f"{NO_INTERVAL} where the value is the same in at least {confidence:.0%} of the draws of patients"
    return lacking if missing else ""


def _middle(drawn: np.ndarray, confidence: float) -> np.ndarray:
    """The limits of the middle `confidence` of the values drawn."""
    return np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])


def classes_of_one_patient(truth: np.ndarray, patients: ArrayLike, classes: Sequence[str]) -> list[str]:
    """The names of the classes whose lesions, True in truth (N, C), are all of one patient."""
    names = np.asarray(patients)
    return [name for name, own in zip(classes, truth.T, strict=True) if len(set(names[own])) == 1]


def permutation_p_value(observed: float, permuted: np.ndarray) -> float:
    """Two-sided p-value of a difference among those after exchange, (R,); the observed one counts as one of them.

    Phipson and Smyth 2010 (Stat. Appl. Genet. Mol. Biol. 9, 39): never zero, and the level is held.
    """
    if np.isnan(observed):
        return math.nan
    return (1 + int((np.abs(permuted) >= abs(observed) - ROUNDING).sum())) / (1 + len(permuted))


def holm(p_values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Holm's adjusted p-values, and the number of tests that each p-value's level is divided by; NaN is no test.

    The smallest of m p-values is tested at level / m, the next at level / (m - 1), and so on (Holm 1979).
    """
    values = np.asarray(p_values, dtype=float)
    adjusted, divisors = np.full(len(values), np.nan), np.full(len(values), np.nan)
    order = [index for index in np.argsort(values, kind="stable") if not np.isnan(values[index])]
    divisors[order] = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * divisors[order]), 1)
    return adjusted, divisors


def training_margin(sd: float, seeds: int, confidence: float) -> float:
    """Half the width of Student's interval of a mean over `seeds` trainings that differ by `sd`.

    For two trainings it is 12.7 standard errors: correct, but hardly informative. NaN for a single seed, or if all
    seeds agree exactly: with few lesions accuracy takes few values, so equal scores do not show that training has no
    spread.
    """
    return stdtrit(seeds - 1, (1 + confidence) / 2) * sd / math.sqrt(seeds) if seeds > 1 and sd > 0 else math.nan


def another_run_margin(sd: float, seeds: int, confidence: float) -> float:
    """Half the width of Student's interval for one more training, beside the mean of `seeds`; NaN as above."""
    return training_margin(sd, seeds, confidence) * math.sqrt(seeds + 1)


def between_runs_margin(sds: Sequence[float], seeds: Sequence[int], confidence: float) -> float:
    """Half the width of Student's interval of the difference of two runs' means over seeds, from their pooled spread.

    NaN if no run has two seeds, if one has none, or if all trainings agree.
    """
    if min(seeds) < 1 or max(seeds) < 2:
        return math.nan
    freedom = [count - 1 for count in seeds]
    pooled = sum(count * sd**2 for count, sd in zip(freedom, sds, strict=True) if count) / sum(freedom)
    spread = math.sqrt(pooled * sum(1 / count for count in seeds))
    return stdtrit(sum(freedom), (1 + confidence) / 2) * spread if spread > 0 else math.nan


def widened(value: float, low: float, high: float, margin: float) -> tuple[float, float]:
    """The interval of `value` with a second, independent source of error, whose own interval is value ± margin.

    Distances to the limits are added as squares (MOVER: Zou and Donner 2008, Stat. Med. 27, 1693).
    """
    return value - math.hypot(value - low, margin), value + math.hypot(high - value, margin)


def design_effect(values: np.ndarray, patients: ArrayLike) -> float:
    """The variance of a mean over lesions, (N,), relative to that for independent lesions within patients.

    The variance of the patients' sums over that of the lesions: 1 + (lesions per patient - 1) x correlation within a
    patient, where all patients have equally many. 1 where all values are equal; NaN for one patient.
    """
    deviations = values - values.mean()
    total = (deviations**2).sum()
    names, owner = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        return math.nan
    return float((np.bincount(owner, weights=deviations) ** 2).sum() / total) if total > 0 else 1.0


def lesions_needed_paired(
    difference: float, disagreement: float, *, confidence: float, power: float, design_effect: float
) -> int | None:
    """Lesions that two methods must both answer for a test to find their true difference of accuracy with `power`.

    n = (z_c sqrt(d) + z_p sqrt(d - difference^2))^2 / difference^2 x design effect, z_c and z_p the normal quantiles
    of the two-sided level and of the power (Connor 1987, Biometrics 43, 207). `disagreement` d is the share of lesions
    that one alone gets right, or the mean square of the lesions' differences where several seeds are averaged. None
    for a difference of 0, which no number suffices for, and if the design effect is unknown.
    """
    if difference == 0 or math.isnan(design_effect):
        return None
    level, found = ndtri((1 + confidence) / 2), ndtri(power)
    root = level * math.sqrt(disagreement) + found * math.sqrt(max(disagreement - difference**2, 0))
    return math.ceil(root**2 / difference**2 * design_effect)


def lesions_needed_unpaired(
    first: float, second: float, *, confidence: float, power: float, design_effect: float
) -> int | None:
    """Lesions that each of two methods must answer on its own set for a test to tell two true accuracies apart.

    n = (z_c sqrt(2 m (1 - m)) + z_p sqrt(a (1 - a) + b (1 - b)))^2 / (a - b)^2 x design effect, m the mean of the
    accuracies a and b (Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, 4.2). None where
    a = b.
    """
    if first == second:
        return None
    level, found, mean = ndtri((1 + confidence) / 2), ndtri(power), (first + second) / 2
    own = first * (1 - first) + second * (1 - second)
    root = level * math.sqrt(2 * mean * (1 - mean)) + found * math.sqrt(own)
    return math.ceil(root**2 / (first - second) ** 2 * design_effect)
