"""The NBIA REST API v4, which serves TCIA: what a collection holds, and one series at a time.

Source of the calls: `getSeries` and `getImageWithMD5Hash` of the NBIA server. `api_url` ends in `/services/v4`, with or
without a slash.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import requests

from miram.data.dicom import DicomError, read_film
from miram.data.http import Fault, Http, beginning
from miram.data.receipt import write_receipt
from miram.data.unpack import unpack

LONGEST_LIST_BYTES = 100_000_000


class Series(NamedTuple):
    """A series as the archive announces it: its SeriesInstanceUID, its number of images, their size together."""

    uid: str
    images: int
    bytes: int


def list_series(http: Http, api_url: str, collection: str) -> dict[str, Series]:
    """All series of a collection by UID. Raises Fault when the answer is not such a list, or an empty one."""

    def read(response: requests.Response) -> dict[str, Series]:
        body = b"".join(http.chunks(response, LONGEST_LIST_BYTES))
        try:
            rows = json.loads(body)
            series = [Series(row["SeriesInstanceUID"], int(row["ImageCount"]), int(row["FileSize"])) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise Fault(f"no list of series but {beginning(body)!r} ({type(error).__name__}: {error})") from error
        if not series:
            raise Fault(f"the archive knows no series of collection {collection!r}", lasting=True)
        return {one.uid: one for one in series}

    return http.get(_call(api_url, "getSeries"), {"Collection": collection, "format": "json"}, read)


def fetch_series(http: Http, api_url: str, series: Series, folder: Path) -> None:
    """Fetch a series into the new folder `folder`: its verified DICOM files and their receipt, and nothing else.

    Raises Fault when no try brought a complete and correct zip, OSError when the disk does not take it.
    """

    def read(response: requests.Response) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a try before
        # Zips of DICOM are never much longer than what is in them; twice the size and a margin bounds both.
        limit_bytes = 2 * series.bytes + (1 << 20)
        body = folder.with_name(folder.name + ".zip")
        with open(body, "wb") as stream:
            for chunk in http.chunks(response, limit_bytes):
                stream.write(chunk)
        _require_zip(body, response.headers.get("Content-Type", "no type"))
        items = unpack(body, folder, images=series.images, limit_bytes=limit_bytes)
        for item in items:
            _require_series(folder / item.file, series.uid)
        write_receipt(folder, items)

    http.get(_call(api_url, "getImageWithMD5Hash"), {"SeriesInstanceUID": series.uid}, read)


def _call(api_url: str, name: str) -> str:
    return f"{api_url.rstrip('/')}/{name}"


def _require_zip(body: Path, content_type: str) -> None:
    with open(body, "rb") as stream:
        start = stream.read(200)
    if not start.startswith(b"PK"):
        raise Fault(f"no zip but {content_type}, which begins with {beginning(start)!r}")


def _require_series(path: Path, uid: str) -> None:
    """A file that is no image lies so in the archive; its reader will say so. A wrong series is a fault."""
    try:
        found = read_film(path).series_uid
    except DicomError:
        return
    if found != uid:
        raise Fault(f"{path.name} belongs to series {found}, which was not asked for")
