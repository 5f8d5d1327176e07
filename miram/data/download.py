"""The download: the case lists, then every series that their lesions need, each verified before it gets its name."""

import errno
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from miram.data.catalogue import needed_series, read_lesions
from miram.data.http import Fault, Http, beginning
from miram.data.nbia import Series, fetch_series, list_series
from miram.data.receipt import digest, read_receipt
from miram.errors import MiramError
from miram.files import atomic_path, sha256_file
from miram.layout import CASE_CSVS
from miram.progress import track

PARTIAL = ".partial"  # inside the DICOM folder: what is on its way; emptied at each start
LONGEST_CSV_BYTES = 100_000_000
GIVE_UP_AFTER = 10  # series in a row that failed after all their tries: the archive is down, not a series broken
NAMED = 5  # failed series that a message names; the log has them all


def download(
    csv_dir: Path,
    dicom_dir: Path,
    *,
    api_url: str,
    csv_url: str,
    collection: str,
    workers: int,
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
) -> dict[str, object]:
    """Fetch the case lists into `csv_dir` and the series that they name into `dicom_dir`/<SeriesInstanceUID>/.

    Series that an earlier run verified are not asked for again. A series that the archive does not list is absent: its
    lesions are set aside later, and the facts name it. Raises MiramError when anything else could not be had; what was
    verified by then is kept. The facts depend on what was downloaded, not on how often it was interrupted.
    """
    csv_dir, dicom_dir = Path(csv_dir), Path(dicom_dir)
    http = Http(attempts=attempts, timeout_seconds=timeout_seconds, backoff_seconds=backoff_seconds)
    try:
        for name in CASE_CSVS:
            _fetch_csv(http, f"{csv_url.rstrip('/')}/{name}", csv_dir / name)
        needed = needed_series(read_lesions(csv_dir))
        missing = [uid for uid in needed if read_receipt(dicom_dir / uid) is None]
        print(f"{len(needed) - len(missing)} of {len(needed)} series are verified already", file=sys.stderr, flush=True)
        absent = _fetch_missing(http, api_url, collection, missing, dicom_dir, workers) if missing else []
    except OSError as error:
        raise _disk_error(error, dicom_dir) from error
    receipts = {uid: read_receipt(dicom_dir / uid) for uid in needed if uid not in set(absent)}
    return {
        "series": len(receipts),
        "images": sum(len(items) for items in receipts.values()),
        "bytes": sum(item.bytes for items in receipts.values() for item in items),
        "sha256_of_md5s": digest(receipts),
        "absent_series": absent,
        "case_lists": {name: sha256_file(csv_dir / name) for name in CASE_CSVS},
    }


def _fetch_csv(http: Http, url: str, path: Path) -> None:
    def read(response: requests.Response) -> bytes:
        body = b"".join(http.chunks(response, LONGEST_CSV_BYTES))
        if not body.removeprefix(b"\xef\xbb\xbf").startswith(b"patient_id,"):
            raise Fault(f"no case list but {beginning(body)!r}")
        return body

    try:
        body = http.get(url, {}, read)
    except Fault as fault:
        raise _no_answer(url, fault) from fault
    with atomic_path(path) as temporary:
        temporary.write_bytes(body)


def _fetch_missing(
    http: Http, api_url: str, collection: str, missing: list[str], dicom_dir: Path, workers: int
) -> list[str]:
    """Fetch the series `missing`; return those of them that the archive does not list."""
    try:
        listed = list_series(http, api_url, collection)
    except Fault as fault:
        raise _no_answer(api_url, fault) from fault
    absent = [uid for uid in missing if uid not in listed]
    for uid in absent:
        print(f"absent: the archive does not list series {uid}", file=sys.stderr, flush=True)
    dicom_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(dicom_dir / PARTIAL, ignore_errors=True)
    (dicom_dir / PARTIAL).mkdir()
    failed = _fetch_all(http, api_url, [listed[uid] for uid in missing if uid in listed], dicom_dir, workers)
    shutil.rmtree(dicom_dir / PARTIAL)
    if failed:
        named = "; ".join(f"{uid} ({failed[uid]})" for uid in sorted(failed)[:NAMED])
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise MiramError(
            f"{len(failed)} of {len(missing)} series could not be had from {api_url}: {named}{more}",
            f"Run the same command again: what is verified in {dicom_dir} is kept and not asked for again.",
        )
    return absent


def _fetch_all(http: Http, api_url: str, series: list[Series], dicom_dir: Path, workers: int) -> dict[str, Fault]:
    """Fetch series in parallel; return what failed, by UID.

    Raises MiramError as soon as nobody answers any more, or nothing succeeds.
    """
    failed: dict[str, Fault] = {}
    in_a_row = 0
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(_fetch_one, http, api_url, one, dicom_dir): one.uid for one in series}
        for future in track(as_completed(futures), "download", total=len(futures)):
            fault = future.result()
            in_a_row = in_a_row + 1 if fault else 0
            if fault is None:
                continue
            failed[futures[future]] = fault
            print(f"failed: series {futures[future]}: {fault}", file=sys.stderr, flush=True)
            if fault.unreachable or in_a_row == GIVE_UP_AFTER:
                raise _no_answer(api_url, fault)
    finally:
        http.stop()  # on Ctrl-C or a full disk the other threads shall not work on
        pool.shutdown(cancel_futures=True)
    return failed


def _fetch_one(http: Http, api_url: str, series: Series, dicom_dir: Path) -> Fault | None:
    with TemporaryDirectory(dir=dicom_dir / PARTIAL) as temporary:
        fetched = Path(temporary) / series.uid
        try:
            fetch_series(http, api_url, series, fetched)
        except Fault as fault:
            return fault
        final = dicom_dir / series.uid
        if final.exists():  # its receipt did not hold, else it would not have been fetched
            shutil.rmtree(final)
        fetched.rename(final)
    return None


def _no_answer(url: str, fault: Fault) -> MiramError:
    return MiramError(
        f"{url} does not give what was asked for: {fault}",
        "Check the address in params.yaml (source) and the network, then run again; what is verified is kept.",
    )


def _disk_error(error: OSError, folder: Path) -> MiramError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Make room on its disk" if full else "Check its permissions and its disk"
    return MiramError(
        f"{error.filename or folder} cannot be written: {error.strerror or error}",
        f"{remedy}, then run again; what is verified is kept.",
    )
