"""Progress: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(
    iterable: Iterable[T], description: str, total: int | None = None, note: Callable[[], str] = lambda: ""
) -> Iterator[T]:
    """Yield the items of `iterable` and show progress and remaining time on standard error.

    `total` is needed if it has no length; `note()`, called after each item, is appended.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total, note="")
            for item in iterable:
                yield item
                bar.update(task, advance=1, note=note())
        return
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            _line(description, done, total, now - start, note())
            last = now
    _line(description, done, total, time.monotonic() - start, note())


def _line(description: str, done: int, total: int | None, seconds: float, note: str) -> None:
    of = "" if total is None else f"/{total}"
    parts = [f"{description}: {done}{of} in {seconds:.0f} s"]
    if total is not None and 0 < done < total:
        parts.append(f"{seconds * (total - done) / done:.0f} s left")
    print(", ".join([*parts, note] if note else parts), file=sys.stderr, flush=True)
