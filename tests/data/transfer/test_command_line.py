"""The stage crops as a user runs it: by the command line, in a process of its own, against the server on loopback."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest
import yaml
from faults import html, reset, short, status, wrong_md5
from tiny_archive import FILM_SHAPE, Archive, Server, mask_of, send, zip_bytes

from miram import layout
from miram.data.transfer.ledger import read_ledger

ROOT = Path(__file__).parents[3]
DISK_BYTES = 210_000_000  # a little more than what the plan holds in reserve
ATTEMPTS = 2


@pytest.fixture(params=[12])
def archive(request) -> Archive:
    """As many lesions, each on a film of its own, numbered in the order in which they are cut."""
    made, first = Archive(), [("calc", "test"), ("calc", "train"), ("mass", "test")]
    for number in range(request.param):
        kind, part = first[number] if number < len(first) else ("mass", "train")
        made.lesion(number, made.film(number), mask_of(FILM_SHAPE, (20, 30, 40, 60)), kind=kind, part=part)
    return made


def project(folder: Path, server: Server) -> Path:
    """A folder with the parameters of preset paper, whose archive is `server`, after the stage catalogue."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["transfer"] |= {"attempts": ATTEMPTS, "timeout_seconds": 20.0}
    paper = document["presets"]["paper"]
    paper["transfer"]["backoff_seconds"] = 0.05
    paper["sources"]["tcia"] |= {"api_url": f"{server.url}/services/v4", "csv_url": f"{server.url}/uploads"}
    paper["sources"]["tcia"]["fallback"] = None
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = miram(folder, "catalogue")
    assert done.returncode == 0, done.stderr
    server.asked.clear()
    return folder


def miram(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "miram.cli", "--preset", "paper", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def made(folder: Path) -> dict[str, bytes]:
    """Everything that the stage leaves for the next ones, by path: images, tables, both locks."""
    data, results = layout.data("paper"), layout.results("paper")
    found = [*(folder / data).glob("*/*.png"), *(folder / data).glob("*.csv"), *(folder / results).glob("*.csv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def wanted(server, tmp_path) -> dict[str, bytes]:
    """What a run without any fault leaves."""
    folder = project(tmp_path / "clean", server)
    done = miram(folder, "crops")
    assert done.returncode == 0, done.stderr
    server.asked.clear()
    return made(folder)


def require_message(done: subprocess.CompletedProcess, named: str, remedy: str) -> None:
    """Exit code 1, the fault and its remedy as the last two lines, and no stack trace."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    fault, told = done.stderr.splitlines()[-2:]
    assert re.match(rf"miram crops: .*{named}", fault) and re.search(remedy, told), done.stderr


@pytest.mark.slow
def test_series_that_fail_lastingly_are_named_with_exit_code_1_and_the_next_run_asks_for_them_alone(
    server, wanted, tmp_path
):
    faults = {"1.2.4.3": html, "1.2.4.5": reset, "1.2.3.7": wrong_md5, "1.2.4.8": short, "1.2.4.9": status(500)}
    folder = project(tmp_path / "run", server)
    server.faults = {uid: [fault] * ATTEMPTS for uid, fault in faults.items()}
    failed = miram(folder, "crops")
    require_message(
        failed, "5 series could not be downloaded: " + ".*".join(sorted(faults)), "Run the same command again"
    )
    history = read_ledger(folder / layout.ledger("paper"))
    lines = map(json.loads, (folder / layout.ledger("paper")).read_text().splitlines())
    assert {line["series"] for line in lines if line["state"] == "set_aside" and line["reason"]} == faults.keys()
    assert not (folder / layout.record("crops", "paper")).exists()
    assert made(folder).items() <= wanted.items()
    server.asked.clear()
    done = miram(folder, "crops")
    assert done.returncode == 0, done.stderr
    assert faults.keys() <= server.asked.keys() and not history.verified.keys() & server.asked.keys()
    assert made(folder) == wanted


@pytest.mark.slow
def test_a_series_that_the_archive_lacks_is_told_and_its_lesion_set_aside_with_exit_code_0(server, tmp_path):
    server.unlisted = {"1.2.4.5"}
    folder = project(tmp_path / "run", server)
    done = miram(folder, "crops")
    assert done.returncode == 0, done.stderr
    assert server.asked.keys() == server.archive.series.keys() - server.unlisted
    aside = pd.read_csv(folder / layout.data("paper") / "set_aside.csv")
    assert list(aside["lesion_id"]) == ["Mass-Training_P_00005_LEFT_CC_1"] and "1.2.4.5" in aside["reason"][0]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own of DISK_BYTES, in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs a file system of its own, and may not mount one: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, left_bytes: int) -> None:
    """Take all room of a disk but `left_bytes`, whatever others write meanwhile."""
    with open(disk / "ballast", "wb") as stream:
        while (room := free(disk) - left_bytes) > 0:
            with suppress(OSError):  # others were quicker
                os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, room)


def free(disk: Path) -> int:
    there = os.statvfs(disk)
    return there.f_bavail * there.f_frsize


@pytest.mark.slow
@pytest.mark.parametrize("archive", [80], indirect=True)
def test_a_disk_that_fills_up_is_named_and_after_making_room_nothing_is_done_twice(server, wanted, tmp_path):
    disk, kept = tmp_path / "disk", set()
    with small_disk(disk):
        folder = project(disk / "run", server)
        for left_kb in (0, 8, 24, 40, 60, 100, 160):  # so that it is another file each time that no longer fits

            def fill_up(handler: BaseHTTPRequestHandler, files: dict[str, bytes], left: int = 1000 * left_kb) -> None:
                fill(disk, left)
                send(handler, zip_bytes(files))

            waiting = [uid for uid in server.archive.series if uid.startswith("1.2.4.") and uid not in kept]
            server.faults = {waiting[1]: [fill_up]}
            full = miram(folder, "crops")
            require_message(full, "cannot be written: No space left on device", "[Mm]ake room|free space")
            history = read_ledger(folder / layout.ledger("paper"))
            assert made(folder).items() <= wanted.items() and not kept & server.asked.keys()
            kept = {uid for line in history.films.values() for uid in line["series"]} | history.verified.keys()
            server.asked.clear()
            print(f"{left_kb} kB left, then {len(kept)} series are kept: {full.stderr.splitlines()[-2]}")
            if left_kb == 0:
                require_message(miram(folder, "crops"), r"has 0\.00 GB free, and 0\.20 GB are needed", "Free space")
            (disk / "ballast").unlink()
        done = miram(folder, "crops")
        assert done.returncode == 0, done.stderr
        assert made(folder) == wanted and not kept & server.asked.keys()
