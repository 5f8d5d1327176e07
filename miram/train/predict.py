"""One picture, one answer: a fine-tuned network on a crop, or on a region of a film.

Shapes: pixels (R, C), C classes, g x g patches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from miram.data.geometry import Box, cut_window, window_around
from miram.data.pictures.survey import Reading
from miram.errors import MiramError
from miram.models.export import load_classifier
from miram.train.augment import resize, to_images
from miram.train.device import prepare_torch, usable_accelerator
from miram.train.explain import relevance
from miram.train.finetune import probabilities


class Prediction(NamedTuple):
    """What was looked at and what was answered."""

    view: np.ndarray  # (side, side) uint8, as the network saw it
    relevance: np.ndarray  # (g, g) float32, see `explain.relevance`
    probabilities: dict[str, float]  # class -> probability, in [0, 1]
    note: str  # why the grey levels of the picture should be looked at; mostly empty


def predict(
    model_file: Path,
    picture: Path,
    box: tuple[int, int, int] | None,
    *,
    reading: Reading,
    accelerator: str,
    threads: int,
) -> Prediction:
    """The answer of the network in `model_file` about `picture`, a file that `miram.data.pictures` reads.

    `reading` says how the pictures were read that it was trained on. `box` (x0, y0, side), in px, is the square around
    the lesion; without one the whole picture is the lesion's crop, see `cut`. Raises MiramError when a file cannot be
    read, the box misses the picture, or a network of films gets neither a box nor a square.
    """
    device = torch.device("cuda" if usable_accelerator(accelerator) == "cuda" else "cpu")
    prepare_torch(device, threads)
    crop, note = look(picture, box, reading)
    model, classes, multi_label = load_classifier(model_file)
    model.to(device)
    view = resize(crop, model.encoder.side)
    with torch.no_grad():
        logits = model(to_images(torch.from_numpy(view[None].copy()).to(device), model.encoder.channels)).cpu()
    answer = dict(zip(classes, probabilities(logits, multi_label)[0].tolist(), strict=True))
    return Prediction(view, relevance(model, view, multi_label), answer, note)


def look(picture: Path, box: tuple[int, int, int] | None, reading: Reading) -> tuple[np.ndarray, str]:
    """What training would have cut from a picture, (R, C) uint8, and why its grey levels should be looked at, if so."""
    pixels, note = reading.read(picture)
    return cut((pixels >> 8).astype(np.uint8), box, picture, reading.window), note


def cut(
    pixels: np.ndarray, box: tuple[int, int, int] | None, path: Path, window: Mapping[str, Any] | None
) -> np.ndarray:
    """The square (side, side) of a box (x0, y0, side), zero outside the picture; without one all of it.

    That is the window around it that training cut, with the keywords `window` of `window_around`; where these are None,
    as crops came from films, the picture itself, which must be square.
    """
    rows, columns = pixels.shape
    if box is None and window is not None:
        return cut_window(pixels, window_around(Box(0, 0, rows, columns), **window))
    if box is None:
        if rows != columns:
            raise MiramError(
                f"{path} is {columns} px wide and {rows} px high: no crop of a lesion, which would be square.",
                "Say where the lesion is: --box X0 Y0 SIDE, the left and upper edge and the side of a square, in px.",
            )
        return pixels
    x0, y0, side = box
    if side < 1 or x0 >= columns or y0 >= rows or x0 + side <= 0 or y0 + side <= 0:
        raise MiramError(
            f"The box {x0} {y0} {side} holds no pixel of {path}, which is {columns} px wide and {rows} px high.",
            "Give --box X0 Y0 SIDE: the left and upper edge and the side of a square around the lesion, in px.",
        )
    return cut_window(pixels, Box(y0, x0, y0 + side, x0 + side))
