"""The catalogue stage: the case lists, and the series of the source that their lesions need."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from miram.data.case_lists import CROP_UIDS, UIDS, needed_series, read_lesions
from miram.data.cbis_ddsm.cases import carried_lesions, write_case_lists
from miram.data.transfer.http import Fault, Http
from miram.data.transfer.lists import bring_case_lists
from miram.data.transfer.sources import SOURCES, Series, open_source, takes_crops
from miram.data.transfer.sources.idc import crop_sizes, read_index
from miram.errors import MiramError
from miram.files import sha256_file, write_csv
from miram.layout import CASE_CSVS

INDEX_COLLECTION = "cbis_ddsm"  # in the index of the Imaging Data Commons
COLUMNS = ["series_uid", "images", "bytes"]


def list_archive(
    csv_dir: Path,
    series_csv: Path,
    *,
    source: str,
    settings: dict[str, Any],
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
    carried: bool,
) -> dict[str, object]:
    """Put the case lists into `csv_dir` and one row per series that they need into `series_csv`.

    `source`, `settings`: the kind and its block of parameters; `csv_url` in it is an address or a folder. `carried`:
    see `bring_case_lists`. A series that the source does not have has 0 images: its lesions are set aside later.
    Raises MiramError if the source does not answer.
    """
    csv_dir = Path(csv_dir)
    http = Http(attempts=attempts, timeout_seconds=timeout_seconds, backoff_seconds=backoff_seconds)
    try:
        opened = open_source(
            source, http, settings, csv_dir
        )  # first, so that a folder without DICOM files is reported at once
        lists = bring_case_lists(http, settings["csv_url"], csv_dir, carried=carried)
        lesions = read_lesions(csv_dir)
        columns = columns_needed(settings)
        listed = opened.list_series(needed_series(lesions, columns))
    except Fault as fault:
        raise no_answer(source, settings, fault) from fault
    table = series_table(lesions, listed, columns)
    absent = table.loc[table["images"] == 0, "series_uid"].tolist()
    if takes_crops(settings):  # of which one of two series is enough
        absent = [
            uid for uid, other in zip(*(lesions[name] for name in columns), strict=True) if {uid, other} <= set(absent)
        ]
    for uid in absent:
        print(f"absent: the source does not have series {uid}", file=sys.stderr, flush=True)
    write_csv(table, series_csv)
    return {
        "lesions": len(lesions),
        "films": lesions["film_uid"].nunique(),
        "series": len(table),
        "images": int(table["images"].sum()),
        "bytes": int(table["bytes"].sum()),
        "absent_series": absent,
        "listed_by": opened.origin,
        "case_lists": {name: sha256_file(csv_dir / name) for name in CASE_CSVS},
        **lists,
    }


def list_carried(csv_dir: Path, series_csv: Path, *, source: str, settings: dict[str, Any]) -> None:
    """Do what `list_archive` does for CBIS-DDSM, but without a network.

    The case lists are the carried ones; numbers of images and sizes of series come from the installed index of the
    Imaging Data Commons, which has the same files.
    """
    write_case_lists(Path(csv_dir))
    entries, lesions = read_index(INDEX_COLLECTION), carried_lesions()
    listed = {uid: entry.series for uid, entry in entries.items()}
    if source == "idc" and takes_crops(settings):
        listed = crop_sizes(lesions, entries)
    write_csv(series_table(lesions, listed, columns_needed(settings)), series_csv)


def columns_needed(settings: dict[str, Any]) -> list[str]:
    """The columns of the table of lesions with the series that a source with this block is asked for."""
    return CROP_UIDS if takes_crops(settings) else UIDS


def series_table(lesions: pd.DataFrame, listed: dict[str, Series], columns: list[str]) -> pd.DataFrame:
    """One row per series in these columns of `lesions`, with the columns COLUMNS, sorted by UID."""
    rows = [listed.get(uid, Series(uid, 0, 0)) for uid in needed_series(lesions, columns)]
    return pd.DataFrame(rows, columns=COLUMNS)


def no_answer(source: str, settings: dict[str, Any], fault: Fault) -> MiramError:
    """The error for a source that does not deliver what was requested."""
    place = next((value for name, value in settings.items() if name in ("api_url", "bucket_urls", "folder")), source)
    others = " or ".join(f"`source: {kind}`" for kind in SOURCES if kind != source)
    return MiramError(
        f"{', '.join(place) if isinstance(place, list) else place} does not deliver what was requested: {fault}",
        f"Check sources.{source} in params.yaml and the network, or choose {others} there, then run again; "
        "verified series are kept.",
    )
