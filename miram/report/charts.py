"""The charts of the report: each function draws one small panel, about as wide as a phone, for `svg.inline_svg`."""

from collections.abc import Mapping, Sequence

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from miram.looks import ACCENT, LINES, Look, looks_of_classes, looks_of_kinds
from miram.report.svg import INK, STYLE

WIDTH, HEIGHT = 3.7, 3.0  # inches of a panel
FOREST_WIDTH = 5.0
WITH_LABEL, WITH_TICKS, WITH_TITLE, EDGE = 0.52, 0.42, 0.3, 0.1  # inches beside the axes, with what stands there
SMALL = 2.1  # inches, side of a panel that stands in a row of many
ROW = 0.34  # inches, height of a row of the forest plot
TICKS = (200, 800, 3200, 12_800)  # tokens


def _panel(title: str, x: str, y: str, width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure of a size in inches with axes between fixed margins: matplotlib's own layout takes most of its time."""
    left = WITH_LABEL if y else WITH_TICKS
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(width, height))
        box = (left, WITH_LABEL, width - left - EDGE, height - WITH_LABEL - WITH_TITLE)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        axes.set_title(title, loc="left", parse_math=False)  # a class may be named $x$
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(True)
    return figure, axes


def _line(axes: Axes, x: ArrayLike, y: ArrayLike, look: Look) -> None:
    axes.plot(x, y, color=look.colour, ls=(0, look.dashes) if look.dashes else "-")


def curves(
    title: str,
    x: str,
    y: str,
    grid: np.ndarray,
    values: Mapping[str, np.ndarray],
    look: Mapping[str, Look],
    *,
    diagonal: bool,
) -> Figure:
    """A curve a method on the unit square; the diagonal is what guessing gives."""
    figure, axes = _panel(title, x, y)
    with matplotlib.style.context(STYLE):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, lw=0.6, alpha=0.5)
        for method, line in values.items():
            _line(axes, grid, line, look[method])
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
    return figure


def forest(differences: pd.DataFrame, title: str, told: pd.Series) -> Figure:
    """A row a pair: the difference with its interval, filled where the two are `told` apart.

    Columns of `differences`: first, second, difference, low, high (percentage points).
    """
    rows = differences.assign(told=told).reset_index(drop=True)
    figure, axes = _panel(title, "difference, percentage points", "", FOREST_WIDTH, 0.8 + ROW * len(rows))
    with matplotlib.style.context(STYLE):
        axes.axvline(0, color=INK, lw=0.8, alpha=0.4)
        for i, row in enumerate(rows.to_dict("records")):
            axes.plot([row["low"], row["high"]], [i + 0.2] * 2, color=ACCENT, lw=1.8)
            axes.plot(
                row["difference"],
                i + 0.2,
                "o",
                ms=6,
                color=ACCENT,
                mfc=ACCENT if row["told"] else "white",
                mew=1.4,
            )
            text = f"{row['first']} less {row['second']}: {row['difference']:+.1f}"
            axes.text(0.0, i - 0.22, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
        axes.set_ylim(len(rows) - 0.4, -0.7)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    return figure


def reliability(title: str, means: pd.DataFrame, look: Look) -> Figure:
    """Share of right answers against confidence of one method; `means`: columns right and confidence."""
    figure, axes = _panel(title, "confidence", "share right", SMALL, SMALL)
    with matplotlib.style.context(STYLE):
        axes.plot([0, 1], [0, 1], color=INK, lw=0.6, alpha=0.5)
        axes.plot(means["confidence"], means["right"], color=look.colour, marker=look.marker, ms=4.5)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    return figure


def learning(lines: Mapping[str, pd.Series], title: str, look: Mapping[str, Look]) -> Figure:
    """A line a method over epochs; the index of each series is the epoch."""
    figure, axes = _panel(title, "epoch", "")
    with matplotlib.style.context(STYLE):
        for method, line in lines.items():
            _line(axes, line.index, line, look[method])
    return figure


def loss(title: str, values: pd.Series, look: Look) -> Figure:
    """The loss of one pre-training over its epochs; objectives differ, so each has its own axis."""
    figure, axes = _panel(title, "epoch", "loss", SMALL, SMALL)
    with matplotlib.style.context(STYLE):
        axes.plot(values.index, values, color=look.colour)
    return figure


def cost(x: str, points: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """What a method costs against what it reaches; columns method, cost, value, low, high (per cent)."""
    figure, axes = _panel("", x, "test accuracy, %")
    with matplotlib.style.context(STYLE):
        for row in points.to_dict("records"):
            style = look[row["method"]]
            axes.plot([row["cost"]] * 2, [row["low"], row["high"]], color=style.colour, lw=1.0)
            axes.plot(row["cost"], row["value"], style.marker, color=style.colour, ms=7)
        axes.set_xlim(0, 1.08 * points["cost"].max())
    return figure


def growth(y: str, layers: pd.DataFrame, column: str) -> Figure:
    """What one layer of each kind and form of attention costs against tokens; both axes are logarithmic."""
    figure, axes = _panel("", "tokens", y)
    with matplotlib.style.context(STYLE):
        draw_growth(axes, layers, column)
    return figure


def draw_growth(axes: Axes, layers: pd.DataFrame, column: str) -> None:
    """A line for each kind and form; columns of `layers`: kind, form, tokens and the one that is drawn."""
    look = looks_of_kinds(layers["kind"].unique())
    for (kind, form), own in layers.groupby(["kind", "form"], sort=False):
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
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(TICKS, [f"{tokens:,}" for tokens in TICKS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(True, alpha=0.3)


def embedding(title: str, points: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Test lesions by the first two principal components x and y of their frozen features, coloured by `label`.

    `share` of the features' variance lies in the two.
    """
    figure, axes = _panel(title, f"{100 * points['share'].iloc[0]:.0f} % of the variance", "", SMALL, SMALL)
    with matplotlib.style.context(STYLE):
        for name, look in looks_of_classes(classes).items():
            part = points[points["label"] == name]
            axes.plot(part["x"], part["y"], look.marker, ms=3, color=look.colour, alpha=0.8, mew=0)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
    return figure
