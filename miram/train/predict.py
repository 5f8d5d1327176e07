"""One picture, one answer: a fine-tuned network on a crop, or on a region of a film.

Shapes: pixels (R, C), C classes, g x g patches.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from miram.data.dicom import open_pixels, read_film
from miram.data.geometry import Box, cut_window
from miram.data.pictures import decode
from miram.errors import MiramError
from miram.models.export import load_classifier
from miram.train.augment import resize, to_images
from miram.train.device import prepare_torch, usable_accelerator
from miram.train.explain import relevance
from miram.train.finetune import probabilities

DICOM_MARK = (128, b"DICM")  # place and bytes of the mark of a DICOM file (PS3.10, 7.1)
DARKEST = 32  # largest grey level of 255 below which a film does not use its 16 bits


class Prediction(NamedTuple):
    """What was looked at and what was answered."""

    view: np.ndarray  # (side, side) uint8, as the network saw it
    relevance: np.ndarray  # (g, g) float32, see `explain.relevance`
    probabilities: dict[str, float]  # class -> probability, in [0, 1]


def predict(
    model_file: Path, picture: Path, box: tuple[int, int, int] | None, *, accelerator: str, threads: int
) -> Prediction:
    """The answer of the network in `model_file` about `picture`, a DICOM file or any image that Pillow reads.

    `box` (x0, y0, side), in px, is the square around the lesion; without one the whole picture is the lesion's crop,
    and must be square. Raises MiramError when a file cannot be read, the box misses the picture, or there is neither a
    box nor a square.
    """
    device = torch.device("cuda" if usable_accelerator(accelerator) == "cuda" else "cpu")
    prepare_torch(device, threads)
    crop = cut(read_picture(picture), box, picture)
    model, classes, multi_label = load_classifier(model_file)
    model.to(device)
    view = resize(crop, model.encoder.side)
    with torch.no_grad():
        logits = model(to_images(torch.from_numpy(view[None].copy()).to(device), model.encoder.channels)).cpu()
    answer = dict(zip(classes, probabilities(logits, multi_label)[0].tolist(), strict=True))
    return Prediction(view, relevance(model, view, multi_label), answer)


def read_picture(path: Path) -> np.ndarray:
    """The grey pixels of a picture, (R, C) uint8; of 16 bits the high byte, as the crops that were trained on.

    Raises MiramError when it cannot be read, has more than 16 bits, or is a film that uses only its darkest levels.
    """
    place, mark = DICOM_MARK
    try:
        with open(path, "rb") as stream:
            is_dicom = stream.read(place + len(mark))[place:] == mark
    except OSError as error:
        raise MiramError(
            f"{path} cannot be read: {error}", "Give a DICOM file, or a PNG, TIFF or JPEG image."
        ) from error
    pixels = open_pixels(read_film(path)) if is_dicom else _grey(path)
    if pixels.dtype == np.uint8:
        return pixels
    high = (pixels >> 8).astype(np.uint8)
    if high.max() < DARKEST:
        raise MiramError(
            f"{path} has 16 bits a pixel and no grey level above {int(pixels.max())} of 65535.",
            "Stretch its grey levels to 16 bits, as the films of CBIS-DDSM are, or give an image of 8 bits.",
        )
    return high


def _grey(path: Path) -> np.ndarray:
    image = decode(path)
    if image.mode in ("I", "F"):  # Pillow would cut everything above 255 off
        raise MiramError(
            f"{path} has grey levels of 32 bits (Pillow's mode {image.mode}).", "Give it with 8 or 16 bits a pixel."
        )
    return np.asarray(image if image.mode.startswith("I;16") else image.convert("L"))


def cut(pixels: np.ndarray, box: tuple[int, int, int] | None, path: Path) -> np.ndarray:
    """The square (side, side) of a box (x0, y0, side), zero outside the picture; or the whole, square picture."""
    rows, columns = pixels.shape
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
