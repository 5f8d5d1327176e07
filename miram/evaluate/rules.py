"""The rules that test claims: each reads our measurements and returns a verdict with its evidence.

MEANINGS explains the verdicts of each rule.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from miram.evaluate.predictions import NOTE_SEPARATOR
from miram.evaluate.pretrainings import OF_ONE, sources
from miram.evaluate.statistics import NO_INTERVAL, another_run_margin, lesions_needed_paired
from miram.kinds import FULL, OURS

REPRODUCED, NOT_REPRODUCED, OPEN = "reproduced", "not reproduced", "cannot be told"
RUN_BENCH = "a bench of the attention layers: miram --preset paper bench"
MEANINGS = {
    "superiority": (
        "decided by corrected_low and corrected_high of differences.csv: the interval over patients and trainings, at "
        "the confidence that Holm's correction asks for. It is for the methods where each has several pre-trainings; "
        f"where one has a single one the verdict is {OF_ONE} and claims nothing about the method. Reproduced: it is "
        "above 0 against each of the others. Not reproduced: against one of them it is below the claimed gain, "
        "and not above 0: so large a gain is excluded, which does not say that the method is worse. Cannot be told: "
        "the interval contains both 0 and the claimed gain, or no interval exists (fewer than two seeds, or identical "
        "differences in all seeds)."
    ),
    "value": (
        "the published figure is one run on the official test lesions, so on them only training varies. "
        f"Decided by Student's interval for one more run of ours; with a single pre-training it is {OF_ONE}, and the "
        "run is another fine-tuning. Of two pre-trainings it is very wide, unless all runs agree, as two say little of "
        "a third. Reproduced: all of it is within the claim's "
        "margin of the published value. Not reproduced: none of it is. Cannot be told: only part of it is, the test "
        "set differs, or no two seeds differ."
    ),
    "memory_growth": (
        "decided by what one attention layer of ours keeps for the backward pass, by the exponent that the bench fits "
        "to it from the tokens on where constant parts weigh little. It is counted, not sampled, and has no interval. "
        "Reproduced: its growth "
        "with tokens has at most the exponent of the claim, in all bench files. Not reproduced: in one of them it "
        "grows faster. Cannot be told: nothing is measured."
    ),
    "memory_less": (
        "decided by what one attention layer of ours keeps, at the claim's number of tokens, compared with full "
        "attention in the claim's form: naive, which keeps the matrix of all token pairs, or fused, which never does. "
        "Reproduced: less, in all bench files. Not reproduced: as much or more, in one of them. Cannot be told: not "
        "measured at that number."
    ),
    "unmeasured": "always: cannot be told.",
}


class Measurements(NamedTuple):
    """The input of the rules: rows of metrics.csv and differences.csv for fine-tuning, test split and one protocol."""

    metrics: pd.DataFrame
    differences: pd.DataFrame
    layers: pd.DataFrame  # of the bench: LAYER_COLUMNS
    growth: pd.DataFrame  # of the bench: GROWTH_COLUMNS
    published: Mapping[tuple[str, str, str], float]  # (task, metric, method) -> %
    confidence: float
    power: float


class Finding(NamedTuple):
    """The result of a rule; `settle` says what would settle an undecided claim."""

    verdict: str
    evidence: str
    settle: str = ""
    differs_in: str = ""  # what else than the method, where two rows were compared


def superiority(
    found: Measurements, *, task: str, metric: str, method: str, over: Sequence[str], gain_points: float | None = None
) -> Finding:
    """`method` is better than each of `over`, by `gain_points`, or if that is None by the published gain."""
    rows = found.differences
    rows = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["first"] == method)]
    parts = []
    for other in over:
        own = rows[(rows["second"] == other) & rows["difference"].notna()]
        if own.empty:
            parts.append(Finding(OPEN, f"{method} and {other}: not compared", f"runs of all on task {task}"))
            continue
        row, gain = own.iloc[0], gain_points
        if gain is None:
            gain = found.published[task, metric, method] - found.published[task, metric, other]
        if math.isnan(row["low"]):
            parts.append(Finding(OPEN, _difference(row, metric), "more test patients", _unlike(row)))
            continue
        low, high = 100 * row["corrected_low"], 100 * row["corrected_high"]
        verdict = REPRODUCED if low > 0 else NOT_REPRODUCED if high < gain else OPEN
        parts.append(Finding(verdict, _difference(row, metric), _what_it_takes(row, metric, gain, found), _unlike(row)))
    return _all_of(parts)


def value(found: Measurements, *, task: str, metric: str, method: str, margin_points: float, lesions: int) -> Finding:
    """A run of `method` has the published value, within `margin_points`, on the test set of that many `lesions`."""
    published = found.published[task, metric, method]
    rows = found.metrics
    rows = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["method"] == method)]
    tuned = rows[rows["seed"].notna() & rows["value"].notna()]
    runs, pretrainings = 100 * tuned["value"], tuned["pretrain_seed"].nunique()
    if runs.nunique() < 2:
        evidence = f"{method}: {', '.join(f'{run:.1f} %' for run in runs) or 'no run'}"
        return Finding(OPEN, evidence, f"at least two seeds of {method} on task {task}, not all alike")
    mean, sd, tested = runs.mean(), runs.std(), int(rows["lesions"].max())
    independent, reach, spread = len(runs), f"; {OF_ONE}" if pretrainings == 1 else "", f"sd {sd:.1f}"
    if pretrainings > 1:
        by_source = sources(runs.tolist(), tuned["pretrain_seed"].tolist())
        sd, independent = math.hypot(*np.nan_to_num(by_source)), pretrainings
        reach, spread = f"; {pretrainings} pre-trainings", f"{spread}, {sd:.1f} between runs on other pre-trainings"
    half = another_run_margin(sd, independent, found.confidence)
    least, most = max(mean - half, 0), min(mean + half, 100)
    over_seeds = rows[rows["seed"].isna()].iloc[0]
    low, high = 100 * over_seeds["low"], 100 * over_seeds["high"]
    usual = _no_interval(over_seeds) if math.isnan(low) else f"{_for_whom(pretrainings)} {low:.1f} to {high:.1f}"
    evidence = (
        f"{mean:.1f} %, {usual}; {len(runs)} seeds from {runs.min():.1f} to {runs.max():.1f} %, {spread}; "
        f"one more run {least:.1f} to {most:.1f} %; "
        f"{tested} lesions{reach}"
    )
    if tested != lesions:
        return Finding(OPEN, evidence, f"the {lesions} lesions of the official test set")
    if least >= published - margin_points and most <= published + margin_points:
        return Finding(REPRODUCED, evidence)
    if least > published + margin_points or most < published - margin_points:
        return Finding(NOT_REPRODUCED, evidence)
    limit = ndtri((1 + found.confidence) / 2) * sd
    return Finding(
        OPEN,
        evidence,
        f"more seeds, if one more run came to lie within or outside {published:.1f} ± {margin_points} %; its interval "
        f"can shrink from ± {half:.1f} to ± {limit:.1f} points at this sd",
    )


def memory_growth(found: Measurements, *, kinds: Sequence[str], exponent: float) -> Finding:
    """The kept memory of `kinds` of attention grows at most with tokens to the power of `exponent`."""
    parts = []
    grown = found.growth[(found.growth["form"] == OURS) & found.growth["kind"].isin(kinds)]
    for row in grown.to_dict("records"):
        evidence = (
            f"{row['kind']}: kept memory grows with tokens to the power of {row['kept']:.2f}, from "
            f"{row['from_tokens']} to {row['to_tokens']} tokens ({row['file']})"
        )
        parts.append(Finding(REPRODUCED if row["kept"] <= exponent else NOT_REPRODUCED, evidence))
    return _all_of(parts) if parts else Finding(OPEN, "nothing is measured", RUN_BENCH)


def memory_less(found: Measurements, *, kinds: Sequence[str], form: str, tokens: int) -> Finding:
    """Each of `kinds` of attention keeps less memory than full attention of that `form`, at that number of `tokens`."""
    here = found.layers[found.layers["tokens"] == tokens]
    parts = []
    for file, own in here.groupby("file"):
        kept = own.set_index(["kind", "form"])["kept_mib"]
        for kind in (kind for kind in kinds if {(kind, OURS), (FULL, form)} <= set(kept.index)):
            ours, full = kept[kind, OURS], kept[FULL, form]
            evidence = f"{kind}: {ours:.1f} MiB, {form} full attention: {full:.1f} MiB at {tokens} tokens ({file})"
            parts.append(Finding(REPRODUCED if ours < full else NOT_REPRODUCED, evidence))
    return _all_of(parts) if parts else Finding(OPEN, f"not measured at {tokens} tokens", RUN_BENCH)


def unmeasured(found: Measurements, *, needs: str) -> Finding:
    """Not measured here; `needs` says what would measure it."""
    return Finding(OPEN, "nothing here measures it", needs)


RULES = {rule.__name__: rule for rule in (superiority, value, memory_growth, memory_less, unmeasured)}
OF_RUNS = ("superiority", "value")  # rules that are decided for each protocol by itself


def _all_of(parts: Sequence[Finding]) -> Finding:
    """Reproduced where all parts are, not reproduced where one is not; what would settle it, of the open ones."""
    verdicts = [part.verdict for part in parts]
    verdict = NOT_REPRODUCED if NOT_REPRODUCED in verdicts else OPEN if OPEN in verdicts else REPRODUCED
    settle = [part.settle for part in parts if part.verdict == OPEN] if verdict == OPEN else []
    unlike = "; ".join(filter(None, (part.differs_in for part in parts)))
    return Finding(verdict, "; ".join(part.evidence for part in parts), "; ".join(dict.fromkeys(settle)), unlike)


def _no_interval(row: pd.Series) -> str:
    """Why a row has no interval, by its note."""
    notes = str(row["note"]).split(NOTE_SEPARATOR)
    return next((note for note in notes if note.startswith(NO_INTERVAL)), NO_INTERVAL)


def _difference(row: pd.Series, metric: str) -> str:
    points = {name: 100 * row[name] for name in ("difference", "low", "high", "corrected_low", "corrected_high")}
    methods = "no spread over seeds, so that nothing is known of another training"
    if not math.isnan(row["corrected_low"]):
        reach = f"for other fine-tunings {OF_ONE}" if row["pretrainings"] == 1 else "for the methods"
        reach = f"corrected, which decides, {reach}"
        methods = f"{reach} {points['corrected_low']:+.1f} to {points['corrected_high']:+.1f}"
    if math.isnan(row["low"]):
        return (
            f"{metric} of {row['first']} less {row['second']}: {points['difference']:+.1f} points; {_no_interval(row)}"
        )
    return (
        f"{metric} of {row['first']} less {row['second']}: {points['difference']:+.1f} points, "
        f"{_for_whom(row['pretrainings'])} {points['low']:+.1f} to {points['high']:+.1f} "
        f"(p {row['p_value']:.4f}, Holm {row['p_holm']:.4f}), {methods}; "
        f"seeds {row['seeds']:.0f}, lesions {row['lesions']:.0f}, patients {row['patients']:.0f}"
    )


def _unlike(row: pd.Series) -> str:
    """What else the two methods of a row differ in; empty where nothing."""
    told = row["differs_in"]
    return "" if pd.isna(told) or not told else f"{row['first']} and {row['second']} differ in {told} as well"


def _for_whom(pretrainings: float) -> str:
    """What an interval without correction is for, by the number of pre-trainings behind it."""
    return "for other patients and pre-trainings" if pretrainings > 1 else "for other patients and these networks"


def _what_it_takes(row: pd.Series, metric: str, gain: float, found: Measurements) -> str:
    """The numbers of lesions and seeds with which a true difference as large as claimed would be found."""
    quantiles = ndtri((1 + found.confidence) / 2) + ndtri(found.power)
    if metric == "accuracy":
        disagreement, effect = max(row["disagreement"], gain / 100), row["design_effect"]  # a gain is disagreement
        lesions = lesions_needed_paired(
            gain / 100, disagreement, confidence=found.confidence, power=found.power, design_effect=effect
        )
    else:  # by the standard error, which shrinks with the root of the lesions
        error = (row["high"] - row["low"]) / 2 / ndtri((1 + found.confidence) / 2)
        lesions = math.ceil(row["lesions"] * (quantiles * 100 * error / gain) ** 2)
    kind, count = ("pre-trainings", row["pretrainings"]) if row["pretrainings"] > 1 else ("seeds", row["seeds"])
    seeds = f"more {kind}"
    if row["sd"] > 0:
        seeds = f"{max(2, math.ceil((quantiles * 100 * row['sd'] / gain) ** 2))} {kind}"
    return (
        f"to find {gain:.1f} points over {row['second']} with a power of {found.power:.0%}, about {lesions} lesions if "
        f"only patients varied (there are {row['lesions']:.0f}), and {seeds} if only training did (there are "
        f"{count:.0f})"
    )
