"""One grey picture, written in many ways: DICOM by pydicom and gdcm, the others by Pillow.

gdcm brings a zlib of its own: Python's must be loaded before it, as it is here and by pydicom, or the process is
aborted.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
from PIL import Image, TiffImagePlugin
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

ROWS, COLUMNS = 72, 64
PADDED = np.s_[:2, :3]  # black in the picture; where a way of writing pads, its padding


def picture() -> np.ndarray:
    """(72, 64) uint8 with all of 0 to 255 at its ends, black in PADDED."""
    grey = np.random.default_rng(5).integers(1, 255, (ROWS, COLUMNS)).astype(np.uint8)
    grey[PADDED], grey[5, 5], grey[6, 6] = 0, 255, 128
    return grey


def levels(bits: int) -> np.ndarray:
    """The picture with so many bits, uint16; further bits repeat the first ones."""
    return (picture().astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)


def dicom(
    pixels: np.ndarray,
    *,
    stored: int,
    syntax: str = ExplicitVRLittleEndian,
    without: tuple[str, ...] = (),
    preamble: bool = True,
    **elements: object,
) -> bytes:
    """A DICOM file of pixels as they are to be stored; `without` names elements to leave out, of the meta group too."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID = header.StudyInstanceUID = generate_uid()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    header.Rows, header.Columns, header.SamplesPerPixel = *pixels.shape[:2], 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 8 * pixels.dtype.itemsize, stored, stored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    big = syntax == ExplicitVRBigEndian
    header.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    header["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(header, name, value)
    if syntax == RLELossless:
        header.compress(RLELossless)
    for name in without:
        delattr(header.file_meta if name in header.file_meta else header, name)
    stream = io.BytesIO()
    implicit = header.file_meta.get("TransferSyntaxUID") == ImplicitVRLittleEndian
    if preamble and not without:
        header.save_as(stream, enforce_file_format=True)
    else:
        if preamble:
            header.preamble = b"\0" * 128
        else:
            del header.file_meta
        header.save_as(stream, implicit_vr=implicit, little_endian=not big, enforce_file_format=False)
    return stream.getvalue()


def compressed(pixels: np.ndarray, kind: int, folder: Path, **words: object) -> bytes:
    """A DICOM file whose pixels gdcm has compressed; `kind` is one of its transfer syntaxes."""
    plain, out = folder / "plain.dcm", folder / "compressed.dcm"
    plain.write_bytes(dicom(pixels, **words))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(out))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    content = out.read_bytes()
    assert dcmread(io.BytesIO(content)).file_meta.TransferSyntaxUID.is_compressed
    return content


def jpeg_2000(pixels: np.ndarray, *, stored: int, **elements: object) -> bytes:
    """A DICOM file whose pixels Pillow has compressed; gdcm's encoder writes beyond its memory on small pictures."""
    narrow = pixels.astype(np.uint8) if stored == 8 else pixels
    stream = pillow(Image.fromarray(narrow), "JPEG2000", irreversible=False, no_jp2=True)
    header = dcmread(io.BytesIO(dicom(narrow, stored=stored, **elements)))
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    return out.getvalue()


def pillow(image: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of a picture that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, order: str = "<", white_is_zero: bool = False) -> bytes:
    """A TIFF file of 16 bits, in either byte order, of either polarity, written by hand: one strip."""
    rows, columns = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    entries = [(256, columns), (257, rows), (258, 16), (259, 1), (262, 0 if white_is_zero else 1), (273, 8)]
    entries += [(277, 1), (278, rows), (279, len(data))]

    def number(value: int, size: int) -> bytes:
        return int(value).to_bytes(size, "big" if order == ">" else "little")

    table = b"".join(number(tag, 2) + number(4, 2) + number(1, 4) + number(value, 4) for tag, value in entries)
    head = (b"MM" if order == ">" else b"II") + number(42, 2) + number(8 + len(data), 4)
    return head + data + number(len(entries), 2) + table + number(0, 4)


def inverted_tag() -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of a TIFF file whose 0 is white."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    return tags


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG file of three equal channels of 16 bits, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + row.tobytes() for row in np.repeat(pixels[..., None], 3, axis=2).astype(">u2"))
    head = struct.pack(">IIBBBBB", *pixels.shape[::-1], 16, 2, 0, 0, 0)
    ends = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


def pgm(pixels: np.ndarray, most: int) -> bytes:
    """A binary PGM file."""
    kind = ">u2" if most > 255 else "u1"
    return f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n{most}\n".encode() + pixels.astype(kind).tobytes()


def dicom_ways() -> dict[str, Callable[[Path], bytes]]:
    """Ways to write the picture as DICOM, by the file's name; each is given an empty folder."""
    eight, twelve, full = picture(), levels(12), levels(16)
    padded, white, wide = np.where(twelve == 4000, 4001, twelve), np.maximum(4095 - twelve, 1), twelve.copy()
    padded[PADDED], white[PADDED], wide[PADDED] = 4000, 0, 65535
    signed = (twelve.astype(np.int32) - 2048).astype(np.int16)
    lut = {"PresentationLUTShape": "INVERSE"}
    one = {"PhotometricInterpretation": "MONOCHROME1"}
    slope = {"RescaleSlope": "-1", "RescaleIntercept": "4095"}
    uids = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "MediaStorageSOPInstanceUID", "SOPClassUID")
    overlay = twelve | (np.uint16(1) << 13)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    same = np.repeat(eight[..., None], 3, axis=2)
    ways = {
        "8.dcm": lambda _: dicom(eight, stored=8),
        "10.dcm": lambda _: dicom(levels(10), stored=10),
        "12.dcm": lambda _: dicom(twelve, stored=12),
        "14.dcm": lambda _: dicom(levels(14), stored=14),
        "16.dcm": lambda _: dicom(full, stored=16),
        "10 in 16.dcm": lambda _: dicom(levels(10), stored=16),
        "12 in 16.dcm": lambda _: dicom(twelve, stored=16),
        "14 in 16.dcm": lambda _: dicom(levels(14), stored=16),
        "monochrome1.dcm": lambda _: dicom(4095 - twelve, stored=12, **one),
        "monochrome1 12 in 16.dcm": lambda _: dicom(4095 - twelve, stored=16, **one),
        "inverse.dcm": lambda _: dicom(4095 - twelve, stored=12, **lut),
        "monochrome1 inverse.dcm": lambda _: dicom(4095 - twelve, stored=12, **one, **lut),
        "slope -1.dcm": lambda _: dicom(4095 - twelve, stored=12, **slope),
        "monochrome1 slope -1.dcm": lambda _: dicom(twelve, stored=12, **one, **slope),
        "slope 2.5.dcm": lambda _: dicom(twelve, stored=12, RescaleSlope="2.5", RescaleIntercept="-100"),
        "signed.dcm": lambda _: dicom(signed, stored=12),
        "signed without sign bits.dcm": lambda _: dicom((signed & 0xFFF).astype(np.int16), stored=12),
        "signed 12 in 16.dcm": lambda _: dicom(twelve.astype(np.int16), stored=16),
        "padding.dcm": lambda _: dicom(padded, stored=12, PixelPaddingValue=4000),
        "padding of monochrome1.dcm": lambda _: dicom(white, stored=12, PixelPaddingValue=0, **one),
        "padding beyond.dcm": lambda _: dicom(wide, stored=12, PixelPaddingValue=65535),
        "overlay.dcm": lambda _: with_overlay(overlay),
        "high bit.dcm": lambda _: dicom(twelve << 4, stored=12, HighBit=15),
        "big endian.dcm": lambda _: dicom(twelve, stored=12, syntax=ExplicitVRBigEndian),
        "deflated.dcm": lambda _: dicom(twelve, stored=12, syntax=DeflatedExplicitVRLittleEndian),
        "implicit.dcm": lambda _: dicom(twelve, stored=12, syntax=ImplicitVRLittleEndian),
        "rle.dcm": lambda _: dicom(twelve, stored=12, syntax=RLELossless),
        "colour.dcm": lambda _: dicom(same, stored=8, **colour),
        "no suffix": lambda _: dicom(twelve, stored=12),
        "siemens.IMA": lambda _: dicom(twelve, stored=12),
        "1.2.840.113619.2": lambda _: dicom(twelve, stored=12),
        "1.2.840.113619.3": lambda _: dicom(twelve, stored=12),
        "no uids.dcm": lambda _: dicom(twelve, stored=12, without=uids),
        "no syntax.dcm": lambda _: dicom(twelve, stored=12, without=("TransferSyntaxUID",)),
        "no mark.dcm": lambda _: dicom(twelve, stored=12, preamble=False),
        "no bits stored.dcm": lambda _: dicom(twelve, stored=12, without=("BitsStored", "HighBit")),
    }
    kinds = {
        "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
        "jpeg lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    for name, kind in kinds.items():
        for bits in (8, 12, 16):
            pixels = eight if bits == 8 else levels(bits)
            ways[f"{name} {bits}.dcm"] = lambda folder, p=pixels, k=kind, b=bits: compressed(p, k, folder, stored=b)
        ways[f"{name} 12 in 16.dcm"] = lambda folder, k=kind: compressed(twelve, k, folder, stored=16)
        ways[f"{name} signed.dcm"] = lambda folder, k=kind: compressed(signed, k, folder, stored=12)
        ways[f"{name} monochrome1.dcm"] = lambda folder, k=kind: compressed(4095 - twelve, k, folder, stored=12, **one)
    for bits, stored in ((8, 8), (12, 12), (16, 16), (12, 16)):
        ways[f"jpeg 2000 {bits} in {stored}.dcm"] = lambda _, b=bits, s=stored: jpeg_2000(levels(b), stored=s)
    ways["jpeg 2000 monochrome1.dcm"] = lambda _: jpeg_2000(65535 - full, stored=16, **one)
    return ways


def with_overlay(pixels: np.ndarray) -> bytes:
    """A DICOM file with an overlay in bit 13 of its pixels of 12 bits."""
    header = dcmread(io.BytesIO(dicom(pixels, stored=12)))
    header.add_new((0x6000, 0x0100), "US", 16)
    header.add_new((0x6000, 0x0102), "US", 13)
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def other_ways() -> dict[str, Callable[[Path], bytes]]:
    """Ways to write the picture as PNG, TIFF, JPEG 2000, BMP and PGM, by the file's name."""
    eight, twelve, full = picture(), levels(12), levels(16)
    grey = Image.fromarray(eight)
    opaque = Image.fromarray(np.full_like(eight, 255))
    return {
        "8.png": lambda _: pillow(grey, "PNG"),
        "16.png": lambda _: pillow(Image.fromarray(full), "PNG"),
        "10 in 16.png": lambda _: pillow(Image.fromarray(levels(10)), "PNG"),
        "12 in 16.png": lambda _: pillow(Image.fromarray(twelve), "PNG"),
        "rgb.png": lambda _: pillow(grey.convert("RGB"), "PNG"),
        "rgba.png": lambda _: pillow(Image.merge("RGBA", [grey, grey, grey, opaque]), "PNG"),
        "grey alpha.png": lambda _: pillow(Image.merge("LA", [grey, opaque]), "PNG"),
        "palette.png": lambda _: pillow(palette(eight), "PNG"),
        "UPPER.PNG": lambda _: pillow(grey, "PNG"),
        "no suffix png": lambda _: pillow(grey, "PNG"),
        "8.tif": lambda _: pillow(grey, "TIFF"),
        "8 white is zero.tif": lambda _: pillow(grey, "TIFF", tiffinfo=inverted_tag()),
        "rgb.tif": lambda _: pillow(grey.convert("RGB"), "TIFF", compression="tiff_lzw"),
        "16 little.tif": lambda _: tiff(full, "<"),
        "16 big.tif": lambda _: tiff(full, ">"),
        "12 in 16 little.tif": lambda _: tiff(twelve, "<"),
        "12 in 16 big.tif": lambda _: tiff(twelve, ">"),
        "16 white is zero.tif": lambda _: tiff(65535 - full, "<", True),
        "16 big white is zero.tif": lambda _: tiff(65535 - full, ">", True),
        "32 of 12.tif": lambda _: pillow(Image.fromarray(twelve.astype(np.int32)), "TIFF"),
        "float of 12.tif": lambda _: pillow(Image.fromarray(twelve.astype(np.float32)), "TIFF"),
        "8.pgm": lambda _: pgm(eight, 255),
        "12.pgm": lambda _: pgm(twelve, 4095),
        "12 in 16.pgm": lambda _: pgm(twelve, 65535),
        "16.pgm": lambda _: pgm(full, 65535),
        "8.bmp": lambda _: pillow(grey, "BMP"),
        "8.jp2": lambda _: pillow(grey, "JPEG2000", irreversible=False),
    }


def palette(grey: np.ndarray) -> Image.Image:
    """The picture by a palette that begins with white."""
    image = Image.frombytes("P", grey.shape[::-1], (255 - grey).tobytes())
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    return image
