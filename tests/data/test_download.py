import email.utils
import errno
import hashlib
import io
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tiny_archive import FILM_SHAPE, Archive, Server, dicom_bytes, mask_of, send, zip_bytes

from miram.data import download as module
from miram.data import nbia
from miram.data.catalogue import needed_series, read_lesions
from miram.data.download import download
from miram.errors import MiramError

UID = "1.2.4.2"  # the series that has the faults


def fetch(server: Server, folder: Path, **changes) -> dict[str, object]:
    values = {
        "api_url": f"{server.url}/nbia-api/services/v4/",
        "csv_url": f"{server.url}/uploads",
        "collection": "CBIS-DDSM",
        "workers": 2,
        "attempts": 3,
        "timeout_seconds": 0.4,
        "backoff_seconds": 0.01,
    } | changes
    return download(folder / "csv", folder / "dicom", **values)


def require_whole(archive: Archive, folder: Path) -> None:
    """Every needed series lies there with the archive's bytes, and nothing else does."""
    needed = needed_series(read_lesions(folder / "csv"))
    assert sorted(path.name for path in (folder / "dicom").iterdir()) == needed
    for uid in needed:
        there = {path.name: path.read_bytes() for path in (folder / "dicom" / uid).glob("*.dcm")}
        assert there == archive.series[uid]


def made_zip(*entries: tuple[str | zipfile.ZipInfo, bytes], hashes: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in (*entries, ("md5hashes.csv", hashes.encode())):
            archive.writestr(name, body)
    return stream.getvalue()


def hash_list(files: dict[str, bytes]) -> str:
    return "Filename,MD5Hash\n" + "".join(f"{name},{hashlib.md5(body).hexdigest()}\n" for name, body in files.items())


def status(code: int, **headers: str):
    return lambda handler, files: send(handler, b"busy", code, **headers)


def reset(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    """End the connection with a RST in the middle of the body."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(zip_bytes(files)[:50])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"PK")
    handler.wfile.flush()
    time.sleep(1.0)


def html(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, b"<html><body>Scheduled maintenance</body></html>", Content_Type="text/html")


def nothing(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, b"")


def short(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(files)[:-40])


def shorter_than_announced(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    body = zip_bytes(files)
    send(handler, body[:-40], Content_Length=str(len(body)))


def fewer_members(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(dict(list(files.items())[:1])))


def wrong_md5(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes({name: body[:-1] + b"?" for name, body in files.items()}, hashes=files))


def no_hashes(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    send(handler, stream.getvalue())


def hashes_of_others(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes(files, hashes={"other.dcm": b""}))


def unreadable_hashes(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, made_zip(*files.items(), hashes="nothing,here\n1,2\n"))


def renamed(name: str, kind: int = 0):
    """The first file gets another name, or is another kind of file."""

    def answer(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
        first, *rest = files
        info = zipfile.ZipInfo(name)
        info.external_attr = (kind | 0o644) << 16
        entries = [(info, files[first]), *((other, files[other]) for other in rest)]
        send(handler, made_zip(*entries, hashes=hash_list({name: files[first]} | {o: files[o] for o in rest})))

    return answer


def duplicate(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    name = next(iter(files))
    with pytest.warns(UserWarning, match="Duplicate"):
        body = made_zip(*files.items(), (name, b"again"), hashes=hash_list(files))
    send(handler, body)


BOMB = zip_bytes({"1-1.dcm": bytes(20_000_000), "1-2.dcm": b""})


def bomb(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, BOMB)


def endless(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"PK")
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        handler.close_connection = True


def another_series(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
    send(handler, zip_bytes({name: dicom_bytes(mask_of(FILM_SHAPE), "9.9.9") for name in files}))


FAULTS = {
    "500": (status(500), "HTTP status 500: busy"),
    "429": (status(429, Retry_After="0"), "HTTP status 429"),
    "503 with a date": (status(503, Retry_After=email.utils.formatdate(0)), "HTTP status 503"),
    "503 with nonsense": (status(503, Retry_After="soon"), "HTTP status 503"),
    "reset": (reset, "reset|Connection"),
    "hang": (hang, "timed out"),
    "html": (html, "no zip but text/html, which begins with .<html>"),
    "empty body": (nothing, "no zip"),
    "short zip": (short, "broken or cut short"),
    "shorter than announced": (shorter_than_announced, "IncompleteRead"),
    "missing member": (fewer_members, "holds 1 images, the archive announces 2"),
    "wrong MD5": (wrong_md5, r"has MD5 \w+, not \w+ as md5hashes"),
    "no hashes": (no_hashes, "no readable md5hashes"),
    "hashes of others": (hashes_of_others, "lists other files"),
    "unreadable hashes": (unreadable_hashes, "no readable md5hashes"),
    "traversal": (renamed("../../1-1.dcm"), "not a plain DICOM file"),
    "absolute name": (renamed("/tmp/1-1.dcm"), "not a plain DICOM file"),
    "backslash": (renamed("..\\1-1.dcm"), "not a plain DICOM file"),
    "symlink": (renamed("1-1.dcm", stat.S_IFLNK), "not a plain DICOM file"),
    "another kind": (renamed("receipt.csv"), "not a plain DICOM file"),
    "duplicate": (duplicate, "more than once"),
    "bomb": (bomb, "unpacks to more than"),
    "endless body": (endless, "longer than"),
    "another series": (another_series, r"belongs to series 9\.9\.9"),
}


def test_everything_needed_is_fetched_and_asked_for_once(archive, server, tmp_path):
    archive.film(99)  # nobody needs it
    facts = fetch(server, tmp_path)
    require_whole(archive, tmp_path)
    assert set(server.asked.values()) == {1} and "1.2.3.99" not in server.asked
    assert (facts["series"], facts["images"], facts["absent_series"]) == (8, 12, [])
    assert facts["bytes"] == sum(
        len(body) for uid in archive.series if uid != "1.2.3.99" for body in archive.series[uid].values()
    )


def test_a_second_run_asks_for_no_series_and_gives_the_same_facts(archive, server, tmp_path):
    first = fetch(server, tmp_path)
    server.asked.clear()
    assert fetch(server, tmp_path) == first
    assert set(server.asked) == set(archive.case_lists())


@pytest.fixture
def faulty(archive, server) -> dict[str, str]:
    """Give each fault a series of its own, which gets it twice; return the UIDs by the names of the faults."""
    uids = {}
    for number, (name, (fault, _)) in enumerate(FAULTS.items(), start=100):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))
        uids[name] = f"1.2.4.{number}"
        server.faults[uids[name]] = [fault] * 2
    return uids


def test_passing_faults_of_every_kind_are_mended_by_other_tries(archive, server, faulty, tmp_path):
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)
    assert {uid for uid in archive.series if server.asked[uid] == 3} == set(faulty.values())


def test_lasting_faults_of_every_kind_name_their_series_and_keep_the_others(
    archive, server, faulty, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 1000)
    with pytest.raises(
        MiramError, match=rf"{len(faulty)} of \d+ series could not be had from {server.url}.*; and"
    ) as caught:
        fetch(server, tmp_path, attempts=2)
    assert "Run the same command again" in caught.value.remedy
    log = capsys.readouterr().err
    for name, uid in faulty.items():
        assert re.search(rf"failed: series {uid}: .*({FAULTS[name][1]})", log), name
    assert {path.parent.name for path in tmp_path.rglob("*.dcm")} == set(archive.series) - set(faulty.values())
    server.asked.clear()
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)
    assert set(server.asked) & set(archive.series) == set(faulty.values())


def test_a_refusal_is_not_asked_again(server, tmp_path):
    server.faults[UID] = [status(400)] * 3
    with pytest.raises(MiramError, match="HTTP status 400"):
        fetch(server, tmp_path)
    assert server.asked[UID] == 1


def test_retry_after_is_waited_for(server, tmp_path):
    server.faults[UID] = [status(429, Retry_After="1")]
    start = time.monotonic()
    fetch(server, tmp_path)
    assert time.monotonic() - start >= 1.0


def test_a_series_that_the_archive_does_not_list_is_reported_and_does_not_stop_the_rest(server, tmp_path, capsys):
    server.unlisted = {UID}
    facts = fetch(server, tmp_path)
    assert (facts["absent_series"], facts["series"]) == ([UID], 7)
    assert f"does not list series {UID}" in capsys.readouterr().err
    assert server.asked[UID] == 0


def test_a_damaged_series_folder_is_fetched_again(archive, server, tmp_path):
    fetch(server, tmp_path)
    (tmp_path / "dicom" / UID / "1-1.dcm").write_bytes(b"short")
    (tmp_path / "dicom" / "1.2.3.0" / "receipt.csv").unlink()
    (tmp_path / "dicom" / "1.2.3.1" / "receipt.csv").write_text("file,bytes,md5\nnonsense")
    server.asked.clear()
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)
    assert {uid for uid in server.asked if uid in archive.series} == {UID, "1.2.3.0", "1.2.3.1"}


def test_a_file_that_is_no_dicom_in_the_archive_itself_is_left_to_the_next_stage(archive, server, tmp_path):
    archive.series[UID]["1-1.dcm"] = b"never was an image"
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)


@pytest.mark.parametrize("answer", [html, nothing, status(500), lambda handler, files: send(handler, b'{"error": 1}')])
def test_a_list_of_series_that_is_none_is_named_with_its_address(server, tmp_path, answer):
    server.faults["getSeries"] = [answer] * 3
    with pytest.raises(MiramError, match=rf"{server.url}/nbia-api/services/v4/ does not give what was asked for"):
        fetch(server, tmp_path)


def test_an_unknown_collection_is_named(archive, server, tmp_path):
    server.unlisted = set(archive.series)
    with pytest.raises(MiramError, match="no series of collection 'CBIS-DDSM'"):
        fetch(server, tmp_path)


def test_a_case_list_that_is_html_is_named_with_its_address(server, tmp_path):
    name = "calc_case_description_test_set.csv"
    server.faults[name] = [html] * 3
    with pytest.raises(MiramError, match=rf"{server.url}/uploads/{name} does not give .*no case list but '<html>"):
        fetch(server, tmp_path)


def test_a_server_that_is_gone_is_named(server, tmp_path):
    server.close()
    with pytest.raises(MiramError, match=rf"{server.url}/uploads/mass_case_.*(refused|Connection)[\s\S]*params\.yaml"):
        fetch(server, tmp_path)


def test_an_address_that_is_none_is_named_at_once(server, tmp_path):
    with pytest.raises(MiramError, match="tcia/getSeries"):
        fetch(server, tmp_path, api_url="tcia", backoff_seconds=100.0)


def test_the_download_gives_up_when_the_server_dies_and_goes_on_when_it_is_back(archive, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 1000)
    for number in range(20, 60):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))

    def die(handler: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
        server.close()
        reset(handler, files)

    server.faults["1.2.3.25"] = [die]
    start = time.monotonic()
    with pytest.raises(MiramError, match=rf"{server.url}.* does not give"):
        fetch(server, tmp_path, backoff_seconds=0.05)
    assert time.monotonic() - start < 5
    kept = {path.parent.name for path in (tmp_path / "dicom").glob("*/receipt.csv")}
    back = Server(archive)
    try:
        fetch(back, tmp_path)
    finally:
        back.close()
    require_whole(archive, tmp_path)
    assert kept and not kept & set(back.asked)


def test_the_download_gives_up_when_nothing_succeeds_any_more(archive, server, tmp_path):
    for number in range(20, 40):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))
    server.faults |= {uid: [status(500)] * 3 for uid in archive.series}
    with pytest.raises(MiramError, match="does not give what was asked for: HTTP status 500"):
        fetch(server, tmp_path)
    assert sum(server.asked[uid] for uid in archive.series) <= 3 * (module.GIVE_UP_AFTER + 2)


def test_a_full_disk_stops_the_download_and_names_the_file(archive, server, tmp_path, monkeypatch):
    def full(path: Path, mode: str = "r", **_: object) -> Iterator[bytes]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(nbia, "open", full, raising=False)
    with pytest.raises(MiramError, match=r"1\.2\..*\.zip cannot be written: No space left[\s\S]*Make room"):
        fetch(server, tmp_path)
    monkeypatch.undo()
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)


@pytest.mark.parametrize("name", ["csv", "dicom"])
def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, name):
    (tmp_path / name).write_text("a file where the folder should be")
    with pytest.raises(MiramError, match=rf"{tmp_path}/{name}.* cannot be written"):
        fetch(server, tmp_path)


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(archive, server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)


def test_kill_9_at_any_moment_loses_nothing_and_leaves_nothing_broken(archive, server, tmp_path):
    for number in range(20, 60):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))
    call = (
        "import sys; from miram.data.download import download; print('ready', flush=True); folder, url = sys.argv[1:];"
        "download(folder + '/csv', folder + '/dicom', api_url=url, csv_url=url, collection='CBIS-DDSM',"
        "workers=2, attempts=1, timeout_seconds=5.0, backoff_seconds=0.01)"
    )
    for wait in (0.04, 0.09, 0.13):
        command = [sys.executable, "-c", call, str(tmp_path), server.url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.communicate()
        for folder in (tmp_path / "dicom").glob("[0-9]*"):  # what has its name is whole
            there = {path.name: path.read_bytes() for path in folder.glob("*.dcm")}
            assert there == archive.series[folder.name]
    fetch(server, tmp_path)
    require_whole(archive, tmp_path)
    assert (
        max(server.asked[uid] for uid in archive.series) <= 4 and min(server.asked[uid] for uid in archive.series) == 1
    )
