import io
import re
import sys
from types import SimpleNamespace

import pytest

from miram import progress


def clock_of(monkeypatch, *seconds):
    """Let progress see these times, one each time that it looks."""
    times = iter(seconds)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_tells_how_far_it_is_what_time_remains_and_the_note(capsys, monkeypatch):
    clock_of(monkeypatch, 100.0, 110.0, 125.0, 125.0)  # the start, each of two items, the end
    seen = []
    for item in progress.track("ab", "work", note=lambda: f"{len(seen)} seen"):
        seen.append(item)
    assert capsys.readouterr().err.splitlines() == [
        "work: 1/2 in 10 s, 10 s left, 1 seen",
        "work: 2/2 in 25 s, 2 seen",
        "work: 2/2 in 25 s, 2 seen",
    ]


def test_the_time_that_remains_follows_from_the_time_taken(capsys, monkeypatch):
    clock_of(monkeypatch, 0.0, 5.0, 30.0, 35.0, 60.0, 60.0)
    assert list(progress.track(range(4), "work")) == [0, 1, 2, 3]
    assert "work: 2/4 in 30 s, 30 s left\n" in capsys.readouterr().err


@pytest.mark.parametrize("total", [None, 3])
def test_without_a_length_only_a_given_total_gives_a_time(capsys, monkeypatch, total):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(progress.track(iter("abc"), "work", total=total)) == ["a", "b", "c"]
    assert ("left" in capsys.readouterr().err) == (total is not None)


def test_a_terminal_gets_a_bar_with_the_note(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.track(range(3), "work", note=lambda: "7 images/s")) == [0, 1, 2]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "work" in shown and "3/3" in shown and "7 images/s" in shown
