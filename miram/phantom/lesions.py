"""Synthetic lesions of four classes, which differ in shape and texture, not in mean grey or size.

A lesion is drawn on a square window, centred. Arrays are (S, S) float32; lengths in px of the film.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

RADIUS = (17.0, 30.0)  # of the outline
MEAN_GREY = (0.05, 0.09)  # added within the outline, on average; the same for every class


class Lesion(NamedTuple):
    """What is added to the film's grey (S, S), the outline (S, S) bool, and the words of the case list."""

    grey: np.ndarray
    outline: np.ndarray
    words: dict[str, str]


def draw_lesion(abnormality: str, pathology: str, random: np.random.Generator) -> Lesion:
    """Draw a `mass` or `calcification`, `BENIGN` or `MALIGNANT`."""
    radius = random.uniform(*RADIUS)
    size = 2 * int(np.ceil(radius * 1.35)) + 1
    y, x = np.mgrid[:size, :size].astype(np.float32) - size // 2
    shape, words = DRAWN[abnormality, pathology](y, x, radius, random)
    shape = ndimage.gaussian_filter(shape, 0.6)  # like the blur of a film
    outline = np.hypot(y, x) < radius * _wobble(np.arctan2(y, x), 0.08, (2, 3, 4), random)
    wanted = random.uniform(*MEAN_GREY) * outline.sum()
    if abnormality == "mass":
        grey = shape * wanted / shape.sum()
    else:  # specks of given brightness on a haze that makes up the rest
        haze = np.exp(-(y**2 + x**2) / (2 * (0.6 * radius) ** 2))
        grey = shape + haze * max(0.0, wanted - shape.sum()) / haze.sum()
    return Lesion(grey.astype(np.float32), outline, words)


def _wobble(angle: np.ndarray, strength: float, waves: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A factor near 1 for the radius in each direction, with this many waves around."""
    phases = random.uniform(0, 2 * np.pi, len(waves))
    return 1 + sum(
        strength / wave * 2 * np.cos(wave * angle + phase) for wave, phase in zip(waves, phases, strict=True)
    )


def _soft(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 inside (negative distance), 0 outside, over an edge of this many px."""
    return 1 / (1 + np.exp(np.clip(distance / edge, -30, 30)))


def _benign_mass(y: np.ndarray, x: np.ndarray, radius: float, random: np.random.Generator) -> tuple[np.ndarray, dict]:
    """Round, oval or lobulated, with a sharp, smooth border."""
    shape = str(random.choice(["ROUND", "OVAL", "LOBULATED"]))
    stretch = {"ROUND": 1.0, "OVAL": 1.35, "LOBULATED": 1.1}[shape]
    turn = random.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(y, x)
    border = (
        0.72 * radius * (_wobble(angle, 0.25, (int(random.integers(3, 5)),), random) if shape == "LOBULATED" else 1)
    )
    distance = np.hypot(along / np.sqrt(stretch), across * np.sqrt(stretch)) - border
    margins = str(random.choice(["CIRCUMSCRIBED", "CIRCUMSCRIBED", "OBSCURED", "CIRCUMSCRIBED-OBSCURED"]))
    return _soft(distance, 1.0), {"mass shape": shape, "mass margins": margins}


def _malignant_mass(
    y: np.ndarray, x: np.ndarray, radius: float, random: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """An irregular core with spicules that taper towards the outline."""
    distance, angle = np.hypot(y, x), np.arctan2(y, x)
    core = _soft(distance - 0.38 * radius * _wobble(angle, 0.3, (2, 3, 5), random), 2.0)
    spicules = np.zeros_like(core)
    count = int(random.integers(8, 13))
    for direction in 2 * np.pi * (np.arange(count) + random.uniform(-0.3, 0.3, count)) / count:
        along, across = x * np.cos(direction) + y * np.sin(direction), y * np.cos(direction) - x * np.sin(direction)
        length = radius * random.uniform(0.85, 1.15)
        half_width = np.maximum(2.4 * (1 - along / length), 0.3)
        ray = (along > 0) * _soft(along - length, 1.0) * np.exp(-((across / half_width) ** 2))
        spicules = np.maximum(spicules, ray)
    margins = str(random.choice(["SPICULATED", "ILL_DEFINED", "ILL_DEFINED-SPICULATED", "MICROLOBULATED"]))
    shape = str(random.choice(["IRREGULAR", "IRREGULAR-ARCHITECTURAL_DISTORTION", "ARCHITECTURAL_DISTORTION"]))
    return np.maximum(core, 0.7 * spicules), {"mass shape": shape, "mass margins": margins}


def _benign_calcification(
    y: np.ndarray, x: np.ndarray, radius: float, random: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """Few round, even grains, scattered over the whole outline."""
    grains = np.zeros_like(y)
    brightness, size = random.uniform(0.3, 0.45), random.uniform(1.7, 2.4)
    centres: list[np.ndarray] = []
    for _ in range(200):
        if len(centres) == 9:
            break
        centre = random.uniform(-0.85, 0.85, 2) * radius
        if np.hypot(*centre) < 0.85 * radius and all(np.hypot(*(centre - other)) > 0.4 * radius for other in centres):
            centres.append(centre)
            grains = np.maximum(grains, brightness * _soft(np.hypot(y - centre[0], x - centre[1]) - size, 0.5))
    kind = str(random.choice(["PUNCTATE", "ROUND_AND_REGULAR", "ROUND_AND_REGULAR-LUCENT_CENTER", "COARSE"]))
    spread = str(random.choice(["REGIONAL", "DIFFUSELY_SCATTERED"]))
    return grains, {"calc type": kind, "calc distribution": spread}


def _malignant_calcification(
    y: np.ndarray, x: np.ndarray, radius: float, random: np.random.Generator
) -> tuple[np.ndarray, dict]:
    """Many uneven specks and short strokes, crowded in a part of the outline."""
    specks = np.zeros_like(y)
    middle = random.uniform(-0.25, 0.25, 2) * radius
    linear = random.random() < 0.5
    for _ in range(int(random.integers(22, 32))):
        centre = middle + random.normal(0, 0.3, 2) * radius
        half_length = random.uniform(1.5, 4.0) if linear else random.uniform(0.2, 1.5)
        turn, width = random.uniform(0, np.pi), random.uniform(0.6, 1.2)
        along = (x - centre[1]) * np.cos(turn) + (y - centre[0]) * np.sin(turn)
        across = (y - centre[0]) * np.cos(turn) - (x - centre[1]) * np.sin(turn)
        distance = np.hypot(np.maximum(np.abs(along) - half_length, 0), across) - width
        specks = np.maximum(specks, random.uniform(0.2, 0.5) * _soft(distance, 0.4))
    strokes = ["FINE_LINEAR_BRANCHING", "PLEOMORPHIC-FINE_LINEAR_BRANCHING"]
    kinds = strokes if linear else ["PLEOMORPHIC", "AMORPHOUS-PLEOMORPHIC"]
    spread = str(random.choice(["CLUSTERED", "SEGMENTAL", "CLUSTERED-LINEAR"]))
    return specks, {"calc type": str(random.choice(kinds)), "calc distribution": spread}


DRAWN: dict[tuple[str, str], Callable] = {
    ("mass", "BENIGN"): _benign_mass,
    ("mass", "MALIGNANT"): _malignant_mass,
    ("calcification", "BENIGN"): _benign_calcification,
    ("calcification", "MALIGNANT"): _malignant_calcification,
}


def place(lesion: Lesion, free: np.ndarray, random: np.random.Generator) -> tuple[int, int] | None:
    """Top left corner (row, column) of a window whose middle lies in `free` (H, W) bool; None if there is none."""
    room = ndimage.binary_erosion(free, iterations=int(lesion.outline.shape[0] * 0.3), border_value=0)
    rows, columns = np.nonzero(room)
    half = lesion.grey.shape[0] // 2
    inside = (rows >= half) & (rows < free.shape[0] - half) & (columns >= half) & (columns < free.shape[1] - half)
    if not inside.any():
        return None
    chosen = random.integers(inside.sum())
    return int(rows[inside][chosen]) - half, int(columns[inside][chosen]) - half
