"""The Imaging Data Commons: a public bucket of DICOM files, listed by the index in its pinned wheel.

A series is the folder `crdc_series_uuid` of the bucket. The wheel idc-index-data gives UIDs, numbers of files and sizes
to the byte, without a request; the bucket gives each file's size and, as its ETag, mostly its MD5 (Amazon S3 API
reference, ListObjectsV2 and Object). Any server with that API works: each of `bucket_urls` is the address of a server
and its bucket, with the same files. They are tried in order.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast
from xml.etree import ElementTree

import idc_index_data
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import requests

from miram.data.case_lists import CROP_UIDS, read_lesions
from miram.data.dicom import DicomError, Film, open_pixels, read_film
from miram.data.transfer.http import Fault, Http, beginning
from miram.data.transfer.receipt import Item, hash_file, write_receipt
from miram.data.transfer.sources.series import Fetched, OpenFilm, Series
from miram.data.transfer.sources.tcia import require_series
from miram.data.transfer.unpack import PLAIN_DICOM_NAME

T = TypeVar("T")
COLUMNS = ["collection_id", "SeriesInstanceUID", "crdc_series_uuid", "instanceCount", "series_size_MB"]
BATCH_ROWS = 50_000  # of the index's million series: all at once need half a GB
LONGEST_LIST_BYTES = 10_000_000
HEADER_BYTES = 1 << 16  # enough for a film's header, which ends where its pixels begin
ROWS_AT_A_TIME = 16  # single rows requested in parallel: each costs one round trip
PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of a file that was uploaded in parts is none


class Entry(NamedTuple):
    """A series in the index, and the folder of the bucket that holds it."""

    series: Series
    folder: str


class Object(NamedTuple):
    """A file of the bucket; `md5` is empty if the bucket does not give it."""

    name: str
    bytes: int
    md5: str


class Idc:
    """A collection of the Imaging Data Commons; optionally only the rows of a film that are read."""

    origin = "idc"

    def __init__(self, http: Http, *, collection: str, bucket_urls: list[str], films: Literal["rows", "whole"]) -> None:
        self._http = http
        self._bucket_urls = [url.rstrip("/") for url in bucket_urls]  # the last one that answered comes first
        self._entries = read_index(collection)
        self._pool = ThreadPoolExecutor(ROWS_AT_A_TIME)
        self.read_rows: Callable[[Series, Path], OpenFilm] | None = self._read_rows if films == "rows" else None

    def ask(self) -> dict[str, Fault | None]:
        """Ask each bucket for the files of a series: None if it answers correctly, else its Fault."""
        series = next(iter(self._entries.values())).series
        answers: dict[str, Fault | None] = {}
        for url in self._bucket_urls:
            try:
                self._http.get(f"{url}/", self._list_query(series), self._list_reader(series))
                answers[url] = None
            except Fault as fault:
                answers[url] = fault
        return answers

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the index has."""
        return {uid: self._entries[uid].series for uid in uids if uid in self._entries}

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Fetch every file of a series; see `Source`."""
        objects = self._list(series)
        folder.mkdir()
        items = [self._fetch(series.uid, one, folder) for one in objects]
        write_receipt(folder, items)
        return Fetched(self.origin, items)

    def _read_rows(self, series: Series, folder: Path) -> OpenFilm:
        objects = self._list(series)
        folder.mkdir()
        film = self._read_header(series.uid, objects[0], folder) if len(objects) == 1 else None
        if film is None or film.offset is None:  # compressed, or not usable and set aside later
            for one in objects:
                self._fetch(series.uid, one, folder)
            return open_pixels
        path = self._path(series.uid, objects[0])
        pixels = RemotePixels(film, film.offset, lambda start, end: self._bytes(path, start, end), self._pool)
        return lambda _: cast(np.ndarray, pixels)  # used like an array: shape, dtype, slices

    def _read_header(self, uid: str, one: Object, folder: Path) -> Film | None:
        """The facts of a film, of which only the header is put into `folder`; None if it is not usable."""
        header = self._bytes(self._path(uid, one), 0, min(HEADER_BYTES, one.bytes))
        path = folder / one.name
        with open(path, "wb") as stream:
            stream.write(header)
            stream.truncate(one.bytes)  # sparse: as long as the film, with almost nothing on disk
        require_series(path, uid)
        try:
            return read_film(path)
        except DicomError:
            return None

    def _bytes(self, path: str, start: int, end: int) -> bytes:
        def read(response: requests.Response) -> bytes:
            body = b"".join(self._http.chunks(response, end - start))
            if len(body) != end - start:
                raise Fault(f"{len(body)} of {end - start} bytes came")
            return body

        return self._get(path, {}, read, (start, end))

    def _fetch(self, uid: str, one: Object, folder: Path) -> Item:
        path = folder / one.name

        def read(response: requests.Response) -> Item:
            with open(path, "wb") as stream:
                for chunk in self._http.chunks(response, one.bytes):
                    stream.write(chunk)
            length, md5, sha256 = hash_file(path)
            if length != one.bytes or (one.md5 and md5 != one.md5):
                raise Fault(f"{one.name} has {length} bytes with MD5 {md5}, not {one.bytes} with {one.md5 or 'any'}")
            return Item(one.name, length, md5, sha256, require_series(path, uid))

        return self._get(self._path(uid, one), {}, read)

    def _path(self, uid: str, one: Object) -> str:
        return f"{self._entries[uid].folder}/{one.name}"

    def _get(
        self,
        path: str,
        query: dict[str, str],
        read: Callable[[requests.Response], T],
        byte_range: tuple[int, int] | None = None,
    ) -> T:
        """What `Http.get` gives at `path` of the first bucket that answers; raises Fault when none does."""
        faults: dict[str, Fault] = {}
        for url in self._bucket_urls:
            try:
                answer = self._http.get(f"{url}/{path}", query, read, byte_range)
            except Fault as fault:
                faults[url] = fault
                if self._http.stopped:
                    raise
            else:
                self._prefer(url, faults)
                return answer
        if len(faults) == 1:
            raise faults.popitem()[1]
        named = "; ".join(f"{url}: {fault}" for url, fault in faults.items())
        raise Fault(named, unreachable=all(fault.unreachable for fault in faults.values()))

    def _prefer(self, url: str, faults: dict[str, Fault]) -> None:
        """Ask `url` first from now on, after those before it have failed."""
        if faults and self._bucket_urls[0] in faults:
            failed, fault = next(iter(faults.items()))
            print(f"{failed} does not answer correctly ({fault}); {url} does", file=sys.stderr, flush=True)
            self._bucket_urls = [url, *(other for other in self._bucket_urls if other != url)]

    def _list(self, series: Series) -> list[Object]:
        """The files of a series in the bucket, whose number and total size must match the index."""
        return self._get("", self._list_query(series), self._list_reader(series))

    def _list_query(self, series: Series) -> dict[str, str]:
        return {"list-type": "2", "prefix": f"{self._entries[series.uid].folder}/"}

    def _list_reader(self, series: Series) -> Callable[[requests.Response], list[Object]]:
        prefix = self._list_query(series)["prefix"]

        def read(response: requests.Response) -> list[Object]:
            objects = _objects(b"".join(self._http.chunks(response, LONGEST_LIST_BYTES)), prefix)
            total = sum(one.bytes for one in objects)
            if (len(objects), total) != (series.images, series.bytes):
                announced = f"the index announces {series.images} of {series.bytes}"
                raise Fault(f"the bucket holds {len(objects)} images of {total} bytes, {announced}")
            return objects

        return read


class IdcCrops(Idc):
    """The archive's own crops alone: of a series with a crop and its mask, each a file, the smaller one.

    So it is in all of CBIS-DDSM: masks are as large as films. The case lists in `csv_dir` are read for the sizes.
    """

    def __init__(self, http: Http, *, csv_dir: Path, **settings: Any) -> None:
        super().__init__(http, **{**settings, "films": "whole"})
        self._csv_dir = csv_dir

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the index has, as `crop_sizes` gives them."""
        sizes = crop_sizes(read_lesions(self._csv_dir), self._entries)
        return {uid: sizes[uid] for uid in uids if uid in sizes}

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Fetch the crop of a series; see `Source`."""
        objects = self._list(self._entries[series.uid].series)
        folder.mkdir()
        items = [self._fetch(series.uid, min(objects, key=lambda one: one.bytes), folder)]
        write_receipt(folder, items)
        return Fetched(self.origin, items)


class RemotePixels:
    """The pixels (R, C) of an uncompressed film that is read by byte ranges; a slice requests only its rows.

    They begin at `offset`; `read(start, end)` returns bytes of the film's file; `pool` reads separate rows.
    """

    def __init__(self, film: Film, offset: int, read: Callable[[int, int], bytes], pool: Executor) -> None:
        self.shape = (film.rows, film.columns)
        self.dtype = np.dtype(f"<u{film.bits // 8}")
        self._offset = offset
        self._read = read
        self._pool = pool

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """The window (rows, columns); rows with a step are read one by one."""
        top, bottom, step = window[0].indices(self.shape[0])
        rows = self._rows(top, bottom) if step == 1 else self._apart(range(top, bottom, step))
        return rows[:, window[1]]

    def _apart(self, rows: range) -> np.ndarray:
        return np.concatenate(list(self._pool.map(lambda row: self._rows(row, row + 1), rows)))

    def _rows(self, top: int, bottom: int) -> np.ndarray:
        row_bytes = self.shape[1] * self.dtype.itemsize
        body = self._read(self._offset + top * row_bytes, self._offset + bottom * row_bytes)
        return np.frombuffer(body, self.dtype).reshape(bottom - top, self.shape[1])


def read_index(collection: str) -> dict[str, Entry]:
    """All series of a collection in the index of the installed wheel, by UID. Raises Fault when it has none."""
    found = {}
    index = pq.ParquetFile(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    for batch in index.iter_batches(BATCH_ROWS, columns=COLUMNS, use_threads=False):
        for row in batch.filter(pc.equal(batch["collection_id"], collection)).to_pylist():
            uid = row["SeriesInstanceUID"]
            series = Series(uid, row["instanceCount"], round(1e6 * row["series_size_MB"]))
            found[uid] = Entry(series, row["crdc_series_uuid"])
    if not found:
        raise Fault(f"the index of the Imaging Data Commons has no collection {collection!r}", lasting=True)
    return found


def crop_sizes(lesions: pd.DataFrame, entries: Mapping[str, Entry]) -> dict[str, Series]:
    """Each series with a crop or a mask as one image; where they are together, about the bytes of the crop.

    That is the series less a mask of 8 bits, as large as its film of 16.
    """
    sizes = {}
    for film, *uids in lesions[["film_uid", *CROP_UIDS]].itertuples(index=False):
        mask = entries[film].series.bytes // 2 if film in entries else 0
        for uid in uids:
            if uid in entries:
                own = entries[uid].series
                sizes[uid] = Series(uid, 1, own.bytes if own.images == 1 else max(1, own.bytes - mask))
    return sizes


def _objects(body: bytes, prefix: str) -> list[Object]:
    try:
        root = ElementTree.fromstring(body)
        space, is_list, _ = root.tag.partition("ListBucketResult")
        if not is_list:
            raise ValueError(f"its root is {root.tag}")
        objects = []
        for entry in root.iter(f"{space}Contents"):
            key, size, etag = (entry.findtext(f"{space}{tag}", "") for tag in ("Key", "Size", "ETag"))
            md5 = etag.strip('"').lower()
            objects.append(Object(key.removeprefix(prefix), int(size), md5 if PLAIN_MD5.fullmatch(md5) else ""))
    except (ElementTree.ParseError, ValueError) as error:
        raise Fault(f"no list of files but {beginning(body)!r} ({error})") from error
    for one in objects:
        if not PLAIN_DICOM_NAME.fullmatch(one.name):
            raise Fault(f"the bucket holds {one.name!r}, which is not a plain DICOM file")
    return sorted(objects)
