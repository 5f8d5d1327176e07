import email.utils
import threading
import time

import pytest
from faults import status
from tiny_archive import send

from miram.data.transfer.http import Fault, Http


def run(http: Http, url: str, failures: list[Fault], read) -> threading.Thread:
    def work() -> None:
        try:
            http.get(url, {}, read)
        except Fault as fault:
            failures.append(fault)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_stop_ends_a_client_that_waits_for_its_next_try(server):
    server.faults["any"] = [lambda handler, files: send(handler, b"", 500)] * 2
    http = Http(attempts=3, timeout_seconds=5.0, backoff_seconds=100.0)
    failures = []
    thread = run(http, f"{server.url}/any", failures, lambda response: None)
    while not server.asked["any"]:
        time.sleep(0.01)
    http.stop()
    thread.join(5.0)
    assert not thread.is_alive() and str(failures[0]) == "HTTP status 500" and server.asked["any"] == 1


def test_stop_ends_a_client_that_reads(server):
    def slow(handler, files):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(500):
                handler.wfile.write(bytes(1 << 18))
                time.sleep(0.01)
        except OSError:
            handler.close_connection = True

    server.faults["any"] = [slow]
    http = Http(attempts=1, timeout_seconds=5.0, backoff_seconds=0.1)
    failures = []
    thread = run(http, f"{server.url}/any", failures, lambda response: list(http.chunks(response, 1 << 40)))
    while not server.asked["any"]:
        time.sleep(0.01)
    http.stop()
    thread.join(2.0)
    assert not thread.is_alive() and str(failures[0]) == "the download was stopped"


def test_a_server_that_names_a_time_is_waited_for_so_long_and_at_most_ten_minutes(server, monkeypatch):
    in_a_minute = email.utils.formatdate(time.time() + 60.0)
    server.faults["any"] = [status(503, Retry_After=asked) for asked in ("7", "9999", in_a_minute)]
    http = Http(attempts=4, timeout_seconds=5.0, backoff_seconds=0.2)
    waits = []
    monkeypatch.setattr(http._stopped, "wait", waits.append)
    server.faults["any"].append(status(400))
    with pytest.raises(Fault):
        http.get(f"{server.url}/any", {}, lambda response: None)
    assert waits == [7.0, 600.0, pytest.approx(60.0, abs=2.0)]


def test_other_bytes_than_were_asked_for_are_a_fault(server):
    server.faults["any"] = [status(206, Content_Range="bytes 0-2/10")]
    http = Http(attempts=1, timeout_seconds=5.0, backoff_seconds=0.2)
    with pytest.raises(Fault, match="bytes 2-4 were asked for, bytes 0-2/10 came"):
        http.get(f"{server.url}/any", {}, lambda response: None, (2, 5))


def test_waits_double_and_are_jittered_by_half(server, monkeypatch):
    server.faults["any"] = [lambda handler, files: send(handler, b"", 503)] * 3
    http = Http(attempts=3, timeout_seconds=5.0, backoff_seconds=0.2)
    waits, jitter = [], []
    monkeypatch.setattr(http._stopped, "wait", waits.append)
    monkeypatch.setattr("random.uniform", lambda least, most: jitter.append((least, most)) or 1.0)
    with pytest.raises(Fault):
        http.get(f"{server.url}/any", {}, lambda response: None)
    assert waits == [0.2, 0.4] and jitter == [(0.5, 1.5)] * 2
