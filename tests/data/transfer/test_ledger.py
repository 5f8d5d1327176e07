import errno
import json
import os
import threading
import time

import pytest

from miram.data.transfer.ledger import open_ledger, read_ledger
from miram.data.transfer.receipt import Item
from miram.errors import MiramError

ITEM = Item("1-1.dcm", 10, "m", "s", "1.2.3.4")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_series_goes_through_its_states_and_the_file_tells_them(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger.verified("film", "tcia", [ITEM], 2.0)
        ledger.verified("there", "untold", [ITEM], 0.0)  # already on disk: no transfer
        ledger.fetched("mask", "idc", 10)
        ledger.set_aside("lost", "HTTP status 500")
        ledger.cropped("film", ["film", "mask"], "key", [{"lesion_id": "a"}], [], [])
        history = ledger.history
    assert [line["state"] for line in lines(path)] == [*["verified"] * 2, "fetched", "set_aside", "cropped"]
    assert lines(path)[3] == {"state": "set_aside", "series": "lost", "reason": "HTTP status 500"}
    assert history.films == {"film": lines(path)[4]}
    assert history.verified == {"film": [ITEM], "there": [ITEM]}
    assert history.origins == {"film": "tcia", "there": "untold", "mask": "idc"}
    assert (history.transferred_bytes, history.transfer_seconds) == (10, 2.0)
    assert read_ledger(path) == history


def test_a_ledger_of_before_that_plans_series_and_tells_no_origin_is_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    planned = {"state": "planned", "series": "film", "role": "film", "images": 1, "bytes": 10}
    verified = {"state": "verified", "series": "film", "seconds": 1.0, "files": [ITEM._asdict()]}
    path.write_text("".join(json.dumps(line) + "\n" for line in (planned, verified)))
    assert read_ledger(path).origins == {"film": "untold"}


def test_a_line_that_a_kill_tore_is_ignored_and_removed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger.verified("film", "tcia", [ITEM], 0.0)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole + whole[:length])
        assert read_ledger(path).verified == {"film": [ITEM]}
        with open_ledger(path) as ledger:
            ledger.set_aside("other", "why")
        assert len(lines(path)) == 2


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger.set_aside("one", "why")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError) as caught:
            ledger.cropped("film", ["film"], "key", [], [], [])
        assert caught.value.filename == str(path)
        ledger.set_aside("two", "why")
    assert [line["series"] for line in lines(path)] == ["one", "two"]
    assert not ledger.history.films


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"state": "set_aside", "series": "1", "reason": "x"}\nnonsense\n')
    with pytest.raises(MiramError, match=r"Line 2 of .*ledger\.jsonl is damaged"):
        read_ledger(path)


class InParts:
    """A stream that takes 100 bytes at a time, as a disk may, and lets other threads go on in between."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        written = self._stream.write(text[:100])
        time.sleep(0)
        return written


def test_threads_write_whole_lines_also_where_the_disk_takes_them_in_parts(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger._stream = InParts(ledger._stream)
        write = [
            threading.Thread(target=lambda n=n: [ledger.set_aside(f"{n}.{k}", "x" * 500) for k in range(50)])
            for n in range(4)
        ]
        for thread in write:
            thread.start()
        for thread in write:
            thread.join(120)
    assert len({line["series"] for line in lines(path)}) == 200
