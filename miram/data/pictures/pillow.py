"""Pictures that Pillow reads: PNG, TIFF, JPEG, PGM, BMP and JPEG 2000."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from miram.data.pictures.picture import Picture, PictureError, picture_of
from miram.errors import MiramError

STARTS = {  # how the files begin, by Pillow's words for their formats
    **{"PNG": (b"\x89PNG",), "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "JPEG": (b"\xff\xd8",)},
    **{"PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), "BMP": (b"BM",)},
    "JPEG2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"),
}
FORMATS = tuple(STARTS)
LAYERS = {"L": 1, "LA": 2, "La": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "RGBa": 4}  # 8 bits each
PHOTOMETRIC, BITS_PER_SAMPLE, WHITE_IS_ZERO = 262, 258, 0  # of TIFF
PNG_BITS = 24  # offset of the bits per channel in a PNG file
# big-endian, WhiteIsZero, unsigned, 16 bits: the one grey TIFF that Pillow's table of modes leaves out
TiffImagePlugin.OPEN_INFO.setdefault((TiffImagePlugin.MM, 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
REMEDY = "Correct or replace it; if the workflow cut it, delete it and run the stage `crops` again."


def decode(path: Path) -> Image.Image:
    """A picture, decoded whole. Raises MiramError naming the file if it is missing, damaged or not a picture."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise MiramError(f"The image {path} is missing.", "Run the stage `crops` again.") from error
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        raise MiramError(f"The image {path} cannot be decoded: {error}.", REMEDY) from error


def pillow_size(path: Path) -> tuple[int, int]:
    """Rows and columns, by the header alone. Raises PictureError where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        raise PictureError(f"{path} cannot be decoded: {error}") from error


def read_pillow(path: Path) -> Picture:
    """The one grey picture of a file. Raises PictureError with the reason when it holds none, or more."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise PictureError(f"{path} holds {frames} pages, not one picture.")
            declared = _declared_bits(path, image)
            white_is_zero = _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO
            image.load()
            return _grey(path, image, declared, white_is_zero)
    except MiramError:
        raise
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        raise PictureError(f"{path} cannot be decoded: {error}.") from error


def _tag(image: Image.Image, number: int) -> Any:
    return image.tag_v2.get(number) if isinstance(image, TiffImageFile) else None


def _declared_bits(path: Path, image: Image.Image) -> int | None:
    """Declared bits per channel, where Pillow's mode does not say."""
    if image.format == "PNG":
        with open(path, "rb") as stream:
            return stream.read(PNG_BITS + 1)[PNG_BITS]
    bits = _tag(image, BITS_PER_SAMPLE)
    return max(bits) if bits else None


def _grey(path: Path, image: Image.Image, declared: int | None, white_is_zero: bool) -> Picture:
    name, key = str(image.format), image.info.get("transparency")
    if image.mode == "1" and key is None:
        return picture_of(np.asarray(image).astype(np.uint8), format=name, bits=1)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = _wide(path, np.asarray(image))
        if key is not None and (pixels == key).any():
            raise PictureError(f"{path} is transparent in places.")
        # Pillow inverts WhiteIsZero only for 8 bits and fewer
        return picture_of(pixels, format=name, bits=min(declared or 16, 16), inverted=white_is_zero)
    if key is not None or image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode not in LAYERS:
        raise PictureError(f"{path} is in colour: Pillow's mode {image.mode}.")
    if declared == 16:
        raise PictureError(
            f"{path} has {LAYERS[image.mode]} channels of 16 bits, of which Pillow reads 8: save it as grey."
        )
    return picture_of(_one_layer(path, np.asarray(image)), format=name, bits=8)


def _wide(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Levels of 16 bits, also where they come in 32 or as floating point."""
    if pixels.dtype.itemsize == 2:
        return pixels.astype(np.uint16)
    # NaN fails the comparison too
    if not ((pixels >= 0) & (pixels <= 65535)).all() or (pixels != np.floor(pixels)).any():
        raise PictureError(f"{path} has grey levels of 32 bits that are not whole numbers of 0 to 65535.")
    return pixels.astype(np.uint16)


def _one_layer(path: Path, layers: np.ndarray) -> np.ndarray:
    """The grey of (R, C), or of (R, C, 1 to 4) with equal colours and, in an even number, an opaque last layer."""
    if layers.ndim == 2:
        return layers
    colours = layers[..., : layers.shape[2] - (layers.shape[2] % 2 == 0)]
    if colours.shape[2] < layers.shape[2] and (layers[..., -1] != 255).any():
        raise PictureError(f"{path} is transparent in places.")
    if (colours != colours[..., :1]).any():
        raise PictureError(f"{path} is in colour: its channels differ.")
    return np.ascontiguousarray(colours[..., 0])
