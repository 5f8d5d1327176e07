"""Serves the real case lists with tiny pixels for each of their series; run as a script, it prints its address.

GET /asked gives how often each path was asked for; GET /plain gives a series without counting it.
"""

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
from tiny_archive import dicom_bytes, mask_of, zip_bytes

from miram.data.case_lists import read_lesions
from miram.layout import CASE_CSVS

SHAPE = (24, 20)


def tiny_series(csv_dir: Path) -> dict[str, dict[str, np.ndarray]]:
    """The images of each series that the case lists name, by file name."""
    film, mask = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE), mask_of(SHAPE, (5, 5, 15, 12))
    series: dict[str, dict[str, np.ndarray]] = {}
    for lesion in read_lesions(csv_dir).itertuples():
        series[lesion.film_uid] = {"1-1.dcm": film}
        series.setdefault(lesion.crop_uid, {})["1-1.dcm"] = film[:7, :7]
        series.setdefault(lesion.mask_uid, {})["1-2.dcm"] = mask
    return series


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        uid = parse_qs(address.query).get("SeriesInstanceUID", [""])[0]
        name = address.path.rsplit("/", 1)[-1]
        if name == "asked":
            self._send(json.dumps(self.server.asked).encode())
            return
        if name != "plain":
            self.server.asked[uid or name] += 1
        self._send(self.server.bodies[uid or name])

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main(csv_dir: Path) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = Counter()
    server.bodies = {name: (csv_dir / name).read_bytes() for name in CASE_CSVS}
    listing = []
    for uid, images in tiny_series(csv_dir).items():
        files = {name: dicom_bytes(pixels, uid) for name, pixels in images.items()}
        server.bodies[uid] = zip_bytes(files)
        size = sum(map(len, files.values()))
        listing.append({"SeriesInstanceUID": uid, "ImageCount": len(files), "FileSize": size})
    server.bodies["getSeries"] = json.dumps(listing).encode()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
