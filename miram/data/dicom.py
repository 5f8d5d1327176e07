"""Grey DICOM images: header facts, and pixels that can be read one window at a time.

Pixels are unsigned stored values (PS3.3, C.7.6.3), 8 or 16 bits, one frame, MONOCHROME2: what every instance of
CBIS-DDSM is. Arrays are (R, C): rows, columns.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from miram.errors import MiramError

PIXEL_DATA = b"\xe0\x7f\x10\x00"  # tag (7FE0,0010), little endian
# bytes from the tag to the pixels: the tag and a 32-bit length, four more where the VR is explicit (PS3.5, 7.1)
OFFSETS = {ImplicitVRLittleEndian: 8, ExplicitVRLittleEndian: 12}
MISREAD = {ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}  # the pixel data's tag looks different in them
ALLOWED = {
    "SamplesPerPixel": (1,),
    "PhotometricInterpretation": ("MONOCHROME2",),
    "PixelRepresentation": (0,),
    "NumberOfFrames": (None, 1),
    "BitsAllocated": (8, 16),
}


class DicomError(MiramError):
    """A file or series without a usable image; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "Delete the folder of its series and run `miram crops` again.")


@dataclass(frozen=True)
class Film:
    """Header facts of an image; `offset` is where its pixels begin in the file, None when they are compressed."""

    path: Path
    series_uid: str
    rows: int
    columns: int
    bits: int
    offset: int | None


def read_film(path: Path) -> Film:
    """Header facts of the image in `path`, without its pixels.

    Raises DicomError if it is not DICOM, has no pixel data, is truncated, or is not a grey image of 8 or 16 bits.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            return _film(path, stream)
    except FileNotFoundError as error:
        raise DicomError(f"{path} does not exist") from error
    except OSError as error:
        raise MiramError(f"{path} cannot be read: {error}", "Check its permissions and its disk.") from error
    except MiramError:
        raise
    except Exception as error:  # a damaged header makes pydicom raise nearly anything
        raise DicomError(f"{path} is not a DICOM file: {error}") from error


def open_pixels(film: Film) -> np.ndarray:
    """The pixels of a film for reading windows, (R, C) uint8 or uint16, read-only.

    Uncompressed ones are a memory map without read-ahead, which may be megabytes: a slice reads only its rows.
    Raises DicomError when compressed ones cannot be decoded.
    """
    if film.offset is None:
        return read_pixels(film)
    with open(film.path, "rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    pixels = np.frombuffer(mapped, _dtype(film), film.rows * film.columns, film.offset)
    return pixels.reshape(film.rows, film.columns)


def read_pixels(film: Film) -> np.ndarray:
    """All pixels of a film in memory, (R, C) uint8 or uint16. Raises DicomError when they cannot be decoded."""
    if film.offset is not None:
        pixels = np.fromfile(film.path, _dtype(film), film.rows * film.columns, offset=film.offset)
        return pixels.reshape(film.rows, film.columns)
    try:
        pixels = dcmread(film.path).pixel_array
    # pydicom's decoders raise errors of many kinds
    except Exception as error:
        raise DicomError(f"{film.path} cannot be decoded: {error}") from error
    if pixels.shape != (film.rows, film.columns):
        raise DicomError(f"{film.path} decodes to {pixels.shape} px, not {film.rows, film.columns} as its header says")
    return pixels


def series_files(dicom_dir: Path, series_uid: str) -> list[Path]:
    """The DICOM files of a series, sorted by name; none if the series is missing."""
    return sorted((Path(dicom_dir) / series_uid).glob("*.dcm"))


def _dtype(film: Film) -> np.dtype:
    return np.dtype(f"<u{film.bits // 8}")


def _film(path: Path, stream: BinaryIO) -> Film:
    header = dcmread(stream, stop_before_pixels=True)
    position = stream.tell()
    element = stream.read(max(OFFSETS.values()))
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in MISREAD:
        raise DicomError(f"{path} has the transfer syntax {syntax.name}, which is not read here")
    if not element.startswith(PIXEL_DATA):
        raise DicomError(f"{path} holds no pixel data")
    for name, allowed in ALLOWED.items():
        if header.get(name) not in allowed:
            raise DicomError(f"{path} has {name} = {header.get(name)}, allowed: {', '.join(map(str, allowed))}")
    rows, columns, bits = header.Rows, header.Columns, header.BitsAllocated
    if not rows or not columns:
        raise DicomError(f"{path} has {rows} x {columns} px")
    offset = None
    if syntax in OFFSETS:
        offset = position + OFFSETS[syntax]
        declared = int.from_bytes(element[OFFSETS[syntax] - 4 : OFFSETS[syntax]], "little")
        needed, there = rows * columns * bits // 8, stream.seek(0, os.SEEK_END) - offset
        if declared not in (needed, needed + needed % 2):  # values have an even length
            raise DicomError(f"{path} declares {declared} bytes of pixels where {rows} x {columns} px need {needed}")
        if there < needed:
            raise DicomError(f"{path} is cut short: it holds {max(0, there)} of {needed} bytes of pixels")
    return Film(path, str(header.SeriesInstanceUID), rows, columns, bits, offset)
