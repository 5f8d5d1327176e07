"""Verification: does a results folder still agree with what made it? Every mismatch is named.

The records in data/<preset>/ and runs/<preset>/ beside it are followed where they are present. A clone without them is
checked against the crate in the results folder itself: its files and its parameters, not the runs behind them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from miram import layout
from miram.data.transfer.lock import read_lock
from miram.errors import MiramError
from miram.files import sha256_file
from miram.progress import track
from miram.provenance.crate import METADATA, read_crate, summary
from miram.provenance.record import KEYS, is_record

UNRECORDED = {"archive", "dicom", "crops", "backgrounds"}  # of data/<preset>/: thousands of files, and no record


def verify(
    results: Path, expected: Mapping[Path, tuple[str, dict[str, Any]]], *, preset: str, films: bool
) -> dict[str, int]:
    """Print every mismatch of the folder `results`, whose project is the folder two above it.

    `expected`: record, relative to the project -> its stage and the values that the parameters give it. With `films`
    the DICOM files that are kept are compared with the data lock, each read whole. Returns the number of records.
    Raises MiramError when anything does not fit.
    """
    project = Path(os.path.relpath(results.resolve().parent.parent))
    if not results.is_dir():
        raise MiramError(f"There is no folder {results}.", "Name a results folder, or run the workflow first.")
    data, runs = project / layout.data(preset), project / layout.runs(preset)
    found = {path for folder in (data, runs) for path in _json_files(folder)}
    wanted = {project / path for path in expected}
    left = {path for path in found - wanted if path.is_relative_to(runs) and is_record(path)}
    paths = sorted(found - left)
    findings = {*_against_crate(results, expected), *_against_lock(results, data, films)}
    for folder in (folder for folder in (data, runs) if folder.is_dir()):
        lost = {path for path in wanted - found if path.is_relative_to(folder)}
        findings |= {f"The record {path} is missing: its job did not finish, or was undone." for path in lost}
    for path in paths:
        findings.update(_against_record(project, path, expected))
    for folder in (data, runs):
        if not folder.is_dir():
            print(f"note      {folder} is not here: what belongs into it was not checked.")
    for path in sorted(left):
        print(f"note      {path} belongs to no job of the parameters: not checked.")
    for finding in sorted(findings):
        print(f"mismatch  {finding}")
    if findings:
        raise MiramError(
            f"{len(findings)} mismatches between {results} and what made it.",
            "Restore each file that is named; or delete the record that names it and run the workflow again.",
        )
    print(f"ok        {results} agrees with its crate, with the parameters and with {len(paths)} records.")
    return {"records": len(paths)}


def _json_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - UNRECORDED)
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".json"))


def _against_crate(results: Path, expected: Mapping[Path, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Files that are not the ones that the crate describes, and parameters that are not those of the runs."""
    try:
        files, made = read_crate(results)
    except MiramError as fault:
        yield fault.message
        return
    for name, sha256 in files.items():
        yield from differing(results / name, sha256, results / METADATA)
    yield from _changed(results / METADATA, made, summary(expected.values()))


def _against_record(project: Path, path: Path, expected: Mapping[Path, tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Files that a record wrote or read and that are others now, and values that are not the parameters' any more.

    A file whose whole folder is missing was left behind on purpose, but for those of runs/: an archive or films, which
    can be had again.
    """
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        if KEYS.isdisjoint(made):
            return  # JSON of another kind
        files = {**made["inputs"], **made["outputs"]}
        stage, values = made["stage"], made["values"]
    except (ValueError, KeyError, TypeError) as error:
        yield f"The record {path} is damaged: {error!r}"
        return
    for name, sha256 in files.items():
        if (project / name).parent.is_dir() or Path(name).parts[0] == "runs":
            yield from differing(project / name, sha256, path)
    wanted = expected.get(path.relative_to(project))
    if wanted is not None:
        yield from _changed(path, summary([(stage, values)]), summary([wanted]))


def _against_lock(results: Path, data: Path, films: bool) -> Iterator[str]:
    """Data of another release than that of the results, and DICOM files that are not the data's."""
    locks = [folder / layout.LOCK for folder in (results, data) if (folder / layout.LOCK).is_file()]
    if len({sha256_file(lock) for lock in locks}) > 1:
        yield f"{locks[1]} is not the data lock of the results, {locks[0]}."
    if not (films and locks):
        return
    try:
        series = read_lock(locks[0]).groupby("series_uid")
    except MiramError as fault:
        yield fault.message
        return
    for uid, instances in track(series, "films", total=series.ngroups):
        folder = data / "dicom" / str(uid)
        if folder.is_dir():
            found = {sha256_file(file): file for file in sorted(folder.glob("*.dcm"))}
            yield from (f"{found[other]} is not in {locks[0]}." for other in found.keys() - set(instances["sha256"]))
            for lost in instances[~instances["sha256"].isin(found)].itertuples():
                yield f"{folder} lacks the instance {lost.sop_uid} of {locks[0]}."


def differing(file: Path, sha256: str, witness: Path) -> Iterator[str]:
    """What is wrong with a file of which `witness` tells the SHA-256, if anything."""
    if not file.is_file():
        yield f"{file}, named by {witness}, is missing."
    elif sha256_file(file) != sha256:
        yield f"{file} is not the file that {witness} names: its SHA-256 differs."


def _changed(witness: Path, made: Mapping[str, list[Any]], wanted: Mapping[str, list[Any]]) -> Iterator[str]:
    for name in sorted(made.keys() | wanted.keys()):
        if made.get(name) != wanted.get(name):
            told, says = (json.dumps(values.get(name)) for values in (made, wanted))
            yield f"{name} of {witness} was {told}; the parameters say {says}."
