"""HTTP GET for an archive with broken transfers: polite retries, and bodies that are read in pieces up to a limit."""

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
LONGEST_WAIT_SECONDS = 600.0  # a longer Retry-After is ignored
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Fault(Exception):
    """One attempt of a transfer failed.

    `lasting`: another attempt would fail in the same way. `unreachable`: nothing answers at the address.
    `wait_seconds`: the delay that the server requests before the next attempt.
    """

    def __init__(
        self, reason: str, *, lasting: bool = False, unreachable: bool = False, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.lasting = lasting
        self.unreachable = unreachable
        self.wait_seconds = wait_seconds


class Http:
    """A client shared by threads: up to `attempts` per request, with pauses of `backoff_seconds`, then twice that, etc.

    `timeout_seconds`: limit for the connection, and for the next byte.
    """

    def __init__(self, *, attempts: int, timeout_seconds: float, backoff_seconds: float) -> None:
        self._attempts = attempts
        self._timeout_seconds = timeout_seconds
        self._backoff_seconds = backoff_seconds
        self._sessions = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the requests of all threads at their next wait or read; they raise Fault."""
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
        """Return `read(response)` of the first attempt that succeeds.

        `read` consumes the body and raises Fault if it is wrong; that counts as a failed attempt.
        `byte_range`: request only these bytes, the half-open range (start, end); an answer with others is a Fault.
        Raises the last Fault if no attempt is left.
        """
        tried = 0
        while True:
            tried += 1
            try:
                return self._try(url, params, read, byte_range)
            except Fault as fault:
                if fault.lasting or tried == self._attempts:
                    raise
                # Jitter: clients that failed together should not retry together.
                wait = self._backoff_seconds * 2 ** (tried - 1) * random.uniform(0.5, 1.5)
                if self._stopped.wait(max(wait, min(fault.wait_seconds, LONGEST_WAIT_SECONDS))):
                    raise

    def chunks(self, response: requests.Response, limit_bytes: int) -> Iterator[bytes]:
        """Yield the body piece by piece. Raises Fault once it is longer than `limit_bytes`."""
        length = 0
        for chunk in response.iter_content(CHUNK_BYTES):
            length += len(chunk)
            if length > limit_bytes:
                raise Fault(f"the body is longer than {limit_bytes} bytes, the limit for this request")
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
                    raise Fault(f"bytes {span} were requested, but {response.headers.get('Content-Range')} came")
                return read(response)
        except requests.RequestException as error:
            # A malformed address is a ValueError too; a retry would not help.
            raise Fault(str(error), lasting=isinstance(error, ValueError), unreachable=_unreachable(error)) from error

    def _session(self, url: str) -> requests.Session:
        if not hasattr(self._sessions, "session"):
            self._sessions.session = requests.Session()  # one per thread: sessions are not thread-safe
            # An environment's proxy cannot reach this machine's loopback.
        self._sessions.session.trust_env = urlsplit(url).hostname not in LOOPBACK
        return self._sessions.session


def beginning(body: bytes) -> str:
    """The first bytes of an unexpected body, for a message."""
    return " ".join(body[:200].decode("utf-8", "replace").split())[:80]


def _status_fault(response: requests.Response) -> Fault:
    start = beginning(next(response.iter_content(200), b""))
    return Fault(
        f"HTTP status {response.status_code}: {start}" if start else f"HTTP status {response.status_code}",
        lasting=response.status_code not in RETRY_STATUS,
        wait_seconds=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date); 0 if missing or malformed."""
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
