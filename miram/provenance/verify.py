"""Verification: does a results folder still match its records? Every mismatch is named.

The records of the run in data/ and runs/ are followed if present. A clone without them is checked against the crate in
the results folder: its files and parameters, not the runs behind them. A quick check of only records and results
decides whether a table may be shown as that of the present parameters.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from miram import layout
from miram.errors import MiramError
from miram.files import sha256_file
from miram.progress import track
from miram.provenance.crate import METADATA, read_crate, summary
from miram.provenance.record import KEYS, is_record

Expected = Mapping[Path, tuple[str, dict[str, Any]]]  # record, relative to the project -> its stage, and its values now
LIGHT = {"results", "workflow"}  # folders whose files are small
UNRECORDED = {"archive", "dicom", "crops", "backgrounds"}  # of data/: thousands of files, and no record


def shortfalls(expected: Expected) -> list[str]:
    """Why the results here are not those of the present parameters; empty if they are.

    Reads all records and the files of the results, but neither data nor networks, so it is fast.
    """
    lost = [str(path) for path in expected if not path.is_file()]
    there = [path for path in expected if str(path) not in lost]
    found = {finding for path in there for finding in _against_record(Path(), path, expected, light=True)}
    few = ", ".join(lost[:3]) + ", …" * (len(lost) > 3)
    return [f"{len(lost)} of {len(expected)} records are missing: {few}."] * bool(lost) + sorted(found)


def verify(results: Path, expected: Expected, *, name: str, films: bool) -> dict[str, int]:
    """Print every mismatch of the folder `results` of the run `name`, whose project is the folder two above it.

    With `films` the kept DICOM files are read and compared with the data lock. Returns the number of records. Raises
    MiramError if anything does not match.
    """
    project = Path(os.path.relpath(results.resolve().parent.parent))
    if not results.is_dir():
        raise MiramError(f"There is no folder {results}.", "Name a results folder, or run the workflow first.")
    if results.resolve().name != name:
        print(f"note      The parameters are those of {layout.results(name)}.")
    data, runs = project / layout.data(name), project / layout.runs(name)
    found = {path for folder in (data, runs) for path in _json_files(folder)}
    wanted = {project / path for path in expected}
    left = {path for path in found - wanted if path.is_relative_to(runs) and is_record(path)}
    paths = sorted(found - left)
    of_run = [path for path in sorted(found & wanted) if path.is_relative_to(runs)]
    findings = {*_against_crate(results, expected, alone=not of_run), *_against_lock(results, data, films)}
    if of_run:
        findings.update(_unnamed(results, _outputs(results, of_run), "no record of this run"))
    for folder in (folder for folder in (data, runs) if folder.is_dir()):
        lost = {path for path in wanted - found if path.is_relative_to(folder)}
        findings |= {
            f"The record {path} is missing: its job did not finish, or its outputs were deleted." for path in lost
        }
    for path in paths:
        findings.update(_against_record(project, path, expected))
    for folder in (data, runs):
        if not folder.is_dir():
            print(f"note      {folder} is not here: its files were not checked.")
    for path in sorted(left):
        print(f"note      {path} belongs to no job of the parameters: not checked.")
    for finding in sorted(findings):
        print(f"mismatch  {finding}")
    if findings:
        raise MiramError(
            f"{len(findings)} mismatches between {results} and its records.",
            "Restore each file that is named, or delete the record that names it and run the workflow again; "
            "move files of other origin elsewhere.",
        )
    print(f"ok        {results} agrees with its crate, with the parameters and with {len(paths)} records.")
    return {"records": len(paths)}


def _json_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - UNRECORDED)
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".json"))


def _outputs(results: Path, records: Iterable[Path]) -> set[str]:
    """The names of the files in `results` that the records list as outputs; damaged records are skipped."""
    folder, written = results.resolve(), set()
    for path in records:
        try:
            written |= {folder.parent.parent / name for name in json.loads(path.read_text(encoding="utf-8"))["outputs"]}
        except (ValueError, KeyError, TypeError):
            continue
    return {path.relative_to(folder).as_posix() for path in written if path.is_relative_to(folder)}


def _unnamed(results: Path, known: Collection[str], witness: str) -> Iterator[str]:
    """Files that are not `known`, except hidden ones."""
    for file in sorted(path for path in results.rglob("*") if not path.is_dir()):
        name = file.relative_to(results)
        if name.as_posix() not in known and not any(part.startswith(".") for part in name.parts):
            yield f"{file} is named by {witness}."


def _against_crate(results: Path, expected: Expected, *, alone: bool) -> Iterator[str]:
    """Files that differ from the crate's description, and parameters that differ from those of the runs.

    Without records also files that the crate does not describe.
    """
    try:
        files, made = read_crate(results)
    except MiramError as fault:
        yield fault.message
        return
    for name, sha256 in files.items():
        yield from differing(results / name, sha256, results / METADATA)
    if alone:
        yield from _unnamed(results, {*files, METADATA}, f"nothing in {results / METADATA}")
    yield from _changed(results / METADATA, made, summary(expected.values()))


def _against_record(project: Path, path: Path, expected: Expected, *, light: bool = False) -> Iterator[str]:
    """Changed inputs and outputs of a record, and values that differ from the present parameters.

    Outside runs/, a file whose whole folder is missing was left behind on purpose: an archive or films, which can be
    downloaded again. With `light` only records and small files are read.
    """
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        if KEYS.isdisjoint(made) and path.relative_to(project) not in expected:
            return  # JSON of another form
        files = {**made["inputs"], **made["outputs"]}
        stage, values = made["stage"], made["values"]
    except (ValueError, KeyError, TypeError) as error:
        yield f"The record {path} is damaged: {error!r}"
        return
    for name, sha256 in files.items():
        if light and Path(name) not in expected and Path(name).parts[0] not in LIGHT:
            continue
        if (project / name).parent.is_dir() or Path(name).parts[0] == "runs":
            yield from differing(project / name, sha256, path)
    wanted = expected.get(path.relative_to(project))
    if wanted is not None:
        yield from _changed(path, summary([(stage, values)]), summary([wanted]))


def _against_lock(results: Path, data: Path, films: bool) -> Iterator[str]:
    """Data of another release than that of the results, and DICOM files that do not belong to the data."""
    from miram.data.transfer.lock import read_lock  # pandas and pydicom take seconds, which `shortfalls` avoids

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
    """The mismatch of a file whose SHA-256 is in `witness`, if any."""
    if not file.is_file():
        yield f"{file}, named by {witness}, is missing."
    elif sha256_file(file) != sha256:
        yield f"{file} is not the file that {witness} names: its SHA-256 differs."


def _changed(witness: Path, made: Mapping[str, list[Any]], wanted: Mapping[str, list[Any]]) -> Iterator[str]:
    for name in sorted(made.keys() | wanted.keys()):
        if made.get(name) != wanted.get(name):
            told, says = (json.dumps(values.get(name)) for values in (made, wanted))
            yield f"{name} of {witness} was {told}; the parameters say {says}."
