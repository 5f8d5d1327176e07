"""The picture of one prediction."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from miram.looks import ACCENT
from miram.report.figures import STYLE, save
from miram.report.pictures import overlay


def draw_prediction(
    view: np.ndarray, relevance: np.ndarray, probabilities: Mapping[str, float], path: Path, *, title: str, warning: str
) -> None:
    """Draw what the network saw, what its answer rests on, and its probabilities, as PNG.

    view (side, side) uint8, relevance (g, g), probabilities in [0, 1].
    """
    with matplotlib.style.context([*STYLE, {"text.parse_math": False}]):  # a class or a file may be named $x$
        figure = Figure(figsize=(10, 4), layout="constrained")
        seen, basis, bars = figure.subplots(1, 3)
        seen.imshow(view, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        seen.set_title(f"what the network sees, {len(view)} px")
        basis.imshow(overlay(view, relevance), interpolation="nearest")
        basis.set_title("orange speaks for the answer,\nblue against it")
        for axes in (seen, basis):
            axes.set_axis_off()
        names, values = list(probabilities), [100 * value for value in probabilities.values()]
        bars.barh(names, values, color=ACCENT)
        bars.set(xlim=(0, 100), xlabel="probability, %")
        bars.invert_yaxis()
        figure.suptitle(title)
        figure.supxlabel(warning, fontsize=9, weight="bold")
        save(figure, path)
