import email.utils
import threading
from types import SimpleNamespace

import pytest
from faults import endless, hang, status
from tiny_archive import send

from miram.data.transfer import http as module
from miram.data.transfer.http import Fault, Http

PATIENT = 20.0  # seconds that only a hang takes


def asked_of(server, answer) -> threading.Event:
    """Have the server give an answer to the next request; the event tells that it came."""
    asked = threading.Event()
    server.faults["any"] = [lambda handler, files: (asked.set(), answer(handler, files))]
    return asked


def run(http: Http, url: str, failures: list[Fault], read) -> threading.Thread:
    def work() -> None:
        try:
            http.get(url, {}, read)
        except Fault as fault:
            failures.append(fault)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_stop_ends_a_client_that_waits_for_its_next_try(server):
    asked = asked_of(server, status(500))
    http = Http(attempts=3, timeout_seconds=PATIENT, backoff_seconds=10_000.0)
    failures = []
    thread = run(http, f"{server.url}/any", failures, lambda response: None)
    assert asked.wait(PATIENT)
    http.stop()
    thread.join(PATIENT)
    assert not thread.is_alive() and str(failures[0]) == "HTTP status 500: busy" and server.asked["any"] == 1


def test_stop_ends_a_client_that_reads(server):
    asked = asked_of(server, endless)
    http = Http(attempts=1, timeout_seconds=PATIENT, backoff_seconds=0.1)
    failures = []
    thread = run(http, f"{server.url}/any", failures, lambda response: sum(map(len, http.chunks(response, 1 << 60))))
    assert asked.wait(PATIENT)
    http.stop()
    thread.join(PATIENT)
    assert not thread.is_alive() and str(failures[0]) == "the download was stopped"


def test_a_server_that_hangs_is_left_after_the_timeout_and_asked_again(server):
    server.faults["any"] = [hang] * 2
    http = Http(attempts=2, timeout_seconds=0.5, backoff_seconds=0.01)
    with pytest.raises(Fault, match="timed out"):
        http.get(f"{server.url}/any", {}, lambda response: response.content)
    assert server.asked["any"] == 2


def test_a_server_that_names_a_time_is_waited_for_so_long_and_at_most_ten_minutes(server, monkeypatch):
    now = 1_700_000_000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))
    in_a_minute = email.utils.formatdate(now + 60.0)
    server.faults["any"] = [status(503, Retry_After=asked) for asked in ("7", "9999", in_a_minute)]
    http = Http(attempts=4, timeout_seconds=PATIENT, backoff_seconds=0.2)
    waits = []
    monkeypatch.setattr(http._stopped, "wait", waits.append)
    server.faults["any"].append(status(400))
    with pytest.raises(Fault):
        http.get(f"{server.url}/any", {}, lambda response: None)
    assert waits == [7.0, 600.0, 60.0]


def test_other_bytes_than_were_asked_for_are_a_fault(server):
    server.faults["any"] = [status(206, Content_Range="bytes 0-2/10")]
    http = Http(attempts=1, timeout_seconds=PATIENT, backoff_seconds=0.2)
    with pytest.raises(Fault, match="bytes 2-4 were requested, but bytes 0-2/10 came"):
        http.get(f"{server.url}/any", {}, lambda response: None, (2, 5))


def test_waits_double_and_are_jittered_by_half(server, monkeypatch):
    server.faults["any"] = [lambda handler, files: send(handler, b"", 503)] * 3
    http = Http(attempts=3, timeout_seconds=PATIENT, backoff_seconds=0.2)
    waits, jitter = [], []
    monkeypatch.setattr(http._stopped, "wait", waits.append)
    monkeypatch.setattr("random.uniform", lambda least, most: jitter.append((least, most)) or 1.0)
    with pytest.raises(Fault):
        http.get(f"{server.url}/any", {}, lambda response: None)
    assert waits == [0.2, 0.4] and jitter == [(0.5, 1.5)] * 2
