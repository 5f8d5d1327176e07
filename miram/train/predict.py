"""Predictions of a fine-tuned network for a crop, a region of a film, or every picture of a folder.

Shapes: pixels (R, C), C classes, g x g patches.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from miram.data.cutting import reduced
from miram.data.geometry import Box, cut_window
from miram.errors import MiramError
from miram.files import files_below, write_csv
from miram.kinds import AskedPrecision
from miram.models.export import load_classifier
from miram.predictions import PROBABILITY
from miram.progress import track
from miram.train.answers import evaluated, probabilities
from miram.train.augment import resize
from miram.train.classifiers import Split
from miram.train.device import one_device
from miram.train.explain import relevance
from miram.train.seen import Seen

Square = tuple[int, int, int]  # x0, y0, side, in px


class Prediction(NamedTuple):
    """The input of the network and its prediction."""

    view: np.ndarray  # (side, side) uint8, as the network saw it
    relevance: np.ndarray  # (g, g) float32, see `explain.relevance`
    probabilities: dict[str, float]  # class -> probability, in [0, 1]
    note: str  # why the grey levels of the picture should be checked; mostly empty


def predict(
    model_file: Path, picture: Path, square: Square | None, *, accelerator: str, precision: AskedPrecision, threads: int
) -> Prediction:
    """The prediction of the network in `model_file` for `picture`, a file that `miram.data.pictures` reads.

    It is read like those that the network was trained on. The crop is `square`, around the lesion, or else the whole
    picture, see `Seen.cut`. Raises MiramError if a file cannot be read, the square misses the picture, a network of
    films gets neither a square nor a square picture, or one of the archive's own crops gets a square.
    """
    fabric = one_device(accelerator, precision, threads)
    network = load_classifier(model_file)
    crop, note = look(picture, square, Seen.of(network, model_file))
    view = resize(crop, network.model.encoder.side)
    model = fabric.setup_module(network.model)
    logits = evaluated(model, _unlabelled([picture.name], [view]))
    answer = dict(zip(network.classes, probabilities(logits, network.multi_label)[0].tolist(), strict=True))
    return Prediction(view, relevance(model, view, network.multi_label), answer, note)


def predict_folder(
    model_file: Path, folder: Path, out_csv: Path, *, accelerator: str, precision: AskedPrecision, threads: int
) -> dict[str, str]:
    """Write the predictions for every file in a folder and its subfolders; returns the files that cannot be used.

    `out_csv` has the columns image (path below the folder), prob_<CLASS> for each class, and note; the probabilities
    of unreadable files are blank. Each equals the result of `predict` for the file, up to rounding. Hidden files do not
    count. Raises MiramError if there is no file.
    """
    fabric = one_device(accelerator, precision, threads)
    network = load_classifier(model_file)
    seen, side = Seen.of(network, model_file), network.model.encoder.side
    paths = files_below(folder)
    if not paths:
        raise MiramError(f"There is no file in {folder}.", "Name a folder of pictures, or one picture.")
    views, notes, faults = {}, {}, {}
    for path in track(paths, "pictures"):
        name = path.relative_to(folder).as_posix()
        try:
            crop, notes[name] = look(path, None, seen)
            views[name] = resize(crop, side)
        except MiramError as error:
            faults[name] = error.message
    columns = [PROBABILITY + name for name in network.classes]
    answers = pd.DataFrame(columns=columns, dtype=np.float32)
    if views:
        logits = evaluated(fabric.setup_module(network.model), _unlabelled(list(views), list(views.values())))
        answers = pd.DataFrame(probabilities(logits, network.multi_label), list(views), columns)
    table = answers.reindex(sorted(notes.keys() | faults.keys())).rename_axis("image")
    table["note"] = [faults.get(name, notes.get(name, "")) for name in table.index]
    write_csv(table, out_csv, index=True)
    return faults


def look(picture: Path, square: Square | None, seen: Seen) -> tuple[np.ndarray, str]:
    """The crop of a picture as in training, (R, C) uint8, and why its grey levels should be checked, if any."""
    if square is not None:
        seen.require_boxes(picture)
    wide, note = seen.reading.read(picture)
    pixels = reduced(wide, 8)
    return seen.cut(pixels, None, picture) if square is None else cut_square(pixels, square, picture), note


def cut_square(pixels: np.ndarray, square: Square, path: Path) -> np.ndarray:
    """A square of a picture, (side, side), zero outside it; MiramError if it contains no pixel of it."""
    (rows, columns), (x0, y0, side) = pixels.shape, square
    box = Box(y0, x0, y0 + side, x0 + side)
    if side < 1 or not all(box.within(rows, columns).shape):
        raise MiramError(
            f"The box {x0} {y0} {side} holds no pixel of {path}, which is {columns} px wide and {rows} px high.",
            "Give --box X0 Y0 SIDE: the left and upper edge and the side of a square around the lesion, in px.",
        )
    return cut_window(pixels, box)


def _unlabelled(names: list[str], views: list[np.ndarray]) -> Split:
    return Split(pd.DataFrame({"lesion_id": names}), np.stack(views), np.empty((len(views), 0), np.float32))
