"""The crops stage: which films are left, the threads that cut them (`one_film`), and the resulting tables.

Unless `keep_dicom` is set, at most `workers` films are on disk at a time, and those with a series that could not be
downloaded. A run continues after a kill: verified series are not downloaded again, and cut films are not cut again.
"""

import errno
import hashlib
import json
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from miram.data.case_lists import leak_in_words, read_lesions
from miram.data.crop_rules import Cutting, Taking
from miram.data.cutting import BACKGROUND_COLUMNS, LESION_COLUMNS, SET_ASIDE_COLUMNS
from miram.data.rows import first_few, remove_others, rows_of, write_rows
from miram.data.taking import Boxes, read_boxes
from miram.data.transfer.catalogue import COLUMNS, columns_needed, no_answer
from miram.data.transfer.http import Fault, Http
from miram.data.transfer.ledger import History, open_ledger, read_ledger
from miram.data.transfer.lock import write_lock
from miram.data.transfer.one_film import PARTIAL, Places, Work, do_film, drop, uids_of
from miram.data.transfer.plan import Needed, describe, make_plan, require_space
from miram.data.transfer.receipt import read_receipt
from miram.data.transfer.sources import open_source, takes_crops
from miram.errors import MiramError
from miram.files import sha256_file
from miram.progress import track
from miram.provenance.record import module_digest

GIVE_UP_AFTER = 10  # consecutive films that failed after all attempts: then the source is down

Films = dict[str, list[dict[str, Any]]]  # film UID -> the rows of the case lists for its lesions


def cut_films(
    places: Places,
    *,
    source: str,
    settings: dict[str, Any],
    cutting: Cutting | Taking,
    workers: int,
    attempts: int,
    timeout_seconds: float,
    backoff_seconds: float,
    keep_dicom: bool,
) -> dict[str, object]:
    """Cut every lesion of the case lists into `crops_dir`/<lesion_id>.png, from the series of a source.

    Writes one row in `lesions_csv` per crop, one in `set_aside_csv` per lesion without a crop, and the data lock twice.
    `source`, `settings`: as in `list_archive`. Returns counts, which do
    not depend on interruptions. Raises MiramError if a series could not be downloaded, the disk is too
    small or full, or no lesion could be cut; finished work is kept.
    """
    films, series = _catalogue(places, settings)
    boxes = _boxes(settings)
    keys = {uid: _key(lesions, settings, cutting, boxes) for uid, lesions in films.items()}
    try:
        with open_ledger(places.ledger) as ledger:
            left = _films_left(films, series, keys, ledger.history, places, keep_dicom)
            print(f"{len(films) - len(left)} of {len(films)} films are cut already", file=sys.stderr, flush=True)
            _tidy(films, left, places, keep_dicom)
            if left:
                where = (source, settings, places.dicom_dir)
                require_space(make_plan(left, series, *where, workers=workers, keep_dicom=keep_dicom), places.dicom_dir)
                http = Http(attempts=attempts, timeout_seconds=timeout_seconds, backoff_seconds=backoff_seconds)
                (places.dicom_dir / PARTIAL).mkdir(parents=True)
                try:
                    opened = open_source(source, http, settings, places.csv_dir)
                    work = Work(opened, series, ledger, places, cutting, boxes, keys, keep_dicom)
                    failed = _cut_all(work, http, left, workers)
                except Fault as fault:
                    raise no_answer(source, settings, fault) from fault
                shutil.rmtree(places.dicom_dir / PARTIAL, ignore_errors=True)
                if failed:
                    raise _failed(failed, places.ledger)
            return _write_tables(ledger.history, films, series, places)
    except OSError as error:
        raise _disk_error(error, places.dicom_dir) from error


def plan_films(
    places: Places, *, source: str, settings: dict[str, Any], cutting: Cutting | Taking, workers: int, keep_dicom: bool
) -> None:
    """Print what `cut_films` would still do, changing nothing; raises MiramError if the disk is too small for it."""
    (films, series), history = _catalogue(places, settings), read_ledger(places.ledger)
    boxes = _boxes(settings)
    keys = {uid: _key(lesions, settings, cutting, boxes) for uid, lesions in films.items()}
    left = _films_left(films, series, keys, history, places, keep_dicom)
    plan = make_plan(left, series, source, settings, places.dicom_dir, workers=workers, keep_dicom=keep_dicom)
    lesions = pd.DataFrame([lesion for own in films.values() for lesion in own])
    print(describe(plan, series, len(lesions), len(films), history, places.dicom_dir))
    print(leak_in_words(lesions), flush=True)
    require_space(plan, places.dicom_dir)


def films_of(csv_dir: Path) -> Films:
    """The lesions of the case lists by film, as plain values; None where the lists have no value."""
    lesions = read_lesions(csv_dir)
    films: Films = {}
    for lesion in rows_of(lesions.astype(object).where(lesions.notna(), None)):
        films.setdefault(lesion["film_uid"], []).append(lesion)
    return films


def read_series(series_csv: Path) -> dict[str, Needed]:
    """The table of `list_archive`, by UID."""
    table = pd.read_csv(series_csv, usecols=COLUMNS, dtype={"series_uid": str})[COLUMNS]
    return {uid: Needed(int(images), int(size)) for uid, images, size in table.itertuples(index=False)}


def _catalogue(places: Places, settings: dict[str, Any]) -> tuple[Films, dict[str, Needed]]:
    """The films of the case lists, and the series. Raises MiramError if these are not those that lesions need now."""
    films, series = films_of(places.csv_dir), read_series(places.series_csv)
    columns = columns_needed(settings)
    if series.keys() != {lesion[name] for lesions in films.values() for lesion in lesions for name in columns}:
        raise MiramError(
            f"{places.series_csv} lists other series than crops.from: {settings.get('crops_from', 'films')} needs.",
            "Run `miram catalogue` again.",
        )
    return films, series


def _boxes(settings: dict[str, Any]) -> Boxes:
    """The boxes in a folder of the archive's own crops, where it has a table of them."""
    return read_boxes(Path(settings["folder"])) if takes_crops(settings) and "folder" in settings else {}


def _key(lesions: list[dict[str, Any]], settings: dict[str, Any], cutting: Cutting | Taking, boxes: Boxes) -> str:
    """Digest of everything except the pixels that decides the crops of a film and their rows."""
    if isinstance(cutting, Taking):
        known = {lesion["lesion_id"]: boxes.get(lesion["lesion_id"], "unknown") for lesion in lesions}
        decides: list[Any] = [module_digest("miram.data.taking"), asdict(cutting), known, lesions]
    else:
        decides = [module_digest("miram.data.cutting"), settings.get("films"), asdict(cutting), lesions]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _films_left(
    films: Films, series: dict[str, Needed], keys: dict[str, str], history: History, places: Places, keep_dicom: bool
) -> Films:
    """The films that are not cut yet, were cut by other rules, or whose crops are incomplete."""

    def is_done(uid: str) -> bool:
        line = history.films.get(uid)
        if line is None or not _is_cut(line, keys[uid], places):
            return False
        return not keep_dicom or all(
            read_receipt(places.dicom_dir / one) for one in line["series"] if series[one].images
        )

    return {uid: lesions for uid, lesions in films.items() if not is_done(uid)}


def _is_cut(line: dict[str, Any], key: str, places: Places) -> bool:
    if line["key"] != key:
        return False
    pngs = {places.crops_dir / f"{row['lesion_id']}.png": row["png_sha256"] for row in line["lesions"]}
    pngs |= {places.backgrounds_dir / f"{row['background_id']}.png": row["png_sha256"] for row in line["backgrounds"]}
    return all(png.exists() and sha256_file(png) == digest for png, digest in pngs.items())


def _tidy(films: Films, left: Films, places: Places, keep_dicom: bool) -> None:
    """Remove what a killed run left: half-written files, and the series of cut films unless `keep_dicom` is set."""
    shutil.rmtree(places.dicom_dir / PARTIAL, ignore_errors=True)
    for folder in (places.crops_dir, places.backgrounds_dir):
        for part in folder.glob(".*.part"):
            part.unlink()
    if not keep_dicom:
        drop(places.dicom_dir, (uid for film in films.keys() - left.keys() for uid in uids_of(films[film])))


def _cut_all(work: Work, http: Http, left: Films, workers: int) -> dict[str, Fault]:
    """Cut films in parallel; return the series that failed, by UID.

    Raises MiramError or Fault as soon as the source no longer answers, or nothing succeeds.
    """
    failed: dict[str, Fault] = {}
    in_a_row = 0
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(do_film, work, lesions) for lesions in left.values()]
        for future in track(as_completed(futures), "films", total=len(futures)):
            faults = future.result()
            in_a_row = in_a_row + 1 if faults else 0
            for uid, fault in faults.items():
                failed[uid] = fault
                work.ledger.set_aside(uid, str(fault))
                print(f"failed: series {uid}: {fault}", file=sys.stderr, flush=True)
                if fault.unreachable or in_a_row == GIVE_UP_AFTER:
                    raise fault
    finally:
        http.stop()  # on Ctrl-C or a full disk the other threads should stop
        pool.shutdown(cancel_futures=True)
    return failed


def _write_tables(history: History, films: Films, series: dict[str, Needed], places: Places) -> dict[str, object]:
    """Write the tables and the lock from the ledger, remove images without a row, and return the counts."""
    lines = [history.films[uid] for uid in films]
    done, aside, backgrounds = (
        [row for line in lines for row in line[name]] for name in ("lesions", "set_aside", "backgrounds")
    )
    if not done:
        raise MiramError(
            f"None of the {len(aside)} lesions could be cut; {aside[0]['lesion_id']}: {aside[0]['reason']}",
            "Check that the source (params.yaml) holds the series of these case lists, then run again.",
        )
    remove_others(places.crops_dir, {row["lesion_id"] for row in done})
    remove_others(places.backgrounds_dir, {row["background_id"] for row in backgrounds})
    write_rows(aside, SET_ASIDE_COLUMNS, places.set_aside_csv)
    write_rows(backgrounds, BACKGROUND_COLUMNS, places.backgrounds_csv)
    write_rows(done, LESION_COLUMNS, places.lesions_csv)
    verified = {uid: items for uid, items in history.verified.items() if uid in series}
    write_lock(verified, places.lock)
    origins = Counter(history.origins[uid] for uid in series if uid in history.origins)
    words = [word for row in done for word in row["repairs"].split(";") if word]
    return {
        "lesions": len(done),
        "set_aside": len(aside),
        "backgrounds": len(backgrounds),
        "films": len({row["film_uid"] for row in done}),
        "repairs": {word: words.count(word) for word in sorted(set(words))},
        "origins": dict(sorted(origins.items())),
        "verified_series": len(verified),
        "verified_images": sum(map(len, verified.values())),
        "verified_bytes": sum(item.bytes for items in verified.values() for item in items),
    }


def _failed(failed: dict[str, Fault], ledger: Path) -> MiramError:
    named = "; ".join(first_few([f"{uid} ({failed[uid]})" for uid in sorted(failed)]))
    return MiramError(
        f"{len(failed)} series could not be downloaded: {named}",
        f"Run the same command again: what {ledger} lists as verified or cropped is kept and not downloaded again.",
    )


def _disk_error(error: OSError, folder: Path) -> MiramError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Make room on its disk" if full else "Check its permissions and its disk"
    return MiramError(
        f"{error.filename or folder} cannot be written: {error.strerror or error}",
        f"{remedy}, then run again; what is verified or cut is kept.",
    )
