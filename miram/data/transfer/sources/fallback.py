"""A first source, and a second with the same files for series that the first does not deliver.

A series that the first source fails to deliver after all attempts comes from the second. If the first does not answer,
or fails on several consecutive series, the rest comes only from the second. The ledger records which source delivered a
series; verification does not depend on it.
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
GIVE_UP_AFTER = 3  # consecutive series from the second source: then the first is down


class Fallback:
    """Two sources of one archive; `second` opens the other one when it is first needed. Films are fetched whole."""

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
        """Those of the series `uids` that the first or the second source has."""
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
        shutil.rmtree(folder, ignore_errors=True)  # left by the first
        listed = second.list_series([series.uid]).get(series.uid)
        if listed is None or listed.images != series.images:
            images = listed.images if listed else 0
            raise Fault(f"{second.origin} has {images} images of it, not {series.images}", lasting=True)
        return second.fetch_series(listed, folder)

    def _ask_second(self, fault: Fault, ask: Callable[[Source], T]) -> T:
        """Fetch from the second source after the first has failed; a Fault names the errors of both."""
        try:
            return ask(self._other())
        except Fault as other:
            names = f"{self._first.origin}: {fault}; and the second source: {other}"
            raise Fault(names, unreachable=fault.unreachable and other.unreachable) from other

    def _other(self) -> Source:
        with self._lock:
            if self._second is None:
                self._second = self._open_second()
            return self._second

    def _count(self, series: Series, fault: Fault, fetched: Fetched) -> None:
        """Report that the second source delivered a series, and switch to it for good after several."""
        print(f"from {fetched.origin}: series {series.uid}, as {self._first.origin} failed: {fault}", file=sys.stderr)
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
            f"{self._first.origin.upper()} does not answer correctly ({fault}). The rest comes from "
            f"{second.upper()}, which has the same files.",
            file=sys.stderr,
            flush=True,
        )
