"""One film of the stage crops: fetch its series, cut its lesions, note it in the ledger, and delete the DICOMs."""

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from miram.data.crop_rules import Cutting, Taking
from miram.data.cutting import cut_backgrounds, cut_film, open_only, save_png
from miram.data.dicom import DicomError, open_pixels
from miram.data.taking import Boxes, find_crop, take_crops
from miram.data.transfer.http import Fault
from miram.data.transfer.ledger import UNTOLD, Ledger
from miram.data.transfer.plan import Needed, crop_series, film_series
from miram.data.transfer.receipt import Item, read_receipt
from miram.data.transfer.sources import Series, Source
from miram.data.transfer.sources.series import OpenFilm
from miram.files import sha256_file

PARTIAL = ".partial"  # inside the DICOM folder: transfers in progress; emptied at each start


class Places(NamedTuple):
    """The files and folders of the stage."""

    csv_dir: Path
    series_csv: Path
    dicom_dir: Path
    crops_dir: Path
    backgrounds_dir: Path
    ledger: Path
    lesions_csv: Path
    set_aside_csv: Path
    backgrounds_csv: Path
    lock: Path


class Work(NamedTuple):
    """What the threads share.

    `series`: those in the source; `keys`: digests of what decides a film's crops, by UID; `boxes`: see `take_crops`.
    """

    source: Source
    series: dict[str, Needed]
    ledger: Ledger
    places: Places
    rule: Cutting | Taking
    boxes: Boxes
    keys: dict[str, str]
    keep_dicom: bool


def do_film(work: Work, lesions: list[dict[str, Any]]) -> dict[str, Fault]:
    """Fetch what a film lacks, cut it and note it; return the series that could not be downloaded."""
    if isinstance(work.rule, Taking):
        return _do_crops(work, work.rule, lesions)
    film = lesions[0]["film_uid"]
    faults: dict[str, Fault] = {}
    open_film: OpenFilm = open_pixels
    for uid in uids_of(lesions):
        if work.series[uid].images:  # series that the source lacks only set their lesions aside
            try:
                open_film = _bring(work, uid, is_film=uid == film) or open_film
            except Fault as fault:
                faults[uid] = fault
    if not faults:
        try:
            _cut(work, work.rule, lesions, open_film)
        except Fault as fault:  # while rows of the film were read
            faults[film] = fault
    return faults


def _do_crops(work: Work, taking: Taking, lesions: list[dict[str, Any]]) -> dict[str, Fault]:
    """The same for the archive's own crops: of the two series where one can be the second only if it has to be."""
    dicom_dir = work.places.dicom_dir
    brought = []
    for lesion in lesions:
        for uid in crop_series(lesion, work.series):
            if not work.series[uid].images:
                continue
            try:
                _bring(work, uid, is_film=False)
            except Fault as fault:
                return {uid: fault}
            brought.append(uid)
            if _has_crop(dicom_dir / uid):
                break
    _note(work, brought, list(_saved(work, take_crops(lesions, dicom_dir, taking, work.boxes))), [])
    return {}


def _has_crop(folder: Path) -> bool:
    try:
        find_crop([folder])
    except DicomError:
        return False
    return True


def _bring(work: Work, uid: str, is_film: bool) -> OpenFilm | None:
    """Put a series into its folder; returns the reader of a film's pixels if the film is not there whole."""
    final = work.places.dicom_dir / uid
    needed = work.series[uid]
    series = Series(uid, needed.images, needed.bytes)
    present, known = read_receipt(final), work.ledger.history.verified.get(uid)
    if present is not None:
        if known != present:
            work.ledger.verified(uid, UNTOLD, present, 0.0)
        return None
    start = time.monotonic()
    read_rows = work.source.read_rows if is_film else None
    partial = work.places.dicom_dir / PARTIAL / uid
    try:
        if read_rows is None:
            fetched, open_film = work.source.fetch_series(series, partial), None
            _require_same(known, fetched.items, work.places.ledger)
        else:
            fetched, open_film = None, read_rows(series, partial)
        if final.exists():  # its receipt did not match, else it would not have been fetched
            shutil.rmtree(final)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if fetched is None:
        work.ledger.fetched(uid, work.source.origin, series.bytes)
    else:
        work.ledger.verified(uid, *fetched, time.monotonic() - start)
    return open_film


def _require_same(known: list[Item] | None, items: list[Item], ledger: Path) -> None:
    """Raise Fault if a series that was verified before, from any source, now has other bytes."""
    before, now = ({(item.sop_uid, item.sha256) for item in files} for files in (known or items, items))
    if before != now:
        raise Fault(
            f"its files differ from those verified before; to accept them, remove its lines from {ledger}",
            lasting=True,
        )


def _cut(work: Work, cutting: Cutting, lesions: list[dict[str, Any]], open_film: OpenFilm) -> None:
    """Write a film's crops and background patches, and note them in the ledger."""
    dicom_dir = work.places.dicom_dir
    backgrounds = []
    try:
        opened = open_only(dicom_dir, lesions[0]["film_uid"], air=cutting.air, open_film=open_film)
    except DicomError as error:
        found = [{**lesion, "reason": error.message} for lesion in lesions]
    else:
        found = list(_saved(work, cut_film(lesions, opened, dicom_dir, cutting)))
        for background, patch in cut_backgrounds(found, opened, cutting):
            png = work.places.backgrounds_dir / f"{background['background_id']}.png"
            backgrounds.append(background | _save(patch, png))
    _note(work, [uid for uid in uids_of(lesions) if work.series[uid].images], found, backgrounds)


def _saved(work: Work, found: Iterable[tuple[dict[str, Any], np.ndarray | None]]) -> Iterator[dict[str, Any]]:
    """The facts of each lesion, its crop written."""
    for lesion, crop in found:
        png = work.places.crops_dir / f"{lesion['lesion_id']}.png"
        yield lesion if crop is None else lesion | _save(crop, png)


def _note(work: Work, uids: list[str], found: list[dict[str, Any]], backgrounds: list[dict[str, Any]]) -> None:
    """Note the lesions of a film in the ledger; the series that they came from are not needed any more."""
    film, aside = found[0]["film_uid"], [lesion for lesion in found if "reason" in lesion]
    cut = [lesion for lesion in found if "reason" not in lesion]
    work.ledger.cropped(film, uids, work.keys[film], cut, aside, backgrounds)
    if not work.keep_dicom:
        drop(work.places.dicom_dir, uids)


def _save(pixels: np.ndarray, png: Path) -> dict[str, str]:
    save_png(pixels, png)
    return {"png_sha256": sha256_file(png)}


def uids_of(lesions: list[dict[str, Any]]) -> list[str]:
    """The series that a film's lesions need, the film last."""
    film, others = film_series(lesions)
    return [*others, film]  # masks first: a film is the larger


def drop(dicom_dir: Path, uids: Iterable[str]) -> None:
    """Remove series from the disk."""
    for uid in uids:
        shutil.rmtree(dicom_dir / uid, ignore_errors=True)
