"""Uncertainty from pre-training: what a method's results owe to the few pre-trainings behind its networks.

The multi-bootstrap (Sellam et al. 2022, The MultiBERTs, ICLR) draws pre-trainings and patients with replacement,
crossed. Draws of three pre-trainings are too much alike, so that its intervals are too short. Here the variance that
drawing pre-trainings aims at is estimated without bias and joined to that of the draws of patients, with Student's
quantile by degrees of freedom of Satterthwaite's form (1946, Biometrics Bulletin 2, 110).

Axis letters: S networks of a method, P pre-trainings, R draws of patients.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtr, stdtrit

from miram.evaluate.scores import ROUNDING
from miram.evaluate.statistics import interval
from miram.evaluate.weighted import Measured

POWER = (
    1.5  # of the shares of the variance; 2 is Satterthwaite's, which covers 92 % of 95 with three pre-trainings (ours)
)
OF_ONE = "of this one pre-training"  # what results are about where nothing is known of another one
VARIANCE_COLUMNS = [
    *("method", "metric", "seeds", "pretrainings", "sd_patients", "sd_pretraining", "sd_finetuning", "note")
]


def pretrainings_of(metrics: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Protocol -> method -> how often it was pre-trained, of metrics.csv; without what was not."""
    counts = metrics.groupby(["protocol", "method"], sort=False)["pretrain_seed"].nunique()
    found: dict[str, dict[str, int]] = {}
    for row in counts[counts > 0].reset_index(name="times").to_dict("records"):
        found.setdefault(str(row["protocol"]), {})[str(row["method"])] = int(row["times"])
    return found


def extent(metrics: pd.DataFrame) -> str:
    """What the results of metrics.csv reach, by the pre-trainings behind them, in a sentence for each such number."""
    protocols: dict[tuple[int, int, str], list[str]] = {}
    for protocol, counts in pretrainings_of(metrics).items():
        once = " and ".join(name for name, count in counts.items() if count == 1)
        protocols.setdefault((min(counts.values()), max(counts.values()), once), []).append(protocol)
    told = []
    for (least, most, once), own in protocols.items():
        where = f" under protocol {' and '.join(own)}" if len(protocols) > 1 else ""
        if most == 1:
            said = f"once{where}: all is {OF_ONE}, and nothing is claimed about the method."
        else:
            times = f"{most} times" if least == most else f"between {least} and {most} times"
            but = f", but those of {once} are {OF_ONE}" if once else ""
            said = f"{times}{where}: intervals and tests hold for further pre-trainings too{but}."
        told.append(f"Each method was pre-trained {said}")
    return " ".join(told)


class Anew(NamedTuple):
    """What a method's mean would vary by if it were trained anew: pre-trained, or fine-tuned where that is all."""

    observed: float  # variance of the mean over pre-trainings, as they differ on the test lesions
    beyond: float  # the part of it that the draws of patients do not hold already, at least 0
    freedom: float  # P - 1 where all count alike, else less


class Sources(NamedTuple):
    """The spread of one run on the same lesions, by source, as standard deviations; NaN where it cannot be told."""

    pretraining: float  # with one fine-tuning each it holds that of fine-tuning as well
    finetuning: float


def starts_of(networks: Sequence[Measured]) -> list[object]:
    """What tells a method's networks apart: their pre-training; where that is one or none, each counts by itself."""
    several = count_pretrainings(networks) > 1
    return [own.pretrain_seed if several else number for number, own in enumerate(networks)]


def count_pretrainings(networks: Sequence[Measured]) -> int:
    """The number of pre-trainings behind a method's networks; 0 where none was pre-trained here."""
    return len({own.pretrain_seed for own in networks} - {None})


def several_pretrainings(measured: Mapping[tuple[str, int], Measured]) -> bool:
    """Whether some method of a section was pre-trained more than once; `measured` goes by (method, seed)."""
    methods = dict.fromkeys(method for method, _ in measured)
    return any(count_pretrainings([m for (own, _), m in measured.items() if own == name]) > 1 for name in methods)


def anew(networks: Sequence[Measured], metric: str) -> Anew | None:
    """How far a method's mean by a metric would vary, see `Anew`; None for a single network, or without a value.

    Each pre-training counts by its fine-tunings. Networks differ on the test lesions also because each is right on
    others of them; the draws show how far that alone goes.
    """
    starts = starts_of(networks)
    count = len(set(starts))
    values = np.array([own.values[metric] for own in networks])
    if count < 2 or np.isnan(values).any():
        return None
    member = np.array([[own == start for own in starts] for start in dict.fromkeys(starts)], dtype=float)
    shares = member.sum(axis=1) / len(networks)
    mean_of = member / member.sum(axis=1, keepdims=True)
    drawn = np.stack([own.drawn[metric] for own in networks])
    alike = float(shares @ shares)  # 1 / P for equal shares
    factor = alike / float(shares**2 @ (1 - 2 * shares + alike))  # P / (P - 1) for equal shares: without bias
    apart = mean_of @ values - values.mean()
    observed = factor * float((shares**2) @ apart**2)
    by_lesions = np.nanvar(mean_of @ drawn - drawn.mean(axis=0), axis=1) if drawn.size else np.zeros(count)
    return Anew(observed, max(observed - factor * float(shares**2 @ by_lesions), 0.0), 1 / alike - 1)


def interval_anew(
    value: float, drawn: np.ndarray, parts: Sequence[Anew | None], confidence: float, min_draws_share: float
) -> tuple[float, float]:
    """The interval of a mean, or of a difference of two, for other patients and other pre-trainings.

    `drawn`, (R,): its values in the draws of patients; `parts`: of each method. NaN as in `statistics.interval`.
    """
    low, high = interval(value, drawn, confidence, min_draws_share)
    _, freedom = _joined(drawn, parts)
    beyond = math.sqrt(sum(part.beyond for part in parts if part))
    level = (1 + confidence) / 2
    usual, quantile = float(ndtri(level)), float(stdtrit(freedom, level))
    below, above = (quantile * math.hypot(side / usual, beyond) for side in (value - low, high - value))
    return value - below, value + above


def p_value_anew(value: float, drawn: np.ndarray, parts: Sequence[Anew | None]) -> float:
    """Two-sided p-value of a difference, for other patients and other pre-trainings.

    NaN without draws or a value, and where neither draws nor trainings differ, unless the value is 0.
    """
    variance, freedom = _joined(drawn, parts)
    if math.isnan(value) or math.isnan(variance):
        return math.nan
    if variance <= ROUNDING**2:
        return 1.0 if value == 0 else math.nan
    return float(2 * stdtr(freedom, -abs(value) / math.sqrt(variance)))


def _joined(drawn: np.ndarray, parts: Sequence[Anew | None]) -> tuple[float, float]:
    """The variance from all sources, and its degrees of freedom."""
    known = [part for part in parts if part]
    variance = float(np.nanvar(drawn)) if np.isfinite(drawn).any() else math.nan
    variance += sum(part.beyond for part in known)
    rough = sum((part.observed / variance) ** POWER / part.freedom for part in known) if variance > 0 else 0.0
    return variance, max(1 / rough, min(part.freedom for part in known)) if rough > 0 else math.inf


def sources(values: Sequence[float], starts: Sequence[object]) -> Sources:
    """The spread of one run by source, from the (S,) results of a method and the start of each, see `Sources`."""
    groups = [np.array([v for v, own in zip(values, starts, strict=True) if own == s]) for s in dict.fromkeys(starts)]
    rest = len(values) - len(groups)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / rest if rest else math.nan
    between = float(np.var([group.mean() for group in groups], ddof=1)) if len(groups) > 1 else math.nan
    if rest:
        between = max(between - within * float(np.mean([1 / len(group) for group in groups])), 0.0)
    return Sources(math.sqrt(between), math.sqrt(within))


def variance_rows(measured: Mapping[tuple[str, int], Measured]) -> list[dict[str, object]]:
    """The rows of variance.csv of one section: a method by a metric."""
    rows = []
    for method in dict.fromkeys(method for method, _ in measured):
        networks = [network for (own, _), network in measured.items() if own == method]
        counts = {"seeds": len(networks), "pretrainings": count_pretrainings(networks)}
        for metric in networks[0].values:
            drawn = np.mean([network.drawn[metric] for network in networks], axis=0)
            found = sources([own.values[metric] for own in networks], [own.pretrain_seed for own in networks])
            row = {"method": method, "metric": metric, **counts, "note": OF_ONE if counts["pretrainings"] == 1 else ""}
            row["sd_patients"] = float(np.nanstd(drawn)) if np.isfinite(drawn).any() else np.nan
            rows.append(row | {f"sd_{name}": value for name, value in found._asdict().items()})
    return rows
