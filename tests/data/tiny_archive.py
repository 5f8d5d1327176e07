"""A tiny archive in the form of CBIS-DDSM, and a server that serves it as the NBIA API does, faults included."""

import csv
import hashlib
import io
import itertools
import json
import os
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

FILM_SHAPE = (120, 100)
SPACED = ["patient_id", "breast density", "left or right breast", "image view", "abnormality id", "abnormality type"]
MASS = [*SPACED, "mass shape", "mass margins"]
CALC = [*SPACED, "calc type", "calc distribution"]
TAIL = ["assessment", "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path"]


def dicom_bytes(pixels: np.ndarray | None, series_uid: str, syntax: str = ImplicitVRLittleEndian) -> bytes:
    """A Secondary Capture instance of `pixels` (uint8 or uint16); without pixel data for None."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(None if pixels is None else pixels.dtype)])
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = syntax
    header.SeriesInstanceUID = series_uid
    if pixels is not None:
        header.Rows, header.Columns = pixels.shape
        header.BitsAllocated = header.BitsStored = 8 * pixels.itemsize
        header.HighBit = header.BitsStored - 1
        header.PixelRepresentation = 0
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.PixelData = pixels.tobytes()
        header["PixelData"].VR = "OW"
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def mask_of(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask, 255 inside the half-open boxes (y0, x0, y1, x1)."""
    mask = np.zeros(shape, np.uint8)
    for y0, x0, y1, x1 in boxes:
        mask[y0:y1, x0:x1] = 255
    return mask


@dataclass
class Archive:
    """Series (uid -> file name -> bytes) and the rows of the four case lists."""

    series: dict[str, dict[str, bytes]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def film(self, number: int, pixels: np.ndarray | None = None) -> str:
        """Add film `number`, random pixels by default, and return its UID."""
        uid = f"1.2.3.{number}"
        if pixels is None:
            pixels = np.random.default_rng(number).integers(0, 1 << 16, FILM_SHAPE, np.uint16)
        self.series[uid] = {"1-1.dcm": dicom_bytes(pixels, uid)}
        return uid

    def lesion(
        self,
        number: int,
        film_uid: str,
        mask: np.ndarray | None,
        *,
        kind="mass",
        part="train",
        patient=None,
        **values: str,
    ) -> str:
        """Add a lesion with mask and crop in series 1.2.4.`number`; `values` replace its row's. Return its id."""
        uid = f"1.2.4.{number}"
        crop = np.full((9, 9), number, np.uint16)
        self.series[uid] = {"1-1.dcm": dicom_bytes(crop, uid)}
        if mask is not None:
            self.series[uid]["1-2.dcm"] = dicom_bytes(mask, uid)
        patient = patient or f"P_{number:05d}"
        row = {
            "patient_id": patient,
            "breast density": "3",
            "left or right breast": "LEFT",
            "image view": "CC",
            "abnormality id": "1",
            "abnormality type": "mass" if kind == "mass" else "calcification",
            "mass shape": "OVAL",
            "mass margins": "",
            "calc type": "PLEOMORPHIC",
            "calc distribution": "",
            "assessment": "4",
            "pathology": "MALIGNANT",
            "subtlety": "5",
            "image file path": f"folder/9.9/{film_uid}/000000.dcm",
            "cropped image file path": f"folder/9.9/{uid}/000000.dcm",
            "ROI mask file path": f"folder/9.9/{uid}/000001.dcm\n",
        } | values
        self.rows.setdefault(f"{kind}_case_description_{part}_set.csv", []).append(row)
        return f"{kind.capitalize()}-{'Training' if part == 'train' else 'Test'}_{patient}_LEFT_CC_1"

    def case_lists(self) -> dict[str, bytes]:
        """The four lists; those of masses say breast_density where the others say breast density."""
        lists = {}
        for kind, columns in (("mass", MASS), ("calc", CALC)):
            for part in ("train", "test"):
                name = f"{kind}_case_description_{part}_set.csv"
                stream = io.StringIO()
                header = [column.replace("t d", "t_d") if kind == "mass" else column for column in [*columns, *TAIL]]
                writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                for row in self.rows.get(name, []):
                    writer.writerow(
                        {column: row[column.replace("breast_density", "breast density")] for column in header}
                    )
                lists[name] = stream.getvalue().encode()
        return lists

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Lay the archive out as the download would, and return its folders of case lists and of DICOM."""
        (folder / "csv").mkdir(parents=True)
        for name, body in self.case_lists().items():
            (folder / "csv" / name).write_bytes(body)
        for uid, files in self.series.items():
            (folder / "dicom" / uid).mkdir(parents=True)
            for name, body in files.items():
                (folder / "dicom" / uid / name).write_bytes(body)
        return folder / "csv", folder / "dicom"


def zip_bytes(files: dict[str, bytes], hashes: dict[str, bytes] | None = None) -> bytes:
    """The zip of getImageWithMD5Hash; `hashes`: the files whose MD5s it lists, by default its own."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
        lines = [f"{name},{hashlib.md5(body).hexdigest()}\n" for name, body in (hashes or files).items()]
        archive.writestr("md5hashes.csv", "Filename,MD5Hash\n" + "".join(reversed(lines)))
    return stream.getvalue()


LATE = os.environ.get("MIRAM_TEST_LATE")  # "10,0.5": every tenth answer of all servers comes 0.5 s late
answers = itertools.count(1)


def linger() -> None:
    """Wait, where this answer is one of those that shall come late; the servers of tests call it for each request."""
    if LATE:
        every, seconds = LATE.split(",")
        if next(answers) % int(every) == 0:
            time.sleep(float(seconds))


Misbehave = Callable[[BaseHTTPRequestHandler, dict[str, bytes]], None]


class Server:
    """Serves an archive on loopback; `faults[uid]` are what the next requests for a series get instead of it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.faults: dict[str, list[Misbehave]] = {}
        self.asked: Counter[str] = Counter()
        self.unlisted: set[str] = set()  # what the archive does not have
        self.left_out: set[str] = set()  # what its list of the collection lacks, though it has it
        self.out: Misbehave | None = None  # what every call of the API gets, but no case list
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        linger()
        path, query = urlsplit(handler.path).path, parse_qs(urlsplit(handler.path).query)
        call = path.rsplit("/", 1)[-1]
        named = query.get("SeriesInstanceUID")
        uid = named[0] if named else call
        self.asked[f"{call} {uid}" if named and call == "getSeries" else uid] += 1
        files = self.archive.series.get(uid, {})
        if "//" in path:
            send(handler, b"", 404)
        elif self.out and "/services/" in path:
            self.out(handler, files)
        elif self.faults.get(uid):
            self.faults[uid].pop(0)(handler, files)
        elif call == "getSeries" and named:
            found = [row for row in self.listing(left_out=set()) if row["SeriesInstanceUID"] == uid]
            send(handler, json.dumps(found).encode() if found else b"")
        elif call == "getSeries":
            send(handler, json.dumps(self.listing(self.left_out)).encode())
        elif call == "getCollectionValues":
            send(handler, b'[{"Collection": "ANOTHER"}, {"Collection": "CBIS-DDSM"}]')
        elif call == "getImageWithMD5Hash":
            send(handler, zip_bytes(files))
        else:
            send(handler, self.archive.case_lists()[call])

    def listing(self, left_out: set[str]) -> list[dict[str, object]]:
        return [
            {"SeriesInstanceUID": uid, "ImageCount": len(files), "FileSize": sum(map(len, files.values()))}
            for uid, files in self.archive.series.items()
            if uid not in self.unlisted | left_out
        ]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Answer without Content-Length, as the real server does: the body ends where the connection does."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
