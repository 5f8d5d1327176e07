"""How the training pictures of a network were read and cut; its file says so, and later pictures are treated alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from miram.data.crop_rules import WindowRule
from miram.data.geometry import Box, cut_window, window_around
from miram.data.pictures.picture import Range
from miram.data.pictures.survey import Reading
from miram.errors import MiramError
from miram.models.export import Network

WHOLE = "whole"  # a further `shape`: pictures were crops of lesions already, which no window cuts


@dataclass(frozen=True, kw_only=True)
class Seen(WindowRule):
    """The rule and the ranges of grey levels, see `Reading`, and how lesions were cut.

    `films`: lesions were cut from films; otherwise a picture without a box was cut whole. With the `shape` WHOLE, of
    the archive's own crops, the rest of the rule says nothing.
    """

    levels: str
    ranges: Mapping[str, Range] | None
    films: bool

    @classmethod
    def of(cls, network: Network, path: Path) -> "Seen":
        """How the pictures of the network in the file `path` were read. Raises MiramError if the file does not say."""
        if network.seen is None:
            raise MiramError(
                f"{path} does not say how its training read pictures.",
                "Run that fine-tuning again.",
            )
        told = dict(network.seen)
        if told["ranges"] is not None:
            told["ranges"] = {kind: Range(*levels) for kind, levels in told["ranges"].items()}
        return cls(**told)

    def told(self) -> dict[str, Any]:
        """The same as plain values, for the network's file."""
        return asdict(self)

    @property
    def reading(self) -> Reading:
        """How a picture is read."""
        return Reading(self.levels, self.ranges)

    def cut(self, pixels: np.ndarray, box: Box | None, path: Path) -> np.ndarray:
        """The crop of a lesion in a box of a picture (R, C), or of the whole picture, zero outside it.

        Raises MiramError for a film without a box that is not square, and as `require_boxes`.
        """
        rows, columns = pixels.shape
        if box is None and self.shape == WHOLE:
            return pixels
        if box is None and self.films:
            if rows != columns:
                raise MiramError(
                    f"{path} is {columns} px wide and {rows} px high: no crop of a lesion, which would be square.",
                    "Say where the lesion is, in px.",
                )
            return pixels
        self.require_boxes(path)
        whole = Box(0, 0, rows, columns)
        window = window_around(box or whole, shape=self.shape, margin=self.margin, side_min=self.side_min)
        return cut_window(pixels, window)

    def require_boxes(self, path: Path) -> None:
        """Raise MiramError naming the picture if a box in it cannot be cut as the training pictures were."""
        if self.shape == WHOLE:
            raise MiramError(
                f"{path}: no box can be cut as in training, which saw the archive's own crops, each with grey levels "
                "of its own.",
                "Give crops as pictures: the lesion with 20 px around it, stretched so that its maximum is white.",
            )
