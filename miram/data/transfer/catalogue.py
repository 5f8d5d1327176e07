"""The catalogue stage: the case lists, and which series of the source their lesions need."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from miram.data.case_lists import PATHS, needed_series, read_lesions
from miram.data.transfer.http import Fault, Http, beginning
from miram.data.transfer.sources import SOURCES, Series, open_source
from miram.errors import MiramError
from miram.files import atomic_path, sha256_file
from miram.layout import CASE_CSVS

LONGEST_CSV_BYTES = 100_000_000
COLUMNS = ["series_uid", "role", "images", "bytes"]


def list_archive(
    csv_dir: Path,
    series_csv: Path,
    *,
    source: str,
    settings: dict[str, Any],
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
) -> dict[str, object]:
    """Put the case lists into `csv_dir` and a row for each series that they need into `series_csv`.

    `source`, `settings`: the kind and its block of parameters; `csv_url` in it is an address or a folder. A series that
    the source does not have has 0 images: its lesions are set aside later. Raises MiramError when the source does not
    answer.
    """
    csv_dir = Path(csv_dir)
    http = Http(attempts=attempts, timeout_seconds=timeout_seconds, backoff_seconds=backoff_seconds)
    try:
        opened = open_source(source, http, settings)  # first: a folder without DICOM files is told at once
        fetch_case_lists(http, settings["csv_url"], csv_dir)
        lesions = read_lesions(csv_dir)
        listed = opened.list_series(needed_series(lesions))
    except Fault as fault:
        raise no_answer(source, settings, fault) from fault
    table = series_table(lesions, listed)
    absent = table.loc[table["images"] == 0, "series_uid"].tolist()
    for uid in absent:
        print(f"absent: the source does not have series {uid}", file=sys.stderr, flush=True)
    with atomic_path(series_csv) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    return {
        "lesions": len(lesions),
        "films": lesions["film_uid"].nunique(),
        "series": len(table),
        "images": int(table["images"].sum()),
        "bytes": int(table["bytes"].sum()),
        "absent_series": absent,
        "listed_by": opened.origin,
        "case_lists": {name: sha256_file(csv_dir / name) for name in CASE_CSVS},
    }


def fetch_case_lists(http: Http, csv_url: str, csv_dir: Path) -> None:
    """Copy the four case lists from an address or a folder into `csv_dir`."""
    for name in CASE_CSVS:
        body = case_list(http, csv_url, name)
        with atomic_path(csv_dir / name) as temporary:
            temporary.write_bytes(body)


def case_list(http: Http, csv_url: str, name: str) -> bytes:
    """A case list from an address or a folder; raises MiramError when it is not there, or none."""
    return _fetch_list(http, csv_url, name) if "://" in csv_url else _read_list(Path(csv_url) / name)


def series_table(lesions: pd.DataFrame, listed: dict[str, Series]) -> pd.DataFrame:
    """A row for each series that `lesions` need, with the columns COLUMNS, sorted by UID.

    `role`: what the case lists say that it holds: film, mask, crop, or crop+mask.
    """
    roles: dict[str, set[str]] = {}
    for column in PATHS.values():
        for uid in lesions[column]:
            roles.setdefault(uid, set()).add(column.removesuffix("_uid"))
    rows = []
    for uid in sorted(roles):
        one = listed.get(uid, Series(uid, 0, 0))
        rows.append((uid, "+".join(sorted(roles[uid])), one.images, one.bytes))
    return pd.DataFrame(rows, columns=COLUMNS)


def no_answer(source: str, settings: dict[str, Any], fault: Fault) -> MiramError:
    """The error of a source that does not give what it is asked for."""
    place = next((value for name, value in settings.items() if name in ("api_url", "bucket_urls", "folder")), source)
    others = " or ".join(f"`source: {kind}`" for kind in SOURCES if kind != source)
    return MiramError(
        f"{', '.join(place) if isinstance(place, list) else place} does not give what was asked for: {fault}",
        f"Check sources.{source} in params.yaml and the network, or choose {others} there, then run again; what is "
        "verified is kept.",
    )


def _read_list(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MiramError(
            f"The case list {path} cannot be read: {error.strerror}",
            "Set csv_url of the source to the folder or the address of the case lists.",
        ) from error


def _fetch_list(http: Http, csv_url: str, name: str) -> bytes:
    url = f"{csv_url.rstrip('/')}/{name}"

    def read(response: requests.Response) -> bytes:
        body = b"".join(http.chunks(response, LONGEST_CSV_BYTES))
        if not body.removeprefix(b"\xef\xbb\xbf").startswith(b"patient_id,"):
            raise Fault(f"no case list but {beginning(body)!r}")
        return body

    try:
        return http.get(url, {}, read)
    except Fault as fault:
        raise MiramError(
            f"{url} does not give what was asked for: {fault}",
            "Check csv_url of the source in params.yaml and the network, then run again.",
        ) from fault
