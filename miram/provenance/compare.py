"""Compare two results folders: do their numbers agree, and what differs between the runs that made them?

Each folder is first checked against its own crate: a file that differs from the crate makes it damaged. Then
`miram.evaluate.agreement` grades the numbers, and the crates show what differs: parameters, code, machines.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from miram.errors import MiramError
from miram.evaluate.agreement import (
    AGREES,
    GRADES,
    MISSING,
    NUMERICS,
    NUMERICS_LIMIT,
    SAME,
    TOLD_APART,
    graded,
    read_metrics,
    worst,
)
from miram.evaluate.markdown import paragraph
from miram.evaluate.metrics import MAJORITY
from miram.evaluate.predictions import SECTION
from miram.layout import LOCK
from miram.provenance.crate import METADATA, read_crate, read_origin
from miram.provenance.record import GIT
from miram.provenance.verify import differing

SHOWN = 3  # numbers per method on the page, largest difference first
SHORT = 12  # hexadecimal digits of a digest or a commit
NOT_RECORDED = "not recorded"
# name in the crate -> name on the page; packages keep their names
ORIGINS = {"commit": "commit", "requirements.lock": "lock", "image": "container image", "processor": "processor"}
ORIGINS |= {"cpu_capability": "torch's CPU capability", "threads": "torch's threads", "device": "device"}
ORIGINS |= {"system": "system"}
ALWAYS = [*ORIGINS, "torch"]  # reported if not recorded, unlike other packages
LEGEND = (
    "A number is a metric of a method in a section (protocol, task, mode): the mean over the seeds on the test split. "
    f"numerics: nothing differs by more than {NUMERICS_LIMIT}, half of the last digit that the tables print. "
    "agrees: each value lies in the other's 95% interval over patients, widened by the spread over the seeds of both "
    "runs (Student, 99%). told apart: one lies beyond. Between runs with other seeds about one number in "
    "a hundred is told apart by chance; a number without an interval never is."
)


class Comparison(NamedTuple):
    """The result of `compare`: whether the numbers agree, in one line and as a page."""

    agrees: bool
    verdict: str
    page: str


@contextmanager
def committed(folder: Path) -> Iterator[tuple[Path, str]]:
    """The content of `folder` at HEAD, in a temporary folder, and the commit; MiramError if git has none."""
    remedy = "Name the folder to compare with: miram compare A B."
    git = [*GIT, "-C", str(folder)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True).stdout
        archive = subprocess.run([*git, "archive", "--format=tar", "HEAD"], check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise MiramError(f"git is not installed, so {folder} as committed is not available.", remedy) from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise MiramError(f"git has no {folder} at HEAD ({reason}).", remedy) from error
    with TemporaryDirectory(prefix="miram-compare-") as place:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                file = Path(place, member.name)
                file.parent.mkdir(parents=True, exist_ok=True)
                if content := tar.extractfile(member):
                    file.write_bytes(content.read())
        yield Path(place), commit.decode().strip()


def compare(first: Path, second: Path, names: tuple[str, str]) -> Comparison:
    """Compare two results folders; `names` are theirs on the page. Raises MiramError if one has no metrics."""
    folders = Path(first), Path(second)
    numbers = graded(*(read_metrics(folder / "metrics.csv") for folder in folders))
    damage = {name: list(_damage(folder, name)) for folder, name in zip(folders, names, strict=True)}
    verdict = _verdict(numbers, damage, names)
    lines = [verdict, ""]
    lines += [f"damaged: {finding}" for findings in damage.values() for finding in findings] + [""] * any(
        damage.values()
    )
    lines += _numbers_text(numbers, names)
    lines += ["", paragraph(LEGEND), "", _files_text(folders), ""]
    lines += [f"What differs between the two runs ({names[0]} against {names[1]}):", *_differences_text(folders)]
    good = not any(damage.values()) and worst(list(numbers["grade"])) not in (TOLD_APART, MISSING)
    return Comparison(good, verdict, "\n".join(lines))


def _damage(folder: Path, name: str) -> Iterator[str]:
    """The files of a folder that differ from its crate."""
    try:
        files, _ = read_crate(folder)
    except MiramError as fault:
        yield fault.message.replace(str(folder), name)
        return
    for file, sha256 in files.items():
        yield from (text.replace(str(folder), name) for text in differing(folder / file, sha256, folder / METADATA))


def _verdict(numbers: pd.DataFrame, damage: dict[str, list[str]], names: tuple[str, str]) -> str:
    """The outcome in one line."""
    for name, findings in damage.items():
        if findings:
            more = f" (and {len(findings) - 1} more)" * (len(findings) > 1)
            return f"{name} disagrees with its own crate: {findings[0]}{more}"
    grades = _by_method(numbers).drop(MAJORITY, errors="ignore")
    apart, lacking = (list(grades.index[grades == grade]) for grade in (TOLD_APART, MISSING))
    rest, methods = worst(list(numbers["grade"])), f"of {len(grades)} methods"
    agree, differ = f"{names[0]} agrees with {names[1]}", f"{names[0]} differs from {names[1]}"
    if lacking:
        return f"{differ}: numbers of {', '.join(lacking)} are missing in one of the two"
    if apart:
        return f"{differ}: {len(apart)} {methods} beyond their intervals ({', '.join(apart)})"
    if rest in (TOLD_APART, MISSING):
        return f"{differ}: the {MAJORITY} was measured on other test lesions"
    if rest == SAME:
        return f"{agree}: {len(grades)} {methods} the same, to the last digit"
    if rest == NUMERICS:
        return f"{agree}: {len(grades)} {methods} within numerics ({NUMERICS_LIMIT})"
    return (
        f"{agree}: {len(grades)} {methods} within their intervals, {(grades != AGREES).sum()} of these within numerics"
    )


def _by_method(numbers: pd.DataFrame) -> pd.Series:
    return numbers.groupby("method", sort=False)["grade"].agg(worst)


def _numbers_text(numbers: pd.DataFrame, names: tuple[str, str]) -> Iterator[str]:
    """One line per method with the grades of its metrics, and below it the largest differences."""
    width = numbers["method"].str.len().max()
    for method, grade in _by_method(numbers).items():
        own = numbers[numbers["method"] == method]
        metrics = own.groupby("metric", sort=False)["grade"].agg(worst)
        told = [(name, list(metrics.index[metrics == name])) for name in GRADES]
        listed = "; ".join(f"{name}: {', '.join(found)}" for name, found in told if found)
        text = f"all {len(own)} numbers" if len(set(metrics)) == 1 else listed
        yield paragraph(f"{method:{width}}  {grade:10}  {text}", " " * (width + 14))
        yield from (f"{'':{width}}  {line}" for line in [*_seeds(own), *_missing(own, names), *_farthest(own, grade)])


def _seeds(own: pd.DataFrame) -> Iterator[str]:
    """Where the two runs have different seeds of a method."""
    other = own[(own["seeds_1"] != own["seeds_2"]) & (own["grade"] != MISSING)]
    for (first, second), part in other.groupby(["seeds_1", "seeds_2"], sort=False):
        yield f"seeds {first or 'none'} against {second or 'none'} ({', '.join(dict.fromkeys(part['mode']))})"


def _missing(own: pd.DataFrame, names: tuple[str, str]) -> Iterator[str]:
    """The sections and metrics of a method that only one run has."""
    lacking = own[own["grade"] == MISSING]
    for section, part in lacking.groupby(list(SECTION), sort=False):
        for run, other in ((0, 1), (1, 0)):
            only = part.loc[part[f"value_{other + 1}"].isna() & part[f"value_{run + 1}"].notna(), "metric"]
            if len(only):
                yield f"only in {names[run]}: {'/'.join(map(str, section))}: {', '.join(only)}"


def _farthest(own: pd.DataFrame, grade: str) -> Iterator[str]:
    """The numbers that decide a method's grade, largest difference first, with both intervals."""
    if grade not in (AGREES, TOLD_APART):
        return
    found = own[own["grade"] == grade]
    order = (found["value_1"] - found["value_2"]).abs().sort_values(ascending=False, kind="stable").index
    for row in found.loc[order[:SHOWN]].to_dict("records"):
        values = " against ".join(
            f"{row[f'value_{n}']:.4f} [{row[f'low_{n}']:.4f}, {row[f'high_{n}']:.4f}]" for n in (1, 2)
        )
        yield f"{row['metric']} {'/'.join(row[name] for name in SECTION)}: {values}"
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN} more that {'are told apart' if grade == TOLD_APART else 'move less'}"


def _files_text(folders: tuple[Path, Path]) -> str:
    """Which files have the same bytes."""
    found = [{path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} for folder in folders]
    every = sorted((found[0].keys() | found[1].keys()) - {METADATA})
    others = [name for name in every if found[0].get(name) != found[1].get(name)]
    text = f"Of {len(every)} files {len(every) - len(others)} have the same bytes"
    return paragraph(f"{text}; different, or missing in one: {', '.join(others)}." if others else f"{text}.")


def _differences_text(folders: tuple[Path, Path]) -> list[str]:
    """One line per difference between the two runs, or per fact that one of them did not record."""
    lines = [*_parameter_lines(folders), *_origin_lines(folders), *_lock_lines(folders)]
    return [paragraph(f"  {line}", "    ") for line in lines] or ["  nothing that is recorded"]


def _parameter_lines(folders: tuple[Path, Path]) -> Iterator[str]:
    """One line per parameter, with both values and the stages that read it."""
    first, second = (_or_nothing(lambda folder: read_crate(folder)[1], folder) for folder in folders)
    shared: dict[tuple[str, str], list[str]] = {}
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            stage, _, key = name.partition(".")
            values = " against ".join(
                ", ".join(map(json.dumps, found[name])) if name in found else NOT_RECORDED for found in (first, second)
            )
            shared.setdefault((key, values), []).append(stage)
    for (key, values), stages in shared.items():
        yield f"parameter {key} ({', '.join(stages)}): {values}"


def _origin_lines(folders: tuple[Path, Path]) -> Iterator[str]:
    """Code by stage, commit, lock, image, machine and packages."""
    first, second = (_or_nothing(read_origin, folder) for folder in folders)
    names = [*ALWAYS, *sorted((first.keys() | second.keys()) - set(ALWAYS))]
    code = [name for name in names if name.startswith("code ") and first.get(name) != second.get(name)]
    if code:
        yield f"code of the stages {', '.join(name.removeprefix('code ') for name in code)}"
    for name in names:
        both = first.get(name), second.get(name)
        known = name in ALWAYS or None not in both
        if name not in code and known and both[0] != both[1]:
            yield f"{ORIGINS.get(name, name)}: {' against '.join(map(_told, both))}"
    unknown = [
        ORIGINS.get(name, name) for name in ALWAYS if name not in first and name not in second and name != "image"
    ]
    if unknown:
        yield f"{NOT_RECORDED} by either: {', '.join(unknown)}"


def _lock_lines(folders: tuple[Path, Path]) -> Iterator[str]:
    """The number of different instances of the data."""
    locks = [folder / LOCK for folder in folders]
    first, second = (set(lock.read_bytes().splitlines()[1:]) if lock.is_file() else None for lock in locks)
    if first is None or second is None:
        if first != second:
            yield f"data lock {LOCK}: there is one in the {'first' if second is None else 'second'} folder only"
    elif first != second:
        counts = f"{len(first - second)} of {len(first)} against {len(second - first)} of {len(second)}"
        yield f"data lock {LOCK}: different instances, {counts}"


def _or_nothing(read: Callable[[Path], dict[str, list]], folder: Path) -> dict[str, list]:
    """A damaged crate counts as empty; the top of the page says that it is damaged."""
    try:
        return read(folder)
    except MiramError:
        return {}


def _told(values: list[str] | None) -> str:
    """Values in one text; digests and commits are cut short."""
    if values is None:
        return NOT_RECORDED
    return ", ".join(_short(value) for value in values)


def _short(value: str) -> str:
    digest, plus, rest = value.removeprefix("sha256:").partition("+")
    hexadecimal = len(digest) >= 40 and not set(digest) - set("0123456789abcdef")
    return digest[:SHORT] + plus + rest if hexadecimal else value
