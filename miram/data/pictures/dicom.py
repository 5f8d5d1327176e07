"""Grey DICOM pictures of any maker: stored values without overlays, their polarity, padding and window.

The module `miram.data.dicom` reads the films of CBIS-DDSM, in windows; this one reads users' files, whole.
"""

import warnings
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from miram.data.pictures.picture import Picture, PictureError, picture_of
from miram.data.pictures.show import has_window, shown, tabulated
from miram.errors import MiramError

GREY = ("MONOCHROME1", "MONOCHROME2")
OVERLAYS = range(0x6000, 0x6020, 2)  # groups
ENCAPSULATED = b"\xfe\xff\x00\xe0"  # compressed pixels begin with the tag of an item


def read_dicom(path: Path, *, windowed: bool) -> Picture:
    """The one grey picture of a file, with `windowed` through its VOI LUT or its first window, if it has one.

    Raises PictureError with the reason when it holds none, more than one or colours.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of values that are not as they should be
            return _picture(path, dcmread(path, force=True), windowed)
    except MiramError:
        raise
    except Exception as error:  # a damaged file makes pydicom raise nearly anything
        raise PictureError(f"{path} is not a DICOM file that can be decoded: {error}") from error


def dicom_size(path: Path) -> tuple[int, int]:
    """Rows and columns, by the header alone. Raises PictureError where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
            return int(header.Rows), int(header.Columns)
    except Exception as error:  # a damaged file makes pydicom raise nearly anything
        raise PictureError(f"{path} is not a DICOM file that can be decoded: {error}") from error


def _picture(path: Path, header: Dataset, windowed: bool) -> Picture:
    _require_one_grey(path, header)
    _name_syntax(path, header)
    decoded = pixel_array(header, correct_unused_bits=False)  # `_values` does, and sees what they hold
    decoded = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
    if decoded.ndim == 3 and (decoded != decoded[..., :1]).any():
        raise PictureError(f"{path} is in colour: its channels differ.")
    grey = decoded if decoded.ndim == 2 else np.ascontiguousarray(decoded[..., 0])
    if grey.shape != (header.Rows, header.Columns):
        raise PictureError(f"{path} decodes to {grey.shape} px, not {header.Rows, header.Columns} as its header says.")
    padding = _padding(header, grey)
    pixels, bits, signed = _values(path, header, grey, padding)
    falling = float(header.get("RescaleSlope") or 1) < 0
    # PS3.3, C.8.11.3: of MONOCHROME1 the shape INVERSE says the same again
    inverted = header.PhotometricInterpretation == GREY[0] or header.get("PresentationLUTShape") == "INVERSE"
    told = {"format": "DICOM", "manufacturer": str(header.get("Manufacturer") or "").strip()}
    if windowed and has_window(header):
        return picture_of(shown(header, pixels), padding, bits=16, inverted=inverted, shown=True, **told)
    if header.get("ModalityLUTSequence"):
        pixels, bits = tabulated(header, pixels)
        signed = False
    return picture_of(pixels, padding, bits=bits, signed=signed, inverted=inverted != falling, **told)


def _require_one_grey(path: Path, header: Dataset) -> None:
    if not header:
        raise PictureError(f"{path} is not a DICOM file: it holds no data element.")
    absent = [name for name in ("PixelData", "Rows", "Columns", "BitsAllocated") if not header.get(name)]
    if "PixelData" in absent:
        raise PictureError(f"{path} is not a DICOM file with a picture: it holds no pixel data.")
    if absent:
        raise PictureError(f"{path} does not say {' and '.join(absent)}.")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise PictureError(f"{path} holds {frames} frames, not one picture.")
    interpretation = header.setdefault("PhotometricInterpretation", GREY[1]).value
    colours = interpretation.startswith(("RGB", "YBR")) and header.get("SamplesPerPixel") == 3
    if interpretation not in GREY and not colours:
        raise PictureError(f"{path} is not grey: PhotometricInterpretation = {interpretation}.")
    if header.BitsAllocated not in (1, 8, 16):
        raise PictureError(
            f"{path} has grey levels of {header.BitsAllocated} bits (BitsAllocated); at most 16 are supported."
        )


def _name_syntax(path: Path, header: Dataset) -> None:
    """Fill in attributes that anonymisers remove and pydicom needs for decoding."""
    header.setdefault("SamplesPerPixel", 1)
    header.setdefault("PixelRepresentation", 0)
    header.setdefault("BitsStored", header.BitsAllocated)
    header.setdefault("HighBit", header.BitsStored - 1)
    if header.file_meta.get("TransferSyntaxUID"):
        return
    if bytes(header.PixelData[:4]) == ENCAPSULATED:
        raise PictureError(f"{path} is compressed in an unknown way: it has no TransferSyntaxUID.")
    implicit, little = header.original_encoding
    plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain


def _padding(header: Dataset, grey: np.ndarray) -> np.ndarray | None:
    """Where pixels have the padding value, or one from it to the limit of padding."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return None
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((first, first if limit is None else limit))
    # a value of the other sign has the same bits
    wrap = 2 ** (8 * grey.dtype.itemsize)
    found = (grey >= low) & (grey <= high)
    for bits in (low + wrap, low - wrap):
        found |= grey.astype(np.int32) == bits
    return found if found.any() else None


def _values(path: Path, header: Dataset, grey: np.ndarray, padding: np.ndarray | None) -> tuple[np.ndarray, int, bool]:
    """Stored values, their bits, and whether they are signed: BitsStored bits below HighBit, without overlays.

    Raises PictureError if a value has more bits than declared.
    """
    allocated, stored, high = 8 * grey.dtype.itemsize, header.BitsStored, header.HighBit
    signed = header.PixelRepresentation == 1
    if header.BitsAllocated == 1:
        return grey, 1, False
    if not 1 <= stored <= high + 1 <= allocated:
        raise PictureError(f"{path} has BitsStored = {stored} and HighBit = {high}, of {allocated} bits.")
    low = high + 1 - stored
    raw = grey.view(f"u{grey.dtype.itemsize}") >> low
    above = ((2**allocated - 1) & ~_overlay_bits(header)) >> high + 1 << stored
    negative = (raw >> (stored - 1)) & 1 if signed else np.zeros_like(raw)
    beyond = (raw & above != 0) & (negative == 0)  # those of negative values repeat the sign
    if padding is not None:
        beyond &= ~padding
    if beyond.any():
        raise PictureError(f"{path} has BitsStored = {stored}, and a pixel of {int(raw[beyond].max())}.")
    pixels = raw & (2**stored - 1)
    if signed:
        pixels = pixels.astype(np.int32) - (negative.astype(np.int32) << stored)
    return pixels, stored, signed


def _overlay_bits(header: Dataset) -> int:
    """The bits of a pixel that hold an overlay (PS3.5, 8.1.2, until 2004)."""
    found = 0
    for group in OVERLAYS:
        position = header.get((group, 0x0102))
        if position is not None and (group, 0x3000) not in header:
            found |= 1 << int(position.value)
    return found
