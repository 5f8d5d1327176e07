"""The phantom archive on loopback, with those calls of the NBIA REST API v4 that downloads from TCIA use.

Like the real server it streams zips without their length, and answers 400 to unknown calls.
"""

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from miram.errors import MiramError

COLLECTION = "CBIS-DDSM"
API, UPLOADS = "/nbia-api/services/v4/", "/uploads/"
LICENSE_NAME, LICENSE_URI = "CC BY 3.0", "http://creativecommons.org/licenses/by/3.0/"
TAGS = ("PatientID", "StudyInstanceUID", "SeriesDescription", "Modality")  # of a series, in addition to its UID
FILTERS = {"Collection", "SeriesInstanceUID", "PatientID", "StudyInstanceUID", "Modality"}  # of getSeries
POSTED_NAMES = {  # of the columns of getSeriesMetadata that differ from those of getSeries
    "SeriesInstanceUID": "Series Instance UID",
    "PatientID": "Patient ID",
    "StudyInstanceUID": "Study Instance UID",
    "SeriesDescription": "Series Description",
    "ImageCount": "Image Count",
    "FileSize": "File Size",
    "LicenseName": "License Name",
    "LicenseURI": "License URI",
}
MEMBER_DATE = (2016, 1, 1, 0, 0, 0)  # the same zip for the same series
CHUNK_BYTES = 1 << 16


@contextmanager
def running(archive: Path, port: int = 0) -> Iterator[tuple[str, str]]:
    """Serve `archive` while the block runs; yields the addresses of API and case lists. Port 0: any free one."""
    server = _server(archive, port)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield _addresses(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve(archive: Path, port: int) -> None:
    """Serve `archive` until interrupted, and print the address."""
    with _server(archive, port) as server:
        print(
            *(f"{name}: {url}" for name, url in zip(("api_url", "csv_url"), _addresses(server), strict=True)), sep="\n"
        )
        print("Stop with Ctrl-C.", flush=True)
        server.serve_forever()


def _server(archive: Path, port: int) -> "ArchiveServer":
    try:
        return ArchiveServer(archive, port)
    except (OSError, OverflowError) as error:
        raise MiramError(
            f"Port {port} of this machine cannot be listened on: {error}", "Choose another port, or 0 for any free one."
        ) from error


def _addresses(server: ThreadingHTTPServer) -> tuple[str, str]:
    base = f"http://127.0.0.1:{server.server_address[1]}"
    return base + API, base + UPLOADS


class Handler(BaseHTTPRequestHandler):
    """One request, answered from the folder `server.archive`."""

    server: "ArchiveServer"
    protocol_version = "HTTP/1.1"
    server_version = "miram-phantom"

    def do_GET(self) -> None:
        """A call of the API, a case list, or the manifest."""
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        calls = {
            "getCollectionValues": self._get_collections,
            "getSeries": self._get_series,
            "getImage": lambda query: self._get_image(query, hashes=False),
            "getImageWithMD5Hash": lambda query: self._get_image(query, hashes=True),
        }
        name = address.path.removeprefix(API)
        if address.path.startswith(API) and name in calls:
            calls[name](query)
        elif address.path.startswith(UPLOADS):
            self._upload(address.path.removeprefix(UPLOADS))
        else:
            self._answer(404, "text/html", b"<html>Not Found</html>")

    def do_POST(self) -> None:
        """The one POST call: metadata of a list of series, as CSV."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if urlsplit(self.path).path != f"{API}getSeriesMetadata":
            self._answer(404, "text/html", b"<html>Not Found</html>")
            return
        uids = parse_qs(body).get("list", [""])[-1].split(",")
        rows = [self._metadata(folder) for folder in map(self._folder, uids) if folder]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else list(POSTED_NAMES.values()))
        writer.writeheader()
        writer.writerows(rows)
        self._answer(200, "text/csv", text.getvalue().encode())

    def log_message(self, format: str, *values: object) -> None:
        """No log: the client reports its work."""

    def _get_collections(self, query: dict[str, str]) -> None:
        self._answer_json(query, set(), lambda: [{"Collection": COLLECTION}])

    def _get_series(self, query: dict[str, str]) -> None:
        wanted = {name: query[name] for name in FILTERS & query.keys()}

        def find() -> list[dict[str, object]]:
            rows = map(self._series, sorted((self.server.archive / "series").iterdir()))
            return [row for row in rows if wanted.items() <= row.items()]

        self._answer_json(query, FILTERS, find)

    def _get_image(self, query: dict[str, str], hashes: bool) -> None:
        folder = self._folder(query.get("SeriesInstanceUID", ""))
        if folder is None:
            self._answer(400, "text/plain", b"SeriesInstanceUID is missing or unknown")
            return
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        if hashes:
            sums = [f"{name},{hashlib.md5(content).hexdigest()}" for name, content in files.items()]
            extra = {"md5hashes.csv": "\n".join(["Filename,MD5Hash", *sums, ""]).encode()}
        else:
            extra = {"LICENSE": f"{LICENSE_NAME} {LICENSE_URI}\n".encode()}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for name, data in (files | extra).items():
                archive.writestr(zipfile.ZipInfo(name, MEMBER_DATE), data)
        self._stream("application/zip", content.getvalue())

    def _upload(self, name: str) -> None:
        path = self.server.archive / "csv" / name
        if "/" in name or not path.is_file():
            self._answer(404, "text/html", b"<html>Not Found</html>")
            return
        self._answer(200, "text/csv", path.read_bytes())

    def _folder(self, uid: str) -> Path | None:
        folder = self.server.archive / "series" / uid
        return folder if re.fullmatch(r"[0-9.]*[0-9]", uid) and folder.is_dir() else None

    def _series(self, folder: Path) -> dict[str, object]:
        files = sorted(folder.iterdir())
        try:
            header: Dataset = dcmread(files[0], stop_before_pixels=True, specific_tags=list(TAGS))
        except InvalidDicomError:  # listed all the same: the client should find files that are damaged in the archive
            header = Dataset()
        return {
            "SeriesInstanceUID": folder.name,
            "Collection": COLLECTION,
            **{tag: str(header.get(tag, "")) for tag in TAGS},
            "ImageCount": len(files),
            "FileSize": sum(file.stat().st_size for file in files),
            "LicenseName": LICENSE_NAME,
            "LicenseURI": LICENSE_URI,
        }

    def _metadata(self, folder: Path) -> dict[str, object]:
        row = self._series(folder)
        return {POSTED_NAMES.get(name, name): value for name, value in row.items()}

    def _answer_json(self, query: dict[str, str], known: set[str], find: Callable[[], list[dict[str, object]]]) -> None:
        unknown = query.keys() - known - {"format"}
        if unknown or query.get("format", "json") != "json":
            self._answer(400, "text/plain", f"Unknown parameter: {', '.join(sorted(unknown)) or 'format'}".encode())
        else:
            self._answer(200, "application/json", json.dumps(find()).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, kind: str, body: bytes) -> None:
        """Chunked, like the real server: the client does not learn the length of the body."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), CHUNK_BYTES):
            chunk = body[start : start + CHUNK_BYTES]
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


class ArchiveServer(ThreadingHTTPServer):
    """A server for the archive in a folder."""

    daemon_threads = True

    def __init__(self, archive: Path, port: int) -> None:
        self.archive = Path(archive)
        super().__init__(("127.0.0.1", port), Handler)
