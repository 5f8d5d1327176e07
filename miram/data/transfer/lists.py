"""The four case lists in their folder: from an address or a folder, or the carried ones."""

import sys
from pathlib import Path

import requests

from miram.data.case_lists import read_cases
from miram.data.cbis_ddsm.cases import differences, write_case_lists
from miram.data.rows import first_few
from miram.data.transfer.http import Fault, Http, beginning
from miram.errors import MiramError
from miram.files import atomic_path
from miram.layout import CASE_CSVS

LONGEST_CSV_BYTES = 100_000_000
CARRIED = "come with this software"


def bring_case_lists(http: Http, csv_url: str, csv_dir: Path, *, carried: bool) -> dict[str, object]:
    """Put the four case lists into `csv_dir` and return their origin, and how they differ from the carried ones.

    `csv_url` is an address or a folder. `carried`: the lists are CBIS-DDSM's, whose rows this software carries. Then
    these replace lists that cannot be downloaded or are missing in the folder; others are compared with them, and
    differences are reported but are not errors. Raises MiramError if there is no list, or a downloaded one lacks
    lesions.
    """
    try:
        lists = {name: case_list(http, csv_url, name) for name in CASE_CSVS}
    except MiramError as error:
        if not carried or not holds_none(csv_url):
            raise
        print(f"case lists: {error.message} The carried lists are used.", file=sys.stderr, flush=True)
        write_case_lists(csv_dir)
        return {"case_lists_from": CARRIED, "case_list_differences": []}
    for name, body in lists.items():
        with atomic_path(csv_dir / name) as temporary:
            temporary.write_bytes(body)
    return {"case_lists_from": csv_url, "case_list_differences": _compared(csv_url, csv_dir) if carried else []}


def holds_none(csv_url: str) -> bool:
    """Whether it is an address, or a folder without any case list: a folder with some should have all."""
    folder = Path(csv_url)
    return "://" in csv_url or (folder.is_dir() and not any((folder / name).exists() for name in CASE_CSVS))


def _compared(csv_url: str, csv_dir: Path) -> list[str]:
    missing, words = differences(read_cases(csv_dir))
    if missing and "://" in csv_url:
        raise MiramError(
            f"The case lists of {csv_url} lack {len(missing)} lesions of CBIS-DDSM: {'; '.join(first_few(missing))}",
            "Run again: the transfer may have been cut short. To use these lists all the same, put them into "
            "a folder and set csv_url of the source to it.",
        )
    words = [f"{lesion}: not in these lists" for lesion in missing] + words
    if words:
        named = "; ".join(first_few(words))
        print(f"case lists: {len(words)} differences from the carried: {named}", file=sys.stderr, flush=True)
    return words


def case_list(http: Http, csv_url: str, name: str) -> bytes:
    """A case list from an address or a folder; raises MiramError if it is missing or not a case list."""
    if "://" not in csv_url:
        return _read_list(Path(csv_url) / name)
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
            f"{url} does not deliver the case list: {fault}",
            "Check csv_url of the source in params.yaml and the network, then run again.",
        ) from fault


def _read_list(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MiramError(
            f"The case list {path} cannot be read: {error.strerror}",
            "Set csv_url of the source to the folder or the address of the case lists.",
        ) from error
