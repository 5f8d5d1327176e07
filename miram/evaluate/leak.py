"""What the leak does to accuracy: test lesions whose patient a protocol also trains on, beside the others.

The two groups differ in more than the leak, such as in how hard their lesions are. A protocol under which no patient is
seen shows that part, so what the leak does is the change of their difference from there to the leaky protocol.

Axis letters: N test lesions of all protocols, R draws of patients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from miram.evaluate.markdown import aligned, measured, paragraph
from miram.evaluate.metrics import Draws, Limits
from miram.evaluate.predictions import answers_of
from miram.evaluate.scores import right
from miram.evaluate.statistics import interval, patient_resamples
from miram.predictions import TEST, Predictions

LEAK_COLUMNS = ["method", "protocol", "group", "value", "low", "high", "lesions", "patients"]
SEEN, OTHERS, GAP = "patient seen", "others", "patient seen - others"
TRAINED_ON = ("train", "validation")


def seen_patients(lesions: pd.DataFrame, splits: Mapping[str, pd.DataFrame]) -> dict[str, set[str]]:
    """Protocol -> the patients who have lesions both in its test split and in those that it trains on."""
    found = {}
    for protocol, split in splits.items():
        joined = lesions[["lesion_id", "patient_id"]].merge(split[["lesion_id", "split"]], on="lesion_id")
        tested, trained = (joined["split"].isin(names) for names in ((TEST,), TRAINED_ON))
        found[protocol] = set(joined.loc[tested, "patient_id"]) & set(joined.loc[trained, "patient_id"])
    return found


def leak_table(
    networks: Mapping[tuple[str, str], Sequence[Predictions]],
    seen: Mapping[str, set[str]],
    *,
    draws: Draws,
    limits: Limits,
) -> pd.DataFrame:
    """The accuracy of each (method, protocol) on the lesions of patients seen under any protocol, and on the others.

    The mean over a method's networks, of the lesions that all protocols test; `networks` goes from the first protocol
    to the others. Beside each protocol after the first stands its change from the first, of the same method. Columns:
    LEAK_COLUMNS. Empty where no patient is seen, or a lesion may have several classes.
    """
    patients = set().union(*seen.values())
    tables = [network.table for own in networks.values() for network in own]
    several = any(network.question.separator for own in networks.values() for network in own)
    if not patients or not tables or several:
        return pd.DataFrame(columns=LEAK_COLUMNS)
    common = set.intersection(*(set(table["lesion_id"]) for table in tables))
    shown = tables[0][tables[0]["lesion_id"].isin(common)]
    mask = shown["patient_id"].isin(patients).to_numpy()
    if mask.all() or not mask.any():
        return pd.DataFrame(columns=LEAK_COLUMNS)
    weights = patient_resamples(shown["patient_id"], **draws)
    groups_of = {SEEN: mask, OTHERS: ~mask, GAP: mask | True}
    sizes = {name: (rows.sum(), shown.loc[rows, "patient_id"].nunique()) for name, rows in groups_of.items()}
    found = {
        place: _groups(np.mean([_right(network, common) for network in own], axis=0), mask, weights)
        for place, own in networks.items()
    }
    first = next(protocol for _, protocol in networks)
    rows = []
    for (method, protocol), own in found.items():
        shown_as = {protocol: own}
        if protocol != first and (method, first) in found:
            start = found[method, first]
            shown_as[f"{protocol} - {first}"] = {g: (v - start[g][0], d - start[g][1]) for g, (v, d) in own.items()}
        for name, groups in shown_as.items():
            for group, (value, drawn) in groups.items():
                rows.append([method, name, group, value, *interval(value, drawn, **limits), *sizes[group]])
    return pd.DataFrame(rows, columns=LEAK_COLUMNS)


def leak_text(table: pd.DataFrame, seen: Mapping[str, set[str]], confidence: float) -> list[str]:
    """The table as parts of a Markdown page, one row per method."""
    leaky = " and ".join(protocol for protocol, patients in seen.items() if patients)
    if table.empty:
        return [f"No classifier has finished that shows it (protocol {leaky})." if leaky else "No patient is seen."]
    sizes = {row["group"]: f"{row['lesions']} lesions ({row['patients']} patients)" for row in table.to_dict("records")}
    said = (
        f"Protocol {leaky} trains on patients of {sizes[SEEN]} of the test split too, and on none of the other "
        f"{sizes[OTHERS]}. Accuracy in per cent, the mean over seeds, with its "
        f"{confidence:.0%} interval over patients for these networks, if draws of them change it. The two groups "
        "may differ in difficulty too; the change of their difference shows what seeing the patients adds."
    )
    rows: dict[str, dict[str, str]] = {}
    names = {}
    for own in table.to_dict("records"):
        change = " - " in own["protocol"]
        if change == (own["group"] == GAP):
            name = f"{own['protocol']}: {'change of the difference' if change else own['group']}"
            names[name] = "-"
            rows.setdefault(own["method"], {})[name] = measured(own)
    return [paragraph(said), aligned([{"method": method, **names, **row} for method, row in rows.items()])]


def _right(network: Predictions, lesions: set[str]) -> np.ndarray:
    """Whether each of the lesions, of one class each, is answered right: (N,)."""
    own = replace(network, table=network.table[network.table["lesion_id"].isin(lesions)])
    return right(answers_of(own), math.nan)  # the threshold is of lesions that may have several classes


def _groups(shares: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Accuracy of both groups and their difference, each with its values in the draws, (R,); NaN without a lesion.

    `shares` of the networks answer a lesion right, (N,).
    """
    found = {}
    for name, rows in ((SEEN, mask), (OTHERS, ~mask)):
        counts = weights[rows].sum(axis=0)
        drawn = np.divide(shares[rows] @ weights[rows], counts, out=np.full(len(counts), math.nan), where=counts > 0)
        found[name] = float(shares[rows].mean()), drawn
    return found | {GAP: (found[SEEN][0] - found[OTHERS][0], found[SEEN][1] - found[OTHERS][1])}
