"""TCIA by the NBIA REST API v4: the series of a collection, and one series at a time as a zip with MD5s.

Source of the calls: `getSeries` and `getImageWithMD5Hash` of the NBIA server. `api_url` ends in `/services/v4`, with or
without a slash.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import requests

from miram.data.transfer.http import Fault, Http, beginning
from miram.data.transfer.receipt import read_uids, write_receipt
from miram.data.transfer.sources.series import Fetched, OpenFilm, Series
from miram.data.transfer.unpack import unpack

LONGEST_LIST_BYTES = 100_000_000
BODY = "body.zip"  # for a moment in addition to its files


class Tcia:
    """A collection of an NBIA server; films are fetched whole."""

    origin = "tcia"
    read_rows: Callable[[Series, Path], OpenFilm] | None = None

    def __init__(self, http: Http, *, collection: str, api_url: str) -> None:
        self._http = http
        self._collection = collection
        self._api_url = api_url.rstrip("/")

    def ask(self) -> None:
        """Ask for the names of all collections; raises Fault unless the answer contains this one."""

        def read(response: requests.Response) -> None:
            body = b"".join(self._http.chunks(response, LONGEST_LIST_BYTES))
            try:
                names = {row["Collection"] for row in json.loads(body)}
            except (ValueError, KeyError, TypeError) as error:
                raise Fault(f"no list of collections but {beginning(body)!r}") from error
            if self._collection not in names:
                raise Fault(f"the archive has no collection {self._collection!r}", lasting=True)

        self._http.get(f"{self._api_url}/getCollectionValues", {}, read)

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the collection has.

        A list can be valid but short: series missing from it are requested one by one before they count as absent.
        """
        listed = self._get_series({"Collection": self._collection})
        if not listed:
            raise Fault(f"the archive has no series of collection {self._collection!r}", lasting=True)
        found = {}
        for uid in uids:
            one = listed.get(uid) or self._get_series({"SeriesInstanceUID": uid}).get(uid)
            if one is not None:
                found[uid] = one
        return found

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Fetch the zip of a series and unpack it with verification; see `Source`."""

        def read(response: requests.Response) -> Fetched:
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
            folder.mkdir()
            # Zips of DICOM are never much longer than their content; twice the size plus a margin bounds both.
            limit_bytes = 2 * series.bytes + (1 << 20)
            body = folder / BODY
            with open(body, "wb") as stream:
                for chunk in self._http.chunks(response, limit_bytes):
                    stream.write(chunk)
            _require_zip(body, response.headers.get("Content-Type", "no type"))
            items = unpack(body, folder, images=series.images, limit_bytes=limit_bytes)
            body.unlink()
            items = [item._replace(sop_uid=require_series(folder / item.file, series.uid)) for item in items]
            write_receipt(folder, items)
            return Fetched(self.origin, items)

        return self._http.get(f"{self._api_url}/getImageWithMD5Hash", {"SeriesInstanceUID": series.uid}, read)

    def _get_series(self, query: dict[str, str]) -> dict[str, Series]:
        def read(response: requests.Response) -> dict[str, Series]:
            body = b"".join(self._http.chunks(response, LONGEST_LIST_BYTES))
            try:
                rows = json.loads(body or b"[]")  # the real server sends an empty answer if it has nothing
                return {
                    row["SeriesInstanceUID"]: Series(
                        row["SeriesInstanceUID"], int(row["ImageCount"]), int(row["FileSize"])
                    )
                    for row in rows
                }
            except (ValueError, KeyError, TypeError) as error:
                raise Fault(f"no list of series but {beginning(body)!r} ({type(error).__name__}: {error})") from error

        return self._http.get(f"{self._api_url}/getSeries", {**query, "format": "json"}, read)


def require_series(path: Path, uid: str) -> str:
    """The SOPInstanceUID of a file of series `uid`; Fault when it belongs to another one.

    A file that is not DICOM is so in the archive and has none; reading it later reports that.
    """
    found = read_uids(path)
    if found is None:
        return ""
    if found.series != uid:
        raise Fault(f"{path.name} belongs to series {found.series}, which was not requested")
    return found.sop


def _require_zip(body: Path, content_type: str) -> None:
    with open(body, "rb") as stream:
        start = stream.read(200)
    if not start.startswith(b"PK"):
        raise Fault(f"no zip but {content_type}, which begins with {beginning(start)!r}")
