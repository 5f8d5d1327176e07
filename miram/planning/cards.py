"""Named GPUs by their published rates, and the hours that are predicted of them: no training has been measured there.

A step's time per operation is 1 / (SHARE x peak) for the products, plus 1 / (INTENSITY x bandwidth) for all else, which
waits for the memory. Both are fitted to rates that such networks are said to sustain: on an 8-GB consumer card 9
TFLOP/s in float32 and 16 mixed, on an A100 14, 70 in TF32 and 120 mixed, on an H100 40 and 250; within 20 % of each.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from miram.planning.hours import HOUR, Job, hours
from miram.recipe import Encoder

SHARE = 0.6  # of the peak
INTENSITY = 170.0  # operations per byte
SIBLINGS = "ti|super|d|laptop"  # words after a card's name that make it another one
TERA, GIGA, EXA = 1e12, 1e9, 1e18


class Card(NamedTuple):
    """A GPU: GB of memory and GB/s, and its peaks in TFLOP/s, dense, products of half precision summed in float32."""

    memory: float
    bandwidth: float
    float32: float  # without tensor cores
    tf32: float | None
    mixed: float
    dtype: str  # of `mixed`, see `miram.train.device.usable_precision`


# NVIDIA's white papers of Turing (2018), GA102 (2021) and Ada (2023); its data sheets of T4, V100, A100, L4 and H100
CARDS = {
    "rtx-2080-ti": Card(11, 616, 13.4, None, 53.8, "fp16"),
    "rtx-3060-ti": Card(8, 448, 16.2, 16.2, 32.4, "bf16"),
    "rtx-3090": Card(24, 936, 35.6, 35.6, 71.0, "bf16"),
    "rtx-4060-ti": Card(16, 288, 22.1, 22.1, 44.1, "bf16"),
    "rtx-4090": Card(24, 1008, 82.6, 82.6, 165.2, "bf16"),
    "t4": Card(16, 320, 8.1, None, 65.0, "fp16"),
    "v100": Card(16, 900, 15.7, None, 125.0, "fp16"),
    "a100": Card(40, 1555, 19.5, 156.0, 312.0, "bf16"),
    "l4": Card(24, 300, 30.3, 60.0, 121.0, "bf16"),
    "h100": Card(80, 3350, 67.0, 494.0, 989.0, "bf16"),
}


def sustained(card: Card) -> dict[str, float]:
    """The operations per second that a training is expected to sustain, by precision that the card has."""
    peaks = {"float32": card.float32, "tf32": card.tf32, "mixed": card.mixed}
    memory = INTENSITY * card.bandwidth * GIGA
    return {name: 1 / (1 / (SHARE * peak * TERA) + 1 / memory) for name, peak in peaks.items() if peak is not None}


def operations(jobs: Iterable[Job], flops: Mapping[tuple[str, int], float]) -> float:
    """Of all jobs, from those per image of each kind of job and side."""
    return sum(job.images * flops[job.what, job.side] for job in jobs)


def is_named(card: str, gpu: str) -> bool:
    """Whether a GPU, as its driver names it, is that card, and not a sibling such as its Ti."""
    name = re.sub("[^a-z0-9]+", "-", gpu.lower())
    return re.search(rf"(^|-){card}(?!-({SIBLINGS})\b)(-|$)", name) is not None


Measured = tuple[str, str, dict[str, float]]  # a card, the precision of a bench on it, scope -> hours


def measured_hours(
    scopes: Mapping[str, list[Job]], encoder: Encoder, benches: Iterable[Path], cards: Iterable[str]
) -> list[Measured]:
    """One for each bench that `miram bench` made of one of `cards`; a partly measured scope is left out."""
    found = list[Measured]()
    for path in benches:
        plans = {scope: plan for scope, jobs in scopes.items() for plan in hours(jobs, encoder, [path]).values()}
        whole = {scope: float(plan["hours"].sum()) for scope, plan in plans.items() if plan["hours"].notna().all()}
        bench = json.loads(path.read_text(encoding="utf-8")) if whole else {}
        named = [card for card in cards if whole and is_named(card, bench["machine"]["gpu"] or "")]
        found += [(card, bench["precision"], whole) for card in named]
    return found


def as_text(scopes: Mapping[str, float], cards: Mapping[str, Card], measured: list[Measured]) -> str:
    """The hours of each scope, given by its operations, on each card, and by the benches that were run on it."""
    rows = []
    for name, card in cards.items():
        own = {"card": name, "GB": f"{card.memory:g}"}
        for precision, rate in sustained(card).items():
            place = {"precision": card.dtype if precision == "mixed" else precision}
            hours = {f"{scope}, h": f"{flops / rate / HOUR:,.1f}" for scope, flops in scopes.items()}
            rows.append(own | place | {"TFLOP/s": f"{rate / TERA:.0f}"} | hours | {"rate": "predicted"})
        for _, precision, sums in (bench for bench in measured if bench[0] == name):
            hours = {f"{scope}, h": f"{value:,.1f}" for scope, value in sums.items()}
            rows.append(own | {"precision": precision} | hours | {"rate": "measured"})
    sizes = ", ".join(f"{scope} {flops / EXA:.2f}" for scope, flops in scopes.items())
    return (
        f"Operations of matrix products (1e18): {sizes}. Hours of one card, without the input pipeline and the "
        f"starts of jobs.\nPredicted: products at {SHARE:.0%} of the published peak, all else as if memory gave a byte "
        f"for {INTENSITY:g} operations; no training was measured there.\n\n"
        + pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
    )
