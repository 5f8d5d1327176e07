"""Whether the source of the data answers a real request correctly, asked with the client that the stages use."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from miram.data.transfer.http import Fault, Http
from miram.data.transfer.lists import case_list, holds_none
from miram.data.transfer.sources import Idc, Tcia, named_crops, own_settings
from miram.data.transfer.sources.local import require_dicom
from miram.errors import MiramError
from miram.layout import CASE_CSVS
from miram.planning.finding import Finding

REMOTE = ("tcia", "idc")
NETWORK = "Check the network and its proxy"
ELSEWHERE = "`source: local` in params.yaml, with a folder that holds the archive"


def check_source(source: str, settings: Mapping[str, Any], timeout_seconds: float) -> list[Finding]:
    """The findings for a kind of source with its block of parameters; none for an empty block.

    A finding is ok if the answer is what a stage needs: the collection, the files of a series, a DICOM file, a case
    list. `fallback` in the block is asked if the source itself does not answer correctly.
    """
    if not settings:
        return []
    http = Http(attempts=1, timeout_seconds=timeout_seconds, backoff_seconds=1.0)
    checks: dict[str, Callable[[Http, Mapping[str, Any]], Finding]] = {
        "tcia": _check_tcia,
        "idc": _check_idc,
        "local": _check_local,
        "images": _check_images,
    }
    found = [checks[source](http, settings)]
    return [*found, _check_case_lists(http, source, settings["csv_url"])] if "csv_url" in settings else found


def _check_tcia(http: Http, settings: Mapping[str, Any]) -> Finding:
    url, fallback = settings["api_url"], settings["fallback"]
    try:
        Tcia(http, **own_settings(settings)).ask()
    except Fault as fault:
        if fallback is None:
            return Finding(
                "stop",
                f"TCIA does not answer correctly: {url}: {fault}",
                f"{NETWORK}, or set sources.tcia.fallback: idc, `source: idc`, or {ELSEWHERE}.",
            )
        answers = _ask_buckets(http, fallback["settings"])
        good = [bucket for bucket, other in answers.items() if other is None]
        if good:
            return Finding(
                "warning",
                f"TCIA does not answer correctly: {url}: {fault}",
                f"The run will use IDC, which does ({good[0]}) and has the same files; nothing need be done. "
                "`source: idc` uses it from the start, and reads only the needed rows of the films.",
            )
        return Finding(
            "stop",
            f"Neither TCIA nor IDC answers correctly: {url}: {fault}; {_named(answers)}",
            f"{NETWORK}. If there is a mirror of the bucket, name it in sources.idc.bucket_urls and set "
            f"`source: idc`; or set {ELSEWHERE}.",
        )
    return Finding("ok", f"Source: {url} has collection {settings['collection']}")


def _check_idc(http: Http, settings: Mapping[str, Any]) -> Finding:
    answers = _ask_buckets(http, settings)
    good = [bucket for bucket, fault in answers.items() if fault is None]
    bad = {bucket: fault for bucket, fault in answers.items() if fault is not None}
    if not good:
        return Finding(
            "stop",
            f"IDC does not answer correctly: {_named(bad)}",
            f"{NETWORK}, or set sources.idc.bucket_urls to a mirror, `source: tcia`, or {ELSEWHERE}.",
        )
    if bad:
        text = f"A bucket of IDC does not answer correctly: {_named(bad)}"
        return Finding("warning", text, f"The run will use {good[0]}, which does; nothing need be done.")
    return Finding("ok", f"Source: {', '.join(good)} has collection {settings['collection']}")


def _ask_buckets(http: Http, settings: Mapping[str, Any]) -> dict[str, Fault | None]:
    """Address of each bucket -> what is wrong with its answer; None: nothing."""
    try:
        return Idc(http, **own_settings(settings)).ask()
    except Fault as fault:  # the index has no such collection
        return dict.fromkeys(settings["bucket_urls"], fault)


def _named(answers: Mapping[str, Fault | None]) -> str:
    return "; ".join(f"{bucket}: {fault}" for bucket, fault in answers.items())


def _check_local(_: Http, settings: Mapping[str, Any]) -> Finding:
    if pictures := named_crops(settings):
        return Finding("ok", f"Source: {len(pictures)} PNG or JPEG files named by lesion in {settings['folder']}")
    try:
        require_dicom(Path(settings["folder"]))
    except MiramError as error:
        return Finding("stop", error.message, error.remedy)
    return Finding("ok", f"Source: DICOM files in {settings['folder']}")


def _check_images(_: Http, settings: Mapping[str, Any]) -> Finding:
    if Path(settings["folder"]).is_dir():
        return Finding("ok", f"Source: folder {settings['folder']}")
    return Finding(
        "stop",
        f"There is no folder {settings['folder']}.",
        "Correct sources.images.folder, or mount it.",
    )


def _check_case_lists(http: Http, source: str, csv_url: str) -> Finding:
    try:
        case_list(http, csv_url, CASE_CSVS[0])
    except MiramError as error:
        if holds_none(csv_url):
            return Finding("warning", error.message, "The run will use the case lists that come with this software.")
        return Finding("stop", error.message, f"{NETWORK}, or correct sources.{source}.csv_url in params.yaml.")
    return Finding("ok", f"Source: case lists at {csv_url}")
