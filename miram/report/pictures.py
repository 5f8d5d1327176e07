"""Pictures for a page: grey crops, and maps laid over them, as PNG inside the page.

Axis letters: R rows and C columns of pixels.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

PICTURE_SIDE = 160  # px, of a crop or map in the page
FOR, AGAINST = (213, 94, 0), (0, 114, 178)  # vermilion and blue of Okabe and Ito
STRONGEST = 0.65  # opacity of the strongest patch of a map


def png_uri(pixels: np.ndarray) -> str:
    """Pixels (R, C) grey or (R, C, 3) colour, uint8, as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def read_picture(png: Path) -> np.ndarray | None:
    """A grey crop as (PICTURE_SIDE, PICTURE_SIDE) uint8, of 16 bits the high byte; None where it cannot be read."""
    try:
        with Image.open(png) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError):  # PIL raises SyntaxError for a broken PNG chunk
        return None
    grey = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC))


def overlay(crop: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """A crop (R, C) with a map laid over it, (R, C, 3) uint8: what speaks for the answer warm, what against it blue.

    `relevance` has a value a patch, of any shape; the strongest of either sign is the most opaque.
    """
    rows, columns = crop.shape
    scaled = relevance / max(float(np.abs(relevance).max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC))
    opacity = STRONGEST * np.clip(np.abs(smooth), 0, 1)[..., None]
    colour = np.where(smooth[..., None] > 0, np.array(FOR), np.array(AGAINST))
    return ((1 - opacity) * crop[..., None] + opacity * colour).round().astype(np.uint8)
