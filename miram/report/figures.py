"""Figures of the comparison, from files alone; the same input gives the same PNG bytes.

Axis letters: N images, H and W pixels.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from miram.errors import MiramError
from miram.evaluate.markdown import paragraph, subject
from miram.evaluate.metrics import MAJORITY
from miram.evaluate.pretrainings import extent
from miram.files import atomic_path
from miram.layout import FINETUNE, TRIVIAL
from miram.looks import GREY, PALE, Look
from miram.report.about import MAIN, METRICS

STYLE: list[str | dict[str, Any]] = [
    "default",
    {
        "font.family": "DejaVu Sans",
        "figure.titlesize": 11,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    },
]
DOTS_PER_INCH = 150
TITLE_LINE = 0.18  # inches
# keywords of a line
SEED_STYLE: dict[str, Any] = {"marker": "o", "ms": 4, "alpha": 0.6, "mew": 0}
REFERENCE_STYLES: dict[str, dict[str, Any]] = {  # of what needs no model
    MAJORITY: {"color": GREY, "ls": "--"},
    **{name: {"color": GREY, "ls": line} for name, line in zip(TRIVIAL, (":", "-."), strict=True)},
}
PAPER_STYLE: dict[str, Any] = {"ls": "none", "marker": "D", "ms": 10, "mfc": "none", "mec": GREY, "mew": 1.4}
RECONSTRUCTION_COLUMNS = {
    "input": "input",
    "masked": "what the encoder sees",
    "lowres": "low-resolution\nprediction",
    "target_highres": "high-resolution\ntarget",
    "highres": "high-resolution\nprediction",
}
RECONSTRUCTION_ROWS = 3
RECONSTRUCTION_CAPTION = (
    "Low resolution: patches that the encoder saw are copied.\n"
    "Predicted patches are given mean and variance of the true ones: they show structure, not brightness."
)


def draw_comparison(
    table: pd.DataFrame, runs: pd.DataFrame, path: Path, *, look: Mapping[str, Look], preset: str, confidence: float
) -> None:
    """Draw test accuracy and macro AUC of each method: every seed, mean and interval, and what needs no model.

    `table` is the comparison table, `runs` the rows of metrics.csv for the test split; drawn are the first task, a row
    of panels a protocol, and fine-tuning, or the first mode where there is none. `look` is that of each method. The
    paper's accuracy is drawn for preset paper only: next to phantom data it would invite a comparison without meaning.
    """
    table = table[table["task"] == table["task"].iloc[0]]
    mode = FINETUNE if FINETUNE in set(table["mode"]) else table["mode"].iloc[0]
    parts = {str(protocol): part for protocol, part in table[table["mode"] == mode].groupby("protocol", sort=False)}
    rows = max((~part["method"].isin(REFERENCE_STYLES)).sum() for part in parts.values())
    title = f"Comparison of methods, task {table['task'].iloc[0]}\n{subject(preset)}\n{paragraph(extent(runs))}"
    height = 1.8 + TITLE_LINE * (title.count("\n") - 2) + (0.3 + 0.45 * rows) * len(parts)
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(10, height), layout="constrained")
        grid = figure.subplots(len(parts), len(MAIN), sharex="col", sharey=True, squeeze=False)
        for panels, (protocol, part) in zip(grid, parts.items(), strict=True):
            same = (runs["task"] == part["task"].iloc[0]) & (runs["mode"] == mode) & (runs["protocol"] == protocol)
            _draw_protocol(panels, part, runs[same], look, preset)
            panels[0].set_title(f"protocol {protocol}", loc="left")
        for axes, metric in zip(grid[-1], MAIN, strict=True):
            axes.set_xlabel(f"{METRICS[metric][0]} on the test split, %")
        figure.legend(
            handles=_comparison_keys(set(table["method"]), preset, confidence),
            loc="outside lower center",
            ncols=4,
            frameon=False,
        )
        figure.suptitle(title)
        save(figure, path)


def _draw_protocol(
    panels: np.ndarray, part: pd.DataFrame, runs: pd.DataFrame, look: Mapping[str, Look], preset: str
) -> None:
    """Draw the panels of one protocol, accuracy first."""
    is_reference = part["method"].isin(REFERENCE_STYLES)
    methods = part[~is_reference].reset_index(drop=True)
    for axes, metric in zip(panels, MAIN, strict=True):
        _draw_methods(axes, methods, runs[(runs["metric"] == metric) & runs["seed"].notna()], metric, look)
        for name, value in zip(part["method"][is_reference], part[f"{metric}_percent_mean"][is_reference], strict=True):
            axes.axvline(value, **REFERENCE_STYLES[name])
    if preset == "paper":
        paper = methods["paper_accuracy_percent"]
        panels[0].plot(paper, methods.index, **PAPER_STYLE)
    panels[0].set_yticks(methods.index, methods["method"])
    panels[0].set_ylim(len(methods) - 0.4, -0.6)


def _comparison_keys(drawn: Collection[str], preset: str, confidence: float) -> list[Line2D]:
    """What the marks of the comparison mean, in grey, as the colours are the methods'."""
    keys = [
        Line2D([], [], color=GREY, marker="o", ms=7, label=f"mean, {confidence:.0%} interval"),
        Line2D([], [], label="one seed", ls="none", color=GREY, **SEED_STYLE),
        *(Line2D([], [], label=name, **style) for name, style in REFERENCE_STYLES.items() if name in drawn),
    ]
    return [*keys, *([Line2D([], [], label="the paper's accuracy", **PAPER_STYLE)] if preset == "paper" else [])]


def _draw_methods(axes: Axes, methods: pd.DataFrame, runs: pd.DataFrame, metric: str, look: Mapping[str, Look]) -> None:
    """One row a method: mean and interval, below it the seeds in their order from top to bottom; or a gap, named."""
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    mean, low, high = (methods[f"{metric}_percent_{name}"] for name in ("mean", "low", "high"))
    for row, method in zip(methods.index.tolist(), methods["method"], strict=True):
        own = look[method]
        error = [[mean[row] - low[row]], [high[row] - mean[row]]]
        axes.errorbar(mean[row], row, xerr=error, fmt=own.marker, ms=7, capsize=4, color=own.colour)
        values = 100 * runs.loc[runs["method"] == method, "value"]
        heights = row + np.linspace(0.18, 0.38, len(values))
        axes.plot(values, heights, ls="none", color=own.colour, **SEED_STYLE)
    for row in methods.index[mean.isna()]:
        axes.text(0.5, row, "no value", transform=axes.get_yaxis_transform(), ha="center", va="center", style="italic")


def draw_reconstructions(reconstructions_npz: Path, path: Path, *, method: str, preset: str) -> None:
    """Draw some crops as the pre-trained model sees and predicts them, at high resolution where the model has it.

    The arrays are uint8: input, masked, lowres (N, H, W) and, with two scales, target_highres, highres (N, 2H, 2W).
    Raises MiramError when the file cannot be read or lacks an array of the first three.
    """
    remedy = f"Delete it and run the pre-training of {method} again."
    try:
        with np.load(reconstructions_npz) as arrays:
            images = {name: arrays[name] for name in RECONSTRUCTION_COLUMNS if name in arrays}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise MiramError(f"{reconstructions_npz} cannot be read: {error}", remedy) from error
    missing = [name for name in ("input", "masked", "lowres") if name not in images]
    if missing:
        raise MiramError(f"{reconstructions_npz} lacks {', '.join(missing)}.", remedy)
    rows = min(RECONSTRUCTION_ROWS, len(images["input"]))
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(2.1 * len(images), 1.2 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, len(images), squeeze=False)
        for column, (name, stack) in zip(grid.T, images.items(), strict=True):
            height, width = stack.shape[1:]
            column[0].set_title(f"{RECONSTRUCTION_COLUMNS[name]}\n{height} by {width} px")
            for axes, image in zip(column, stack[:rows], strict=True):
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_axis_off()
        figure.suptitle(f"Masked reconstruction by {method}\n{subject(preset)}")
        figure.supxlabel(RECONSTRUCTION_CAPTION, fontsize=8)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without the line that names matplotlib's version."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
