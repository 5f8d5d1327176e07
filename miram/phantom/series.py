"""DICOM series of the phantom archive, in the form of CBIS-DDSM."""

import hashlib
import io
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from miram.files import atomic_path
from miram.phantom.cases import NO_PREFIX, Case


class SeriesWriter:
    """Writes series as DICOM and keeps count: their UIDs, bytes, and a digest of all files."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.uids: list[str] = []
        self.bytes = 0
        self.digest = hashlib.sha256()

    def uid(self, *words: object) -> str:
        """A UID made from words and the seed (root 2.25, DICOM PS3.5 B.2)."""
        text = "/".join(map(str, ("miram phantom", self.seed, *words)))
        return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}"

    def write(self, images: list[np.ndarray], case: Case, name: str, description: str) -> str:
        """Write a series of images, uint8 or uint16 (H, W); returns its SeriesInstanceUID."""
        uid = self.uid("series", name, description)
        patient_id = name.split("_", 1)[1] if case.has(NO_PREFIX) else name
        for number, pixels in enumerate(images, start=1):
            header = _header(pixels, UID(self.uid("image", uid, number)))
            header.SeriesInstanceUID, header.StudyInstanceUID = uid, self.uid("study", name)
            header.PatientID = header.PatientName = patient_id
            header.SeriesDescription, header.PatientOrientation = description, case.view
            header.BodyPartExamined, header.Modality = "BREAST", "MG"
            header.Laterality = case.patient.side[0]
            header.InstanceNumber = 1  # of the mask and of the crop alike
            stream = io.BytesIO()
            header.save_as(stream, enforce_file_format=True)
            content = stream.getvalue()
            with atomic_path(self.folder / uid / f"1-{number}.dcm") as temporary:
                temporary.write_bytes(content)
            self.bytes += len(content)
            self.digest.update(content)
        self.uids.append(uid)
        return uid


def _header(pixels: np.ndarray, instance: UID) -> Dataset:
    """A Secondary Capture image as in CBIS-DDSM: Implicit VR little endian, MONOCHROME2, unsigned."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = instance
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    header.ConversionType = "WSD"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
    content = pixels.tobytes()
    header.PixelData = content + bytes(len(content) % 2)  # an even length, DICOM PS3.5 8.1.1
    header["PixelData"].VR = "OW"
    return header
