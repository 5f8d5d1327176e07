"""What the trivial classifiers say about the networks, in words."""

from collections.abc import Mapping

import pandas as pd

from miram.evaluate.metrics import MAJORITY, SEES
from miram.evaluate.predictions import of_section
from miram.layout import FINETUNE, TRIVIAL
from miram.predictions import TEST


def against_trivial(
    metrics: pd.DataFrame, differences: pd.DataFrame, headline: tuple[str, str, str], confidence: float
) -> str:
    """Whether the most accurate network of the headline beats the more accurate trivial classifier; empty without one.

    `metrics` and `differences` are the files of `evaluate`.
    """
    own = of_section(metrics[metrics["seed"].isna()], headline, split=TEST, metric="accuracy").dropna(subset="value")
    accuracy = own.set_index("method").sort_values("value", ascending=False, kind="stable")
    plain = accuracy[accuracy.index.isin(TRIVIAL)]
    networks = accuracy[~accuracy.index.isin([*TRIVIAL, MAJORITY])]
    if plain.empty:
        return ""
    name, row = str(plain.index[0]), plain.iloc[0]
    interval = "" if pd.isna(row["low"]) else f" ({confidence:.0%} interval {_range(row, '.1f')})"
    said = (
        f"A classifier that sees of a crop only {SEES[name]}, {name}, gets {100 * row['value']:.1f} % right{interval}."
    )
    pairs = of_section(differences, headline, metric="accuracy", second=name).dropna(subset="difference")
    if networks.empty or not (pairs["first"] == networks.index[0]).any():
        return said
    best = str(networks.index[0])
    pair = pairs[pairs["first"] == best].iloc[0]
    kind = "fine-tuned network" if headline[2] == FINETUNE else "network"
    return f"{said} {_verdict(f'The most accurate {kind}, {best},', pair, confidence)}"


def _verdict(subject: str, pair: pd.Series, confidence: float) -> str:
    if pair["p_holm"] < 1 - confidence:
        outcome = "beats it" if pair["difference"] > 0 else "is beaten by it"
    else:
        outcome = "cannot be told from it"
    interval = "" if pd.isna(pair["low"]) else f", {confidence:.0%} interval {_range(pair, '+.1f')}"
    chance = f"p {pair['p_holm']:.4f} after Holm's correction for the number of methods"
    return f"{subject} {outcome}: {100 * pair['difference']:+.1f} points{interval} ({chance})."


def _range(row: Mapping[str, float] | pd.Series, form: str) -> str:
    return f"{format(100 * row['low'], form)} to {format(100 * row['high'], form)}"
