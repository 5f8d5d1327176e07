"""Differences between methods on the same lesions: intervals, tests, and the number of lesions needed.

Axis letters: N lesions of one split, R draws of patients.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from miram.evaluate.predictions import NOTE_SEPARATOR
from miram.evaluate.pretrainings import (
    OF_ONE,
    anew,
    count_pretrainings,
    interval_anew,
    p_value_anew,
)
from miram.evaluate.scores import Options, right
from miram.evaluate.statistics import (
    ONE_PATIENT,
    design_effect,
    draws_note,
    holm,
    interval,
    lesions_needed_paired,
    patient_exchanges,
    permutation_p_value,
    training_margin,
    widened,
)
from miram.evaluate.weighted import Measured, weighted_scores

DIFFERENCE_COLUMNS = [
    *("metric", "first", "second", "difference", "low", "high", "sd", "seeds", "pretrainings", "lesions", "patients"),
    *("p_value", "p_holm", "corrected_low", "corrected_high"),
    *("disagreement", "design_effect", "lesions_needed", "differs_in", "note"),
]
SIGNED = {  # column -> the one whose negative it is once the methods are exchanged
    **{"difference": "difference", "low": "high", "high": "low"},
    **{"corrected_low": "corrected_high", "corrected_high": "corrected_low"},
}
CONDITIONS = ("side", "batch")  # that are told by their values
Conditions = Mapping[str, Mapping[str, int]]  # method -> side (px) and, of pre-training, batch and epochs
Pairs = list[tuple[Measured, Measured]]  # the reference and another method, one pair per seed


def difference_rows(
    measured: Mapping[tuple[str, int], Measured],
    expected: Sequence[tuple[str, int]],
    patients: np.ndarray,
    *,
    reference: str,
    compared: Sequence[str],
    resamples: int,
    seed: int,
    confidence: float,
    min_draws_share: float,
    power: float,
    options: Options,
) -> list[dict[str, object]]:
    """One row per metric of `compared` and other method: `reference` minus that method, on the test set of one section.

    `measured` holds the available (method, seed) of `expected`. A difference is the mean over the seeds that
    both methods have; `low` and `high` bound its interval over patients, for these networks; `sd` is its sample
    standard deviation over seeds. `p_value` is that of exchanging the two methods' answers, patient by patient and in
    all seeds at once: with one seed, one lesion per patient and accuracy this is McNemar's exact test, which is limited
    to that case. `p_holm` is corrected for all methods that are compared with the reference by one metric.

    `corrected_low` and `corrected_high` are at the confidence that Holm's step asks of this comparison, and widened by
    the spread of fine-tuning, for which they need two seeds that differ. With so few seeds Student's interval can
    exceed [-1, 1]; it is clipped, which does not reduce coverage, and [-1, 1] means that nothing is known.

    All of this is for the present pre-trainings, `pretrainings` of the pre-trained method that has fewest. Where one of
    the two has several, both intervals and the p-value are for other pre-trainings too, see
    `pretrainings.interval_anew`; where all trainings agree exactly nothing is known of others, and there is no
    corrected interval.

    `lesions_needed`, for accuracy: the number needed to find a true difference as large as this one, from the
    measured `disagreement` and `design_effect`. A pair without a common seed has a row without values; its note
    names what is missing.
    """
    exchanges = patient_exchanges(patients, resamples=resamples, seed=seed)
    pairs, notes, permuted = {}, {}, {}
    for other in dict.fromkeys(method for method, _ in expected if method != reference):
        seeds = dict.fromkeys(number for method, number in expected if method == other)
        common = [number for number in seeds if {(reference, number), (other, number)} <= set(measured)]
        pairs[other] = [(measured[reference, number], measured[other, number]) for number in common]
        lacking = [f"seed {number} lacks predictions of one of them" for number in seeds if number not in common]
        notes[other] = NOTE_SEPARATOR.join([*lacking, *([ONE_PATIENT] if len(set(patients)) == 1 else [])])
        if not _several(pairs[other]):
            permuted[other] = _exchanged(pairs[other], exchanges, compared, options)
    lesions = {"lesions": len(patients), "patients": len(set(patients))}
    rows = []
    for metric in compared:
        draws = {other: own[metric] for other, own in permuted.items() if own}
        for other, found in _family(metric, pairs, draws, confidence, min_draws_share).items():
            note = NOTE_SEPARATOR.join(filter(None, [notes[other], found.pop("note", "")]))
            row = {"metric": metric, "first": reference, "second": other, **found, **lesions, "note": note}
            if metric == "accuracy" and pairs[other]:
                row |= _lesions_needed(pairs[other], patients, confidence, power, options["threshold"])
            rows.append(row)
    return rows


def less_trivial(
    measured: Mapping[tuple[str, int], Measured],
    runs: Sequence[tuple[str, int]],
    patients: np.ndarray,
    trivial: Sequence[tuple[str, int]],
    compare: Callable[..., list[dict[str, object]]],
) -> list[dict[str, object]]:
    """The rows of the accuracy of every method minus each of the `trivial` classifiers, corrected among themselves.

    A trivial classifier has one answer, which is paired with all seeds of a method. `compare` is `difference_rows`.
    """
    rows: list[dict[str, object]] = []
    for name, number in trivial:
        if (name, number) in measured:
            same = {(name, seed): measured[name, number] for _, seed in runs}
            rows += map(_turned, compare({**measured, **same}, runs, patients, reference=name, compared=["accuracy"]))
    return rows


def differs_in(first: str, second: str, conditions: Conditions) -> str:
    """In what else than the method two rows differ, each condition with both values; empty where in nothing.

    Of two pre-trainings on the same images the optimiser steps go by epochs / batch.
    """
    one, other = (conditions.get(name, {}) for name in (first, second))
    common = one.keys() & other.keys()
    told = [f"{n} ({one[n]} against {other[n]})" for n in CONDITIONS if n in common and one[n] != other[n]]
    if {"batch", "epochs"} <= common:
        steps = one["epochs"] * other["batch"] / (one["batch"] * other["epochs"])
        told += [f"optimiser steps ({steps:.3g} to 1)"] if steps != 1 else []
    return ", ".join(told)


def _turned(row: dict[str, Any]) -> dict[str, object]:
    """The same comparison with its methods exchanged."""
    turned = row | {"first": row["second"], "second": row["first"]}
    for name, other in SIGNED.items():
        if other in row:
            turned[name] = -row[other]
    return turned


def _exchanged(pairs: Pairs, exchanges: np.ndarray, metrics: Sequence[str], options: Options) -> dict[str, np.ndarray]:
    """The difference after each exchange of answers, mean over seeds, (R,) per metric; nothing without a pair.

    Both methods' answers form one pool of 2 N; those of weight 1 are the first method's, the others the second's.
    """
    kept = np.concatenate([1 - exchanges, exchanges])
    found = []
    for first, second in pairs:
        pool = first.answers._replace(
            truth=np.concatenate([first.answers.truth, second.answers.truth]),
            probabilities=np.concatenate([first.answers.probabilities, second.answers.probabilities]),
        )
        one, other = (weighted_scores(pool, weights, metrics, **options) for weights in (kept, 1 - kept))
        found.append({metric: one[metric] - other[metric] for metric in metrics})
    return {metric: np.mean([values[metric] for values in found], axis=0) for metric in metrics} if found else {}


def _family(
    metric: str,
    pairs: Mapping[str, Pairs],
    permuted: Mapping[str, np.ndarray],
    confidence: float,
    min_draws_share: float,
) -> dict[str, dict[str, Any]]:
    """The comparisons by one metric, corrected together by Holm's method; those without a pair have no values.

    `permuted` has the differences after exchange of those that are for the present pre-trainings alone.
    """
    by_seed = {other: np.array([a.values[metric] - b.values[metric] for a, b in pairs[other]]) for other in pairs}
    observed = {other: values.mean() for other, values in by_seed.items() if len(values)}
    drawn = {o: np.mean([a.drawn[metric] - b.drawn[metric] for a, b in pairs[o]], axis=0) for o in observed}
    parts = {o: [anew(side, metric) for side in zip(*pairs[o], strict=True)] for o in observed}
    p_values = [
        permutation_p_value(value, permuted[other])
        if other in permuted
        else p_value_anew(value, drawn[other], parts[other])
        for other, value in observed.items()
    ]
    found: dict[str, dict[str, Any]] = {o: {"seeds": len(own), **_start(pairs[o])} for o, own in by_seed.items()}
    for (other, value), p_value, p_holm, divisor in zip(observed.items(), p_values, *holm(p_values), strict=True):
        seeds = len(pairs[other])
        sd = by_seed[other].std(ddof=1) if seeds > 1 else math.nan
        levels = confidence, 1 - (1 - confidence) / divisor
        if other in permuted:
            usual, strict = (interval(value, drawn[other], level, min_draws_share) for level in levels)
            limits = widened(value, *strict, training_margin(sd, seeds, levels[1]))
        else:
            usual, limits = (
                interval_anew(value, drawn[other], parts[other], level, min_draws_share) for level in levels
            )
            if not any(part and part.observed for part in parts[other]):
                limits = (math.nan, math.nan)
        intervals = {("low", "high"): usual, ("corrected_low", "corrected_high"): limits}
        for names, bounds in intervals.items():
            found[other] |= dict(zip(names, np.clip(bounds, -1, 1), strict=True))
        if len(drawn[other]) and not math.isnan(value):
            note = draws_note(drawn[other], metric, confidence, min_draws_share)
            found[other]["note"] = NOTE_SEPARATOR.join(filter(None, [found[other].get("note"), note]))
        found[other] |= {"difference": value, "sd": sd, "p_value": p_value, "p_holm": p_holm}
    return found


def _several(pairs: Pairs) -> bool:
    """Whether one of the two methods was pre-trained more than once."""
    return any(count_pretrainings(side) > 1 for side in zip(*pairs, strict=True))


def _start(pairs: Pairs) -> dict[str, Any]:
    """The number of pre-trainings behind a comparison, and a note where it is one; nothing where it is none."""
    counts = [count_pretrainings(side) for side in zip(*pairs, strict=True)]
    fewest = min(filter(None, counts), default=None)
    return {"pretrainings": fewest} | ({"note": OF_ONE} if fewest == 1 else {})


def _lesions_needed(
    pairs: Pairs, patients: np.ndarray, confidence: float, power: float, threshold: float
) -> dict[str, float | None]:
    gains = [right(a.answers, threshold).astype(float) - right(b.answers, threshold) for a, b in pairs]
    gain = np.mean(gains, axis=0)
    found = {"disagreement": float((gain**2).mean()), "design_effect": design_effect(gain, patients)}
    needed = lesions_needed_paired(float(gain.mean()), **found, confidence=confidence, power=power)
    return {**found, "lesions_needed": needed}
