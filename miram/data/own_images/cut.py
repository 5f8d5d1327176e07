"""Crops of own images, cut by the same rules as those of CBIS-DDSM's films."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miram.data.crop_rules import WindowRule
from miram.data.cutting import place_facts, reduced
from miram.data.geometry import Box, cut_window, lesion_box, window_around
from miram.data.own_images.table import Lesion
from miram.data.pictures.picture import PictureError
from miram.data.pictures.survey import AS_STORED, Reading, Survey, survey
from miram.data.tasks import OWN
from miram.files import sha256_pixels
from miram.progress import track

TOLERANCE = 1  # px that a box may reach beyond its image: rounding


@dataclass(frozen=True, kw_only=True)
class Rule(WindowRule):
    """How crops are cut: `levels` of `pictures.levels`, the others as of `cutting.cut_film`."""

    levels: str
    bits: int


class Found(NamedTuple):
    """The lesions in the images: one row of `lesions.csv` per crop, one of `set_aside.csv` per other lesion."""

    rows: list[dict[str, Any]]
    aside: list[dict[str, Any]]
    pictures: Survey


def cut_images(
    lesions: Sequence[Lesion], folder: Path, rule: Rule, use: Callable[[str, np.ndarray], None] = lambda *_: None
) -> Found:
    """Cut all lesions, one image at a time; `use` gets the id and crop of each, twice where `survey` decodes twice.

    Raises MiramError when a file cannot be opened.
    """
    of_image: dict[str, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        of_image[lesion.image].append(lesion)
    done: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}

    def cut(image: str, pixels: np.ndarray) -> None:
        film = {"film_rows": pixels.shape[0], "film_columns": pixels.shape[1], "film_sha256": sha256_pixels(pixels)}
        for lesion in of_image[image]:
            try:
                box, repairs = located(lesion, pixels.shape, folder, rule.component)
            except PictureError as error:
                reasons[lesion.lesion_id] = error.message
                continue
            window = window_around(box, shape=rule.shape, margin=rule.margin, side_min=rule.side_min)
            crop = reduced(cut_window(pixels, window), rule.bits)
            use(lesion.lesion_id, crop)
            facts = {**film, "repairs": repairs, **place_facts(box, window), "crop_sha256": sha256_pixels(crop)}
            done[lesion.lesion_id] = _row(lesion) | facts

    paths = {image: folder / image for image in of_image}
    pictures = survey(paths, rule.levels, partial(track, description="images", total=len(paths)), cut)
    reasons |= {lesion.lesion_id: pictures.aside[image] for image in pictures.aside for lesion in of_image[image]}
    aside = [_row(lesion) | {"reason": reasons[lesion.lesion_id]} for lesion in lesions if lesion.lesion_id in reasons]
    return Found([done[lesion.lesion_id] for lesion in lesions if lesion.lesion_id in done], aside, pictures)


def crop_of(row: Mapping[str, Any], folder: Path, reading: Reading) -> np.ndarray:
    """Cut the crop of a row of `Found` again, (R, C) uint8."""
    pixels, _ = reading.read(folder / row["film_uid"])
    y0, x0 = row["y0"], row["x0"]
    return reduced(cut_window(pixels, Box(y0, x0, y0 + row["crop_rows"], x0 + row["crop_columns"])), 8)


def _row(lesion: Lesion) -> dict[str, Any]:
    known = {"lesion_id": lesion.lesion_id, "patient_id": lesion.patient, "official_split": lesion.part}
    return known | {"film_uid": lesion.image, OWN: lesion.label}


def located(lesion: Lesion, shape: tuple[int, ...], folder: Path, component: str) -> tuple[Box, str]:
    """The box of a lesion in its image, and its repairs. Raises PictureError if it is not valid."""
    whole = Box(0, 0, *shape)
    if lesion.mask:
        return _box_of_mask(folder / lesion.mask, shape, component)
    if lesion.box is None:
        return whole, ""
    inside = lesion.box.within(*shape)
    if not all(inside.shape) or max(abs(a - b) for a, b in zip(inside, lesion.box, strict=True)) > TOLERANCE:
        y0, x0, y1, x1 = lesion.box
        raise PictureError(
            f"{folder / lesion.image} has {shape[1]} columns and {shape[0]} rows, and the box reaches from {x0}, {y0} "
            f"to {x1}, {y1}."
        )
    return inside, "" if inside == lesion.box else "box_clipped"


def _box_of_mask(path: Path, shape: tuple[int, ...], component: str) -> tuple[Box, str]:
    grey, _ = AS_STORED.read(path)
    if grey.shape != shape:
        raise PictureError(
            f"{path} is a mask of {grey.shape[1]} x {grey.shape[0]} px, its image has {shape[1]} x {shape[0]}."
        )
    levels = len(np.unique(grey))
    if levels != 2:
        raise PictureError(f"{path} is not the mask of a lesion: it has {levels} grey levels, not two.")
    box, count = lesion_box(grey > grey.min(), component)
    return box, f"components_{component}" if count > 1 else ""
