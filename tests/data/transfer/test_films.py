import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest
import tiny_archive
from faults import FAULTS, hang, html, reset, status
from PIL import Image
from tiny_archive import FILM_SHAPE, Archive, Server, mask_of, send
from tiny_runs import CROPS, cut_tiny, lesions, list_tiny, made, places_in, run_tiny, tcia

from miram.data.crop_rules import Cutting
from miram.data.transfer import films as module
from miram.data.transfer.films import PARTIAL, plan_films
from miram.data.transfer.ledger import read_ledger
from miram.data.transfer.sources import tcia as tcia_module
from miram.errors import MiramError

UID = "1.2.4.2"  # the series that has the faults


def more_lesions(archive: Archive, numbers: range) -> None:
    for number in numbers:
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))


def series_asked(server: Server) -> dict[str, int]:
    return {uid: count for uid, count in server.asked.items() if uid in server.archive.series}


def states(folder: Path) -> dict[str, str]:
    """The last state of each series in the ledger."""
    found = {}
    for line in map(json.loads, (folder / "ledger.jsonl").read_text().splitlines()):
        found |= dict.fromkeys(line["series"] if line["state"] == "cropped" else [line["series"]], line["state"])
    return found


@pytest.fixture
def reference(archive, server, tmp_path) -> dict[str, bytes]:
    """What a run without any fault makes of the archive as it is now."""

    def make() -> dict[str, bytes]:
        run_tiny(tmp_path / "reference", tcia(server))
        server.asked.clear()
        return made(tmp_path / "reference")

    return make


def test_every_series_is_asked_for_once_and_goes_when_its_crops_are_cut(archive, server, tmp_path):
    archive.film(99)  # nobody needs it
    facts = run_tiny(tmp_path, tcia(server))
    assert series_asked(server) == dict.fromkeys(set(archive.series) - {"1.2.3.99"}, 1)
    assert (facts["lesions"], facts["films"], facts["verified_series"], facts["verified_images"]) == (4, 4, 8, 12)
    assert facts["backgrounds"] == len(list((tmp_path / "backgrounds").iterdir())) > 0
    assert facts["verified_bytes"] == sum(
        len(body) for uid in archive.series if uid != "1.2.3.99" for body in archive.series[uid].values()
    )
    assert list((tmp_path / "dicom").iterdir()) == []
    history = read_ledger(tmp_path / "ledger.jsonl")
    assert set(states(tmp_path).values()) == {"cropped"}
    assert (history.transferred_bytes, history.transfer_seconds > 0) == (facts["verified_bytes"], True)


def test_streaming_gives_the_bytes_of_keeping_all(archive, server, tmp_path):
    kept, streamed = tmp_path / "kept", tmp_path / "streamed"
    facts = run_tiny(kept, tcia(server), keep_dicom=True)
    assert run_tiny(streamed, tcia(server)) == facts
    assert made(kept) == made(streamed)
    for uid in archive.series:
        assert {path.name: path.read_bytes() for path in (kept / "dicom" / uid).glob("*.dcm")} == archive.series[uid]


def test_a_second_run_asks_for_nothing_and_gives_the_same(archive, server, tmp_path):
    first = run_tiny(tmp_path, tcia(server))
    before = made(tmp_path)
    server.asked.clear()
    assert cut_tiny(tmp_path, tcia(server)) == first
    assert made(tmp_path) == before and not server.asked


def test_other_parameters_cut_again_from_what_was_kept(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server), keep_dicom=True)
    server.asked.clear()
    cut_tiny(tmp_path, tcia(server), keep_dicom=True, crops=CROPS | {"margin": 0.5, "bits": 16})
    assert not server.asked
    assert set(lesions(tmp_path)["crop_columns"]) == {60}
    for path in [*(tmp_path / "crops").iterdir(), *(tmp_path / "backgrounds").iterdir()]:
        with Image.open(path) as image:
            assert image.mode == "I;16"


def test_a_changed_case_list_and_damaged_images_concern_their_films_alone(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server))
    archive.rows["mass_case_description_train_set.csv"][0]["pathology"] = "BENIGN"
    (tmp_path / "crops" / "Calc-Test_P_00003_LEFT_CC_1.png").write_bytes(b"damaged")
    (tmp_path / "backgrounds" / "background_1.2.3.2_0.png").write_bytes(b"damaged")
    server.asked.clear()
    run_tiny(tmp_path, tcia(server))
    assert set(series_asked(server)) == {f"1.2.{kind}.{film}" for kind in (3, 4) for film in (0, 2, 3)}
    assert (
        pd.read_csv(tmp_path / "lesions.csv", index_col=0).loc["Mass-Training_P_00000_LEFT_CC_1"].pathology == "BENIGN"
    )


def test_a_lesion_that_left_the_lists_leaves_tables_images_and_lock(archive, server, reference, tmp_path):
    more_lesions(archive, range(20, 21))
    run_tiny(tmp_path / "run", tcia(server))
    del archive.rows["mass_case_description_train_set.csv"][0]
    wanted = reference()
    run_tiny(tmp_path / "run", tcia(server))
    assert made(tmp_path / "run") == wanted and not series_asked(server)


def test_a_ledger_that_was_lost_is_made_again_from_what_was_kept(server, tmp_path):
    run_tiny(tmp_path, tcia(server), keep_dicom=True)
    before = made(tmp_path)
    (tmp_path / "ledger.jsonl").unlink()
    server.asked.clear()
    cut_tiny(tmp_path, tcia(server), keep_dicom=True)
    assert made(tmp_path) == before and not server.asked


def test_other_code_of_the_crops_cuts_again(server, tmp_path, monkeypatch):
    run_tiny(tmp_path, tcia(server))
    server.asked.clear()
    monkeypatch.setattr(module, "module_digest", lambda name: f"another digest of {name}")
    cut_tiny(tmp_path, tcia(server))
    assert len(series_asked(server)) == 8


def test_keeping_after_streaming_fetches_what_is_not_there(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server))
    server.asked.clear()
    cut_tiny(tmp_path, tcia(server), keep_dicom=True)
    assert set(series_asked(server)) == set(archive.series)


def test_streaming_after_keeping_removes_what_was_kept(server, tmp_path):
    run_tiny(tmp_path, tcia(server), keep_dicom=True)
    cut_tiny(tmp_path, tcia(server))
    assert list((tmp_path / "dicom").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_streaming_never_holds_more_films_than_its_window(archive, server, tmp_path, workers):
    more_lesions(archive, range(20, 60))
    list_tiny(tmp_path, tcia(server))
    dicom, held, arriving, answer, over = tmp_path / "dicom", [], [], server.answer, threading.Event()

    def look() -> None:
        with suppress(FileNotFoundError):
            held.append(len({uid.rsplit(".", 1)[-1] for uid in os.listdir(dicom) if uid != PARTIAL}))
            arriving.append(len(os.listdir(dicom / PARTIAL)))

    def watch() -> None:
        while not over.wait(0.001):
            look()

    server.answer = lambda handler: (look(), answer(handler))  # at each request, and in between as often as it goes
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cut_tiny(tmp_path, tcia(server), workers=workers)
    finally:
        over.set()
        watcher.join()
    print(f"window of {workers} films: {len(held)} looks, at most {max(held)} of 44 films on the disk")
    assert 0 < max(held) <= workers and max(arriving) <= workers  # of film n: series 1.2.3.n and 1.2.4.n


@pytest.fixture
def faulty(archive, server) -> dict[str, str]:
    """Give each fault a series of its own, which gets it twice; return the UIDs by the names of the faults."""
    uids = {}
    for number, name in enumerate(FAULTS, start=100):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))
        uids[name] = f"1.2.4.{number}"
    return uids


def set_faults(server: Server, faulty: dict[str, str]) -> None:
    server.faults = {uid: [FAULTS[name][0]] * 2 for name, uid in faulty.items()}


def require_sound(folder: Path, reference: dict[str, bytes]) -> Counter[str]:
    """No crop that differs from the reference's, no lesion twice, nothing verified that is not right; the counts."""
    history = read_ledger(folder / "ledger.jsonl")
    lock = pd.read_csv(folder.parent / "reference" / "instances.csv", dtype=str).set_index("series_uid")
    for uid, items in history.verified.items():
        assert sorted(item.sha256 for item in items) == sorted(lock.loc[[uid], "sha256"])
    crops = {path.name: path.read_bytes() for path in (folder / "crops").glob("*.png")}
    assert crops.items() <= reference.items()
    cut = [lesion["lesion_id"] for line in history.films.values() for lesion in line["lesions"]]
    assert len(set(cut)) == len(cut)
    return Counter(states(folder).values())


def test_passing_faults_of_every_kind_are_mended_by_other_tries(server, reference, faulty, tmp_path):
    wanted = reference()
    set_faults(server, faulty)
    run_tiny(tmp_path / "run", tcia(server))
    assert made(tmp_path / "run") == wanted
    counts = require_sound(tmp_path / "run", wanted)
    assert {uid for uid, count in series_asked(server).items() if count == 3} == set(faulty.values())
    print(f"{len(FAULTS)} kinds of fault, each twice: {dict(counts)}, {sum(series_asked(server).values())} requests")


def test_lasting_faults_of_every_kind_name_their_series_and_keep_the_others(
    archive, server, reference, faulty, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 1000)
    wanted = reference()
    set_faults(server, faulty)
    folder = tmp_path / "run"
    with pytest.raises(MiramError, match=rf"{len(faulty)} series could not be downloaded.*; \d+ more") as caught:
        run_tiny(folder, tcia(server), attempts=2)
    assert "Run the same command again" in caught.value.remedy
    log = capsys.readouterr().err
    for name, uid in faulty.items():
        assert re.search(rf"failed: series {uid}: .*({FAULTS[name][1]})", log), name
    first = require_sound(folder, wanted)
    assert {uid for uid, state in states(folder).items() if state == "set_aside"} == set(faulty.values())
    assert not (folder / "lesions.csv").exists()
    server.asked.clear()
    cut_tiny(folder, tcia(server))
    assert made(folder) == wanted
    assert set(series_asked(server)) == set(faulty.values())
    second = require_sound(folder, wanted)
    print(f"{len(FAULTS)} kinds of lasting fault: first {dict(first)}, exit code 1; then {dict(second)}")


def test_answers_that_come_late_are_waited_for(archive, server, reference, tmp_path, monkeypatch):
    wanted = reference()
    monkeypatch.setattr(tiny_archive, "LATE", "4,0.5")
    run_tiny(tmp_path / "run", tcia(server), attempts=1)
    assert made(tmp_path / "run") == wanted and series_asked(server) == dict.fromkeys(archive.series, 1)


@pytest.mark.slow
def test_all_of_these_tests_pass_with_every_tenth_answer_late():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(command, env={**os.environ, "MIRAM_TEST_LATE": "10,0.5"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_refusal_is_not_asked_again(server, tmp_path):
    server.faults[UID] = [status(400)] * 3
    with pytest.raises(MiramError, match="HTTP status 400"):
        run_tiny(tmp_path, tcia(server))
    assert server.asked[UID] == 1


def test_a_series_that_hangs_is_asked_for_again(server, reference, tmp_path):
    wanted = reference()
    server.faults[UID] = [hang] * 2
    # so many attempts, because a busy machine may be as slow for other series now and then
    run_tiny(tmp_path / "run", tcia(server), attempts=20, timeout_seconds=1.0)
    assert made(tmp_path / "run") == wanted and server.asked[UID] >= 3


def test_a_series_that_hangs_whenever_it_is_asked_for_is_named(server, tmp_path, capsys):
    list_tiny(tmp_path, tcia(server))
    server.faults[UID] = [hang] * 2
    with pytest.raises(MiramError, match="series could not be downloaded"):
        cut_tiny(tmp_path, tcia(server), attempts=2, timeout_seconds=1.0)
    assert re.search(rf"failed: series {UID}: .*timed out", capsys.readouterr().err)


def test_a_series_that_the_archive_does_not_have_sets_its_lesions_aside_and_nothing_else(server, tmp_path):
    server.unlisted = {UID}
    facts = run_tiny(tmp_path, tcia(server))
    assert (facts["lesions"], facts["set_aside"], facts["verified_series"]) == (3, 1, 7)
    assert server.asked[UID] == 0
    server.asked.clear()
    assert cut_tiny(tmp_path, tcia(server)) == facts and not server.asked


def test_a_damaged_series_folder_is_fetched_again(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server), keep_dicom=True)
    before = made(tmp_path)
    (tmp_path / "dicom" / UID / "1-1.dcm").write_bytes(b"short")
    (tmp_path / "dicom" / "1.2.3.0" / "receipt.csv").unlink()
    (tmp_path / "dicom" / "1.2.3.1" / "receipt.csv").write_text("file,bytes,md5\nnonsense")
    server.asked.clear()
    cut_tiny(tmp_path, tcia(server), keep_dicom=True)
    assert set(series_asked(server)) == {UID, "1.2.3.0", "1.2.3.1"}
    assert made(tmp_path) == before


def test_a_file_that_is_no_dicom_in_the_archive_itself_does_not_stop_the_rest(archive, server, tmp_path):
    archive.series["1.2.3.2"]["1-1.dcm"] = b"never was an image"
    facts = run_tiny(tmp_path, tcia(server))
    assert (facts["lesions"], facts["set_aside"]) == (3, 1)
    assert "1.2.3.2/1-1.dcm is not a DICOM file" in (tmp_path / "set_aside.csv").read_text()


def test_without_any_usable_lesion_the_stage_stops_and_says_what_to_do(archive, server, tmp_path):
    server.unlisted = {uid for uid in archive.series if uid.startswith("1.2.3.")}
    with pytest.raises(MiramError, match=r"None of the 4 lesions could be cut; .*missing or empty"):
        run_tiny(tmp_path, tcia(server))
    assert not (tmp_path / "lesions.csv").exists()


def test_crops_of_an_earlier_archive_go(archive, server, tmp_path):
    run_tiny(tmp_path, tcia(server))
    for name in ("Mass-Test_P_99999_LEFT_CC_1.png", ".Mass-Test_P_99999_LEFT_CC_1.png.part"):
        (tmp_path / "crops" / name).write_bytes(b"old")
    cut_tiny(tmp_path, tcia(server))
    assert len(list((tmp_path / "crops").iterdir())) == 4


def test_the_stage_gives_up_when_the_server_dies_and_goes_on_when_it_is_back(
    archive, server, reference, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 1000)
    more_lesions(archive, range(20, 60))
    wanted = reference()
    folder = tmp_path / "run"
    list_tiny(folder, tcia(server))

    def die(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
        server.close()
        reset(handler, files)

    server.faults["1.2.3.25"] = [die]
    with pytest.raises(MiramError, match=rf"{server.url}.* does not deliver[\s\S]*sources\.tcia"):
        cut_tiny(folder, tcia(server), backoff_seconds=0.05)
    require_sound(folder, wanted)
    done = {uid for uid, state in states(folder).items() if state == "cropped"}
    back = Server(archive)
    try:
        cut_tiny(folder, tcia(back))
    finally:
        back.close()
    assert made(folder) == wanted
    assert done and not done & set(back.asked)


def test_the_stage_gives_up_when_nothing_succeeds_any_more(archive, server, tmp_path):
    more_lesions(archive, range(20, 40))
    server.faults = {uid: [status(500)] * 3 for uid in archive.series}
    with pytest.raises(MiramError, match="does not deliver what was requested: HTTP status 500"):
        run_tiny(tmp_path, tcia(server))
    assert sum(series_asked(server).values()) <= 2 * 3 * (module.GIVE_UP_AFTER + 2)


def test_failures_that_do_not_follow_each_other_are_not_given_up_on(archive, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 2)
    monkeypatch.setattr(module, "as_completed", list)  # in the order of the films
    more_lesions(archive, range(20, 26))
    server.faults = {f"1.2.4.{number}": [status(400)] for number in (20, 22, 24)}
    with pytest.raises(MiramError, match="3 series could not be downloaded"):
        run_tiny(tmp_path, tcia(server))


def test_a_full_disk_ends_the_waiting_of_the_other_transfers(server, tmp_path, monkeypatch):
    list_tiny(tmp_path, tcia(server))
    asked = threading.Event()  # for a series of one of the two films in work; the other is cut
    server.faults["1.2.4.3"] = [lambda handler, files: (asked.set(), send(handler, b"", 500))]

    def fail(*_: object, **__: object) -> None:
        assert asked.wait(20.0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "crops" / ".x.png.part"))

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(MiramError, match="cannot be written: No space left"):
        cut_tiny(tmp_path, tcia(server), backoff_seconds=40.0)
    assert server.asked["1.2.4.3"] == 1  # who had waited to the end would have asked again


@pytest.mark.parametrize("part", ["zip", "crop", "ledger"])
def test_a_full_disk_stops_the_stage_names_the_file_and_loses_nothing(server, reference, tmp_path, monkeypatch, part):
    wanted, folder = reference(), tmp_path / "run"
    list_tiny(folder, tcia(server))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_: object, **__: object) -> Iterator[bytes]:
        raise full

    if part == "zip":
        full.filename = str(folder / "dicom" / ".partial" / "1.zip")
        monkeypatch.setattr(tcia_module, "open", fail, raising=False)
    elif part == "crop":
        full.filename = str(folder / "crops" / ".x.png.part")
        monkeypatch.setattr("PIL.Image.Image.save", lambda *_, **__: fail())
    else:
        monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(MiramError, match=r"cannot be written: No space left[\s\S]*(Make room|free space)"):
        cut_tiny(folder, tcia(server))
    monkeypatch.undo()
    require_sound(folder, wanted)
    verified = read_ledger(folder / "ledger.jsonl").verified.keys()
    server.asked.clear()
    cut_tiny(folder, tcia(server))
    assert made(folder) == wanted and not verified & server.asked.keys()


@pytest.mark.parametrize("name", ["dicom", "crops"])
def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, name):
    list_tiny(tmp_path, tcia(server))
    (tmp_path / name).write_text("a file where the folder should be")
    with pytest.raises(MiramError, match=rf"{tmp_path}/{name}.* cannot be written"):
        cut_tiny(tmp_path, tcia(server))


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch, capsys):
    list_tiny(tmp_path, tcia(server))
    there = sorted(tmp_path.rglob("*"))
    server.asked.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8))
    with pytest.raises(MiramError, match=r"has 0\.10 GB free, and 0\.20 GB are needed[\s\S]*keep_dicom: false"):
        plan_films(places_in(tmp_path), **tcia(server), cutting=Cutting(**CROPS), workers=2, keep_dicom=False)
    assert "needed: 4 lesions on 4 films: 8 series" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == there
    with pytest.raises(MiramError, match="are needed at the peak"):
        cut_tiny(tmp_path, tcia(server))
    assert not server.asked


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert run_tiny(tmp_path, tcia(server))["lesions"] == 4


CHILD = """
import json, sys
sys.path[:0] = json.loads(sys.argv[3])
from pathlib import Path
from tiny_runs import cut_tiny
print("ready", flush=True)
cut_tiny(Path(sys.argv[1]), json.loads(sys.argv[2]), attempts=1)
"""


def kill_after(folder: Path, server: Server, requests: int, wait: float, wait_until: Callable[..., None]) -> None:
    """Start the stage, and kill it `wait` seconds after it has made so many requests."""
    begun = server.asked.total()
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[3])]
    command = [sys.executable, "-c", CHILD, str(folder), json.dumps(tcia(server)), json.dumps(paths)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdout.readline()
    try:
        wait_until(lambda: server.asked.total() >= begun + requests or child.poll() is not None)
        time.sleep(wait)
        assert child.poll() is None, "the stage ended before it could be killed"
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_loses_nothing_and_leaves_nothing_broken(
    archive, server, reference, tmp_path, kills, wait_until
):
    more_lesions(archive, range(20, 20 + 40 * kills))
    wanted, folder = reference(), tmp_path / "run"
    list_tiny(folder, tcia(server))
    server.asked.clear()
    moments, verified, again = random.Random(7), set(), set()
    for kill in range(kills + 1):
        asked = Counter(server.asked)
        if kill < kills:
            kill_after(folder, server, moments.randrange(40), moments.uniform(0.0, 0.1), wait_until)
            counts = require_sound(folder, wanted)
        else:
            cut_tiny(folder, tcia(server))
        again |= {uid for uid in verified if server.asked[uid] > asked[uid]}
        verified = set(read_ledger(folder / "ledger.jsonl").verified)
    total = sum(series_asked(server).values())
    print(
        f"{kills} kills at random moments: {dict(counts)} series at the last one, then all {len(verified)} cropped; "
        f"{total} requests for {len(archive.series)} series, {len(again)} of them for a verified one"
    )
    assert made(folder) == wanted
    assert not again and total <= len(archive.series) + kills * 4


def test_a_list_that_is_html_is_named_with_its_address(server, tmp_path):
    server.faults["getSeries"] = [html] * 3
    with pytest.raises(MiramError, match=rf"{server.url}/services/v4/ does not deliver what was requested: no list"):
        list_tiny(tmp_path, tcia(server))


def test_a_list_that_hangs_is_named_with_its_address(server, tmp_path):
    server.faults["getSeries"] = [hang]
    with pytest.raises(
        MiramError, match=rf"{server.url}/services/v4/ does not deliver what was requested: .*timed out"
    ):
        list_tiny(tmp_path, tcia(server), attempts=1, timeout_seconds=1.0)
