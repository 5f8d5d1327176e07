"""A first source, and a second with the same files for what the first does not give.

A series that the first gives wrongly, after all its tries, comes from the second. When the first answers nobody, or
fails on several series in a row, the rest comes from the second without asking the first any more. Which of them gave a
series stands in the ledger; what was to be verified of it does not depend on that.
"""

import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from miram.data.transfer.http import Fault, Http
from miram.data.transfer.sources.series import Fetched, OpenFilm, Series, Source

T = TypeVar("T")
GIVE_UP_AFTER = 3  # series in a row that the second gave in its place: the first is out, not a series broken


class Fallback:
    """Two sources of one archive; `second` opens the other one when it is first needed. Films come whole."""

    read_rows: Callable[[Series, Path], OpenFilm] | None = None

    def __init__(self, http: Http, first: Source, second: Callable[[], Source]) -> None:
        self.origin = first.origin
        self._http = http
        self._first = first
        self._open_second = second
        self._second: Source | None = None
        self._in_a_row = 0
        self._lock = threading.Lock()

    def list_series(self, uids: Iterable[str]) -> dict[str, Series]:
        """Those of the series `uids` that the first source has, and of the others those that the second has."""
        uids = list(uids)
        try:
            found = self._first.list_series(uids)
        except Fault as fault:
            listed = self._ask_second(fault, lambda second: second.list_series(uids))
            self._go_over(fault)
            return listed
        missing = [uid for uid in uids if uid not in found]
        return found | self._other().list_series(missing) if missing else found

    def fetch_series(self, series: Series, folder: Path) -> Fetched:
        """Fetch a series from the first source, or else from the second; see `Source`."""
        if self.origin != self._first.origin:
            return self._fetch_second(self._other(), series, folder)
        try:
            fetched = self._first.fetch_series(series, folder)
        except Fault as fault:
            if self._http.stopped:
                raise
            fetched = self._ask_second(fault, lambda second: self._fetch_second(second, series, folder))
            self._count(series, fault, fetched)
        else:
            self._in_a_row = 0
        return fetched

    def _fetch_second(self, second: Source, series: Series, folder: Path) -> Fetched:
        shutil.rmtree(folder, ignore_errors=True)  # what the first has left
        listed = second.list_series([series.uid]).get(series.uid)
        if listed is None or listed.images != series.images:
            images = listed.images if listed else 0
            raise Fault(f"{second.origin} has {images} images of it, not {series.images}", lasting=True)
        return second.fetch_series(listed, folder)

    def _ask_second(self, fault: Fault, ask: Callable[[Source], T]) -> T:
        """What the second source gives after the first has failed; a Fault names what was wrong with both."""
        try:
            return ask(self._other())
        except Fault as other:
            names = f"{self._first.origin}: {fault}; and in its place: {other}"
            raise Fault(names, unreachable=fault.unreachable and other.unreachable) from other

    def _other(self) -> Source:
        with self._lock:
            if self._second is None:
                self._second = self._open_second()
            return self._second

    def _count(self, series: Series, fault: Fault, fetched: Fetched) -> None:
        """Say that the second source gave a series, and go over to it when that was not the first one."""
        print(f"from {fetched.origin}: series {series.uid}, for {self._first.origin} gave {fault}", file=sys.stderr)
        with self._lock:
            self._in_a_row += 1
            is_out = fault.unreachable or self._in_a_row >= GIVE_UP_AFTER
        if is_out:
            self._go_over(fault)

    def _go_over(self, fault: Fault) -> None:
        second = self._other().origin
        with self._lock:
            if self.origin == second:  # another thread was quicker
                return
            self.origin = second
        print(
            f"{self._first.origin.upper()} does not answer as it should ({fault}). The rest comes from "
            f"{second.upper()}, which has the same files.",
            file=sys.stderr,
            flush=True,
        )
