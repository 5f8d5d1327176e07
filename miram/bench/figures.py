"""Figures of a bench: cost against tokens and against the side of the input; on log scales, which show growth."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from miram.files import atomic_path
from miram.looks import LINES, looks, looks_of_kinds

COSTS = {"seconds": "time (s)", "kept_mib": "kept memory (MiB)", "peak_mib": "peak memory (MiB)"}
NEAR = 1.4  # times the previous tick: labels of closer ticks would overlap


def draw_attention(results: Mapping[str, Any], path: Path) -> None:
    """Seconds, kept and peak memory of one attention layer against the number of tokens."""
    table = pd.DataFrame(results["attention"])
    look = looks_of_kinds(table["kind"].unique())
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (column, label) in zip(figure.subplots(1, 3), COSTS.items(), strict=True):
        for (kind, form), own in table.groupby(["kind", "form"], sort=False):
            drawn = look[str(kind)]
            axes.plot(
                own["tokens"],
                own[column],
                LINES[str(form)],
                color=drawn.colour,
                marker=drawn.marker,
                ms=4,
                label=f"{kind}, {form}",
            )
        _logarithmic(axes, "tokens", label, table["tokens"].unique())
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=8,
        handlelength=3.5,
        frameon=False,
    )
    figure.suptitle(f"One attention layer, batch 1, forward and backward: {_where(results)}", fontsize=9)
    _save(figure, path)


def draw_steps(results: Mapping[str, Any], path: Path) -> None:
    """Seconds and memory per image of a whole step of pre-training against the side of the input."""
    table = pd.DataFrame(results["steps"])
    table["seconds_an_image"] = table["seconds"] / table["images"]
    table["kept_an_image"] = table["kept_mib"] / table["images"]
    table["predicted_an_image"] = table["predicted_kept_mib"] / table["images"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    time, memory = figure.subplots(1, 2)
    look = looks(dict(zip(table["method"], table["kind"], strict=True)))
    for method, own in table.groupby("method", sort=False):
        colour, marker = look[str(method)].colour, look[str(method)].marker
        time.plot(own["side"], own["seconds_an_image"], color=colour, marker=marker, ms=4, label=method)
        memory.plot(own["side"], own["kept_an_image"], color=colour, marker=marker, ms=5, ls="none")
        memory.plot(own["side"], own["predicted_an_image"], ":", color=colour)
    memory.plot([], [], ":", color="grey", label="predicted")
    _logarithmic(time, "side of the input (px)", "time of a step (s per image)", table["side"].unique())
    _logarithmic(memory, "side of the input (px)", "kept memory (MiB per image)", table["side"].unique())
    handles = [axes.get_legend_handles_labels() for axes in (time, memory)]
    lines, labels = (handles[0][i] + handles[1][i] for i in (0, 1))
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=8, handlelength=3.5, frameon=False)
    figure.suptitle(f"A step of pre-training, reconstructing twice the side: {_where(results)}", fontsize=9)
    _save(figure, path)


def _where(results: Mapping[str, Any]) -> str:
    host = results["machine"]
    return f"{host['gpu'] or host['processor']}, {results['precision']}, torch {host['torch']}"


def _logarithmic(axes: Axes, x_label: str, y_label: str, ticks: Iterable[int]) -> None:
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_xticks([tick for tick in ticks if not any(tick / NEAR < other < tick for other in ticks)])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    axes.grid(True, which="major", alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)
