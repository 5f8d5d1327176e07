"""The tiny archive as the Imaging Data Commons has it: a bucket with the S3 API, and its index as in the wheel."""

import hashlib
import threading
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
from tiny_archive import Archive, Misbehave, linger

SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def folder_of(uid: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, uid))


def write_index(archive: Archive, path: Path, collection: str = "cbis_ddsm") -> None:
    rows = [
        {
            "collection_id": collection,
            "SeriesInstanceUID": uid,
            "crdc_series_uuid": folder_of(uid),
            "instanceCount": len(files),
            "series_size_MB": sum(map(len, files.values())) / 1e6,
        }
        for uid, files in archive.series.items()
    ]
    other = rows[0] | {"collection_id": "another", "SeriesInstanceUID": "9.9.9"}
    pq.write_table(pa.Table.from_pylist([*rows, other]), path)


class Bucket:
    """Serves an archive as a bucket on loopback, ranges included.

    `faults[kind, uid]`, of kind "list" or "file": what the next requests of the kind get for a series.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.faults: dict[tuple[str, str], list[Misbehave]] = {}
        self.asked = 0
        self.sent: Counter[str] = Counter()  # bytes of each series
        self.multipart: set[str] = set()  # series whose ETags are no MD5
        self.out: Misbehave | None = None  # what every request gets
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                bucket.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/bucket"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        linger()
        self.asked += 1
        if self.out:
            self.out(handler, {})
            return
        address = urlsplit(handler.path)
        query = parse_qs(address.query)
        folder, _, name = address.path.removeprefix("/bucket/").partition("/")
        folder = folder or query["prefix"][0].rstrip("/")
        uid = next(uid for uid in self.archive.series if folder_of(uid) == folder)
        files = self.archive.series[uid]
        faults = self.faults.get(("file" if name else "list", uid))
        if faults:
            faults.pop(0)(handler, files)
        elif name:
            self._object(handler, uid, files[name])
        else:
            entries = "".join(self._entry(uid, f"{folder}/{name}", body) for name, body in files.items())
            send(handler, f'<ListBucketResult xmlns="{SPACE}">{entries}</ListBucketResult>'.encode())

    def _entry(self, uid: str, key: str, body: bytes) -> str:
        etag = hashlib.md5(body).hexdigest() + ("-2" if uid in self.multipart else "")
        return f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag><Size>{len(body)}</Size></Contents>"

    def _object(self, handler: BaseHTTPRequestHandler, uid: str, body: bytes) -> None:
        span = handler.headers.get("Range")
        if span is None:
            self.sent[uid] += len(body)
            send(handler, body)
            return
        start, end = map(int, span.removeprefix("bytes=").split("-"))
        part = body[start : end + 1]
        self.sent[uid] += len(part)
        send(handler, part, 206, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(body)}")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Answer with a Content-Length, as S3 does."""
    handler.send_response(status)
    for name, value in {**headers, "Content_Length": str(len(body))}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def idc(bucket: Bucket, folder: Path, films: str = "whole") -> dict[str, object]:
    lists = folder / "lists"
    lists.mkdir(exist_ok=True)
    for name, body in bucket.archive.case_lists().items():
        (lists / name).write_bytes(body)
    settings = {"collection": "cbis_ddsm", "bucket_urls": [bucket.url], "csv_url": str(lists), "films": films}
    return {"source": "idc", "settings": settings}
