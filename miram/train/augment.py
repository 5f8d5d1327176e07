"""Augmentation of grey crops, each from its own random stream, and conversion to network input.

Shapes: a crop is (rows, columns) uint8, a view (side, side) uint8; images are (B, C, side, side) float32, B samples
of C channels. The augmentation of a sample depends only on (seed, epoch, sample), not on the order of a batch or the
number of workers or processes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from miram.recipe import IMAGENET_MEAN, IMAGENET_STD

PURPOSES = ("order", "view", "step", "figure")  # of a random stream
ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a random resized crop, as torchvision
CROP_ATTEMPTS = 10  # as torchvision
UNCHANGED = ((False, 1.0), (True, 1.0))  # jitters that do not change a view
SOLARISE_THRESHOLD = 128  # grey levels, as moco-v3


def stream(purpose: str, seed: int, epoch: int, sample: int = 0) -> np.random.Generator:
    """The random stream of one purpose, "order" | "view" | "step" | "figure", for a sample of an epoch."""
    return np.random.default_rng((PURPOSES.index(purpose), seed, epoch, sample))


def resize(crop: np.ndarray, side: int) -> np.ndarray:
    """A crop as (side, side) uint8: bicubic and antialiased, by PIL, as torchvision resizes a PIL image."""
    image = Image.fromarray(np.ascontiguousarray(crop))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def crop_box(rows: int, columns: int, scale_min: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """A random box (top, left, height, width) in px with `scale_min`..1 of the area and an aspect ratio of 3/4..4/3.

    Drawn as torchvision's RandomResizedCrop; when no draw fits, the largest centred box of an allowed aspect ratio.
    """
    low, high = ASPECT_RATIOS
    for _ in range(CROP_ATTEMPTS):
        area = rows * columns * random.uniform(scale_min, 1.0)
        ratio = math.exp(random.uniform(math.log(low), math.log(high)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= columns and 0 < height <= rows:
            return int(random.integers(rows - height + 1)), int(random.integers(columns - width + 1)), height, width
    width = max(1, min(columns, round(rows * high)))
    height = max(1, min(rows, round(columns / low)))
    return (rows - height) // 2, (columns - width) // 2, height, width


class Draw(NamedTuple):
    """The operations that make a view of a crop, in this order."""

    box: tuple[int, int, int, int]  # top, left, height, width in px
    jitters: tuple[tuple[bool, float], tuple[bool, float]]  # of contrast (True) or brightness, by a factor
    blur_sigma: float  # px of the view; 0: none
    solarised: bool
    flipped: bool


def draw_view(rows: int, columns: int, scale_min: float, random: np.random.Generator) -> Draw:
    """Random resized crop and horizontal flip: the view of the masked methods."""
    return Draw(crop_box(rows, columns, scale_min, random), UNCHANGED, 0.0, False, random.random() < 0.5)


def draw_moco_view(
    rows: int,
    columns: int,
    scale_min: float,
    random: np.random.Generator,
    *,
    jitter_brightness: float,
    jitter_contrast: float,
    jitter_probability: float,
    blur_sigma_min: float,
    blur_sigma_max: float,
    blur_probability: float,
    solarise_probability: float,
) -> Draw:
    """One view of MoCo-v3: random resized crop, brightness and contrast jitter, blur, solarisation, flip.

    The two jitters come in random order. Jitter strengths are relative (factor 1 ± strength), blur's sigma is in
    px of the view. Hue, saturation and grey of the reference have no effect on a grey image and are left out.
    """
    box, jitters = crop_box(rows, columns, scale_min, random), UNCHANGED
    if random.random() < jitter_probability:
        strengths = (jitter_brightness, jitter_contrast)
        first, second = (
            (bool(kind), random.uniform(max(0.0, 1.0 - strengths[kind]), 1.0 + strengths[kind]))
            for kind in random.permutation(2)
        )
        jitters = first, second
    blur_sigma = random.uniform(blur_sigma_min, blur_sigma_max) if random.random() < blur_probability else 0.0
    solarised = random.random() < solarise_probability
    return Draw(box, jitters, blur_sigma, solarised, random.random() < 0.5)


def render(crop: np.ndarray, side: int, draw: Draw) -> np.ndarray:
    """The view (side, side) uint8 that `draw` makes of a crop, by PIL."""
    top, left, height, width = draw.box
    view = resize(crop[top : top + height, left : left + width], side)
    if draw[1:4] != (UNCHANGED, 0.0, False):
        image = Image.fromarray(view)
        for contrast, factor in draw.jitters:
            image = (ImageEnhance.Contrast if contrast else ImageEnhance.Brightness)(image).enhance(factor)
        if draw.blur_sigma:
            image = image.filter(ImageFilter.GaussianBlur(draw.blur_sigma))
        view = np.asarray(ImageOps.solarize(image, SOLARISE_THRESHOLD) if draw.solarised else image)
    return view[:, ::-1] if draw.flipped else view


def finetune_view(
    view: np.ndarray,
    random: np.random.Generator,
    *,
    rotation_degrees: float,
    zoom_min: float,
    zoom_max: float,
    intensity_shift: float,
) -> np.ndarray:
    """A resized crop with random flips both ways, rotation, zoom and shift of intensity.

    Rotation is up to ± `rotation_degrees` about the centre, zoom a factor of `zoom_min`..`zoom_max`, both in one
    bilinear step with zeros outside; the shift is up to ± `intensity_shift` grey levels of 255.
    """
    if random.random() < 0.5:
        view = view[:, ::-1]
    if random.random() < 0.5:
        view = view[::-1]
    angle = math.radians(random.uniform(-rotation_degrees, rotation_degrees))
    zoom = random.uniform(zoom_min, zoom_max)
    shift = random.uniform(-intensity_shift, intensity_shift)
    cosine, sine, centre = math.cos(angle) / zoom, math.sin(angle) / zoom, view.shape[0] / 2
    to_source = (cosine, sine, centre - (cosine + sine) * centre, -sine, cosine, centre - (cosine - sine) * centre)
    image = Image.fromarray(np.ascontiguousarray(view))
    turned = np.asarray(image.transform(image.size, Image.Transform.AFFINE, to_source, Image.Resampling.BILINEAR))
    return np.clip(np.rint(turned + shift), 0, 255).astype(np.uint8)


def to_images(views: torch.Tensor, channels: int) -> torch.Tensor:
    """(B, side, side) uint8 -> (B, C, side, side) float32, grey repeated, normalised by ImageNet's statistics.

    One channel takes the average of the three means and of the three deviations.
    """
    mean, std = _normalisation(channels, views.device)
    return torch.addcmul(-mean / std, views[:, None].float(), 1 / (255 * std))


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_images`: (B, C, side, side) -> (B, side, side) uint8, channels averaged, clipped to 0..255."""
    mean, std = _normalisation(images.shape[1], images.device)
    return ((images * std + mean).mean(1) * 255.0).round().clamp(0, 255).to(torch.uint8)


def _normalisation(channels: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (C, 1, 1) of grey levels in [0, 1]."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (mean, std) if channels == len(IMAGENET_MEAN) else (mean.mean(0, True), std.mean(0, True))
