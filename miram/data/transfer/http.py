"""HTTP GET for an archive that breaks off: polite retries, and bodies that are read in pieces and bounded."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NameResolutionError, NewConnectionError

T = TypeVar("T")
CHUNK_BYTES = 1 << 18
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}
LONGEST_WAIT_SECONDS = 600.0  # a server's Retry-After beyond this is not followed
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Fault(Exception):
    """One try of a transfer went wrong.

    `lasting`: another try would bring the same. `unreachable`: nobody answers at the address at all. `wait_seconds`:
    what the server asks to wait before the next try.
    """

    def __init__(
        self, reason: str, *, lasting: bool = False, unreachable: bool = False, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.unreachable = unreachable
        self.wait_seconds = wait_seconds


class Http:
    """A client that threads share: `attempts` tries a request, waiting `backoff_seconds`, then twice that, and so on.

    `timeout_seconds`: how long to wait for a connection, and for the next byte.
    """

    def __init__(self, *, attempts: int, timeout_seconds: float, backoff_seconds: float) -> None:
        self._attempts = attempts
        self._timeout_seconds = timeout_seconds
        self._backoff_seconds = backoff_seconds
        self._sessions = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all requests of all threads as soon as they next wait or read; they raise Fault."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def get(
        self,
        url: str,
        params: dict[str, str],
        read: Callable[[requests.Response], T],
        byte_range: tuple[int, int] | None = None,
    ) -> T:
        """Return `read(response)` of the first try that succeeds.

        `read` consumes the body and raises Fault when it is not what it should be; that counts as a failed try.
        `byte_range`: ask for these bytes alone, the half-open range (start, end); an answer with others is a fault.
        Raises the last Fault when no try is left.
        """
        tried = 0
        while True:
            tried += 1
            try:
                return self._try(url, params, read, byte_range)
            except Fault as fault:
                if fault.lasting or tried == self._attempts:
                    raise
                # Jitter: clients that failed together shall not come back together.
                wait = self._backoff_seconds * 2 ** (tried - 1) * random.uniform(0.5, 1.5)
                if self._stopped.wait(max(wait, min(fault.wait_seconds, LONGEST_WAIT_SECONDS))):
                    raise

    def chunks(self, response: requests.Response, limit_bytes: int) -> Iterator[bytes]:
        """Yield the body piece by piece. Raises Fault once it is longer than `limit_bytes`."""
        length = 0
        for chunk in response.iter_content(CHUNK_BYTES):
            length += len(chunk)
            if length > limit_bytes:
                raise Fault(f"the body is longer than {limit_bytes} bytes, the most that can be right")
            if self._stopped.is_set():
                raise Fault("the download was stopped")
            yield chunk

    def _try(
        self,
        url: str,
        params: dict[str, str],
        read: Callable[[requests.Response], T],
        byte_range: tuple[int, int] | None,
    ) -> T:
        headers, expected = {}, requests.codes.ok
        if byte_range:
            span = f"{byte_range[0]}-{byte_range[1] - 1}"
            headers, expected = {"Range": f"bytes={span}"}, requests.codes.partial_content
        try:
            session = self._session(url)
            with session.get(
                url, params=params, headers=headers, stream=True, timeout=self._timeout_seconds
            ) as response:
                if response.status_code == requests.codes.ok != expected:
                    raise Fault("the server sends whole files only, no ranges of them", lasting=True)
                if response.status_code != expected:
                    raise _status_fault(response)
                if byte_range and not response.headers.get("Content-Range", "").startswith(f"bytes {span}/"):
                    raise Fault(f"bytes {span} were asked for, {response.headers.get('Content-Range')} came")
                return read(response)
        except requests.RequestException as error:
            # A malformed address is a ValueError too, and stays malformed.
            raise Fault(str(error), lasting=isinstance(error, ValueError), unreachable=_unreachable(error)) from error

    def _session(self, url: str) -> requests.Session:
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()  # one a thread: a session is not made to be shared
        # A proxy of the environment cannot reach this machine's own loopback.
        self._sessions.session.trust_env = urlsplit(url).hostname not in LOOPBACK
        return self._sessions.session


def beginning(body: bytes) -> str:
    """The first bytes of a body that is not what was asked for, for a message."""
    return " ".join(body[:200].decode("utf-8", "replace").split())[:80]


def _status_fault(response: requests.Response) -> Fault:
    start = beginning(next(response.iter_content(200), b""))
    return Fault(
        f"HTTP status {response.status_code}: {start}" if start else f"HTTP status {response.status_code}",
        lasting=response.status_code not in RETRY_STATUS,
        wait_seconds=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date); 0 for none or a broken one."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _unreachable(error: requests.RequestException) -> bool:
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError | NameResolutionError | ConnectTimeoutError)
