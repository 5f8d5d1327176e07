"""TCIA first, and the Imaging Data Commons for what it does not give: the same crops and the same lock either way."""

import json
import re
from pathlib import Path

import pytest
import yaml
from faults import html, reset, status, wrong_md5
from tiny_archive import FILM_SHAPE, Server, mask_of, send
from tiny_bucket import Bucket, write_index
from tiny_runs import cut_tiny, list_tiny, made, run_tiny, tcia

from miram import layout
from miram.cli import main
from miram.data.transfer.sources import fallback as module
from miram.data.transfer.sources import idc as idc_module
from miram.errors import MiramError
from miram.provenance import record

ROOT = Path(__file__).parents[4]
UID = "1.2.4.2"
WENT_OVER = r"TCIA does not answer correctly \(.+\)\. The rest comes from IDC"


def both(server: Server, bucket: Bucket) -> dict[str, object]:
    """The source tcia, with the bucket for what it does not give."""
    where = tcia(server)
    settings = {"collection": "cbis_ddsm", "bucket_urls": [bucket.url], "films": "whole"}
    where["settings"]["fallback"] = {"source": "idc", "settings": settings}
    return where


def origins(folder: Path) -> dict[str, str]:
    """By series, the origin that its line in the ledger names."""
    lines = map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
    return {line["series"]: line["origin"] for line in lines if line["state"] == "verified"}


@pytest.fixture
def wanted(server, tmp_path) -> dict[str, bytes]:
    """What TCIA alone gives: crops, tables, lock."""
    run_tiny(tmp_path / "wanted", tcia(server))
    server.asked.clear()
    return made(tmp_path / "wanted")


def moved(handler, files):
    """A redirect to a page."""
    if handler.path.endswith("/page"):
        html(handler, files)
    else:
        send(handler, b"", 301, Location="/services/v4/page")


def in_circles(handler, files):
    send(handler, b"", 301, Location=handler.path)


OUT = {
    "410": status(410),
    "403": status(403),
    "503": status(503),
    "html": html,
    "redirect to a page": moved,
    "redirect without end": in_circles,
    "an error as JSON": lambda handler, files: send(handler, b'{"error": "gone"}'),
    "an empty list": lambda handler, files: send(handler, b"[]"),
    "reset": reset,
}


@pytest.mark.parametrize("answer", OUT.values(), ids=OUT)
def test_an_api_that_answers_wrongly_is_replaced_by_idc_with_the_same_lock(
    archive, server, bucket, wanted, tmp_path, capsys, answer
):
    server.out = answer
    folder = tmp_path / "run"
    assert list_tiny(folder, both(server, bucket))["listed_by"] == "idc"
    assert re.search(WENT_OVER, capsys.readouterr().err)
    facts = cut_tiny(folder, both(server, bucket))
    assert made(folder) == wanted
    assert origins(folder) == dict.fromkeys(archive.series, "idc") and facts["origins"] == {"idc": 8}
    assert len(re.findall(WENT_OVER, capsys.readouterr().err)) == 1


@pytest.mark.parametrize("name", ["gone", "http://no-such-host.invalid/services/v4/"])
def test_an_address_without_a_server_or_a_name_is_replaced_by_idc(archive, server, bucket, wanted, tmp_path, name):
    folder, where = tmp_path / "run", both(server, bucket)
    gone = Server(archive)
    gone.close()
    where["settings"]["api_url"] = f"{gone.url}/services/v4/" if name == "gone" else name
    assert list_tiny(folder, where)["listed_by"] == "idc"
    assert cut_tiny(folder, where)["origins"] == {"idc": 8}
    assert made(folder) == wanted


def test_a_series_that_tcia_gives_wrongly_comes_from_idc_and_the_others_from_tcia(
    archive, server, bucket, wanted, tmp_path, capsys
):
    folder = tmp_path / "run"
    server.faults[UID] = [wrong_md5] * 3
    facts = run_tiny(folder, both(server, bucket))
    assert made(folder) == wanted
    assert origins(folder) == dict.fromkeys(archive.series, "tcia") | {UID: "idc"}
    assert facts["origins"] == {"idc": 1, "tcia": 7}
    assert server.asked[UID] == 3 and set(bucket.sent) == {UID}
    told = capsys.readouterr().err
    assert re.search(rf"from idc: series {UID}, as tcia failed: .*has MD5", told) and not re.search(WENT_OVER, told)


def test_a_series_is_tried_again_at_tcia_before_idc_is_asked(server, bucket, tmp_path):
    server.faults[UID] = [wrong_md5] * 2
    assert run_tiny(tmp_path, both(server, bucket))["origins"] == {"tcia": 8}
    assert not bucket.asked


@pytest.mark.parametrize("end", ["closed", "410"])
def test_tcia_that_ends_halfway_gives_a_mixed_archive_with_the_same_lock(
    archive, server, bucket, tmp_path, capsys, end
):
    for number in range(20, 40):
        archive.lesion(number, archive.film(number), mask_of(FILM_SHAPE, (5, 5, 9, 9)))
    write_index(archive, tmp_path / "index.parquet")
    run_tiny(tmp_path / "wanted", tcia(server))
    folder = tmp_path / "run"
    list_tiny(folder, both(server, bucket))

    def die(handler, files):
        server.out = status(410)
        if end == "closed":
            server.close()
        reset(handler, files)

    server.faults["1.2.3.25"] = [die]
    server.asked.clear()
    facts = cut_tiny(folder, both(server, bucket))
    assert made(folder) == made(tmp_path / "wanted")
    assert set(origins(folder).values()) == {"tcia", "idc"} and facts["origins"].keys() == {"tcia", "idc"}
    assert sum(facts["origins"].values()) == len(archive.series)
    assert len(re.findall(WENT_OVER, capsys.readouterr().err)) == 1
    late = {uid for uid, origin in origins(folder).items() if origin == "idc"}
    asked = [uid for uid in late if server.asked[uid]]
    assert len(asked) <= 2 * module.GIVE_UP_AFTER  # nobody else is asked for once it is known to be out


def test_when_neither_gives_a_series_both_reasons_are_named_and_tcia_stays_the_first(server, bucket, tmp_path):
    where = both(server, bucket)
    list_tiny(tmp_path, where)
    uids = [f"1.2.4.{number}" for number in range(4)]
    server.faults = {uid: [status(400)] for uid in uids}
    bucket.out = status(403)
    with pytest.raises(
        MiramError, match=r"4 series .*tcia: HTTP status 400: busy; and the second source: HTTP status 403"
    ):
        cut_tiny(tmp_path, where)
    bucket.out = None
    server.faults = {}
    assert cut_tiny(tmp_path, where)["origins"] == {"tcia": 8}


def test_a_run_that_is_stopped_does_not_go_over(server, bucket, tmp_path, monkeypatch, capsys):
    list_tiny(tmp_path, both(server, bucket))
    server.faults[UID] = [status(500)]
    full = OSError(28, "No space left on device", str(tmp_path / "x.png"))
    monkeypatch.setattr("PIL.Image.Image.save", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(MiramError, match="No space left"):
        cut_tiny(tmp_path, both(server, bucket), backoff_seconds=40.0)
    assert not bucket.asked and "idc" not in capsys.readouterr().err


def test_a_series_that_tcia_lacks_comes_from_idc(server, bucket, wanted, tmp_path):
    server.unlisted = {UID}
    folder = tmp_path / "run"
    facts = list_tiny(folder, both(server, bucket))
    server.faults[UID] = [html] * 3
    assert (facts["absent_series"], facts["listed_by"]) == ([], "tcia")
    assert cut_tiny(folder, both(server, bucket))["origins"] == {"idc": 1, "tcia": 7}
    assert made(folder) == wanted


def test_without_fallback_nothing_is_replaced_and_the_other_sources_are_named(server, bucket, tmp_path):
    server.out = status(410)
    where = both(server, bucket)
    where["settings"]["fallback"] = None
    with pytest.raises(MiramError, match=r"HTTP status 410[\s\S]*`source: idc` or `source: local`"):
        list_tiny(tmp_path, where)
    assert not bucket.asked


def test_a_series_whose_number_of_images_is_another_one_there_is_not_taken(archive, server, bucket, tmp_path):
    list_tiny(tmp_path, both(server, bucket))
    server.faults[UID] = [status(400)]
    whole = dict(archive.series[UID])
    del archive.series[UID]["1-2.dcm"]
    write_index(archive, tmp_path / "index.parquet")
    with pytest.raises(MiramError, match="idc has 1 images of it, not 2"):
        cut_tiny(tmp_path, both(server, bucket))
    archive.series[UID] = whole


def test_other_bytes_of_a_series_that_was_verified_before_are_refused(archive, server, bucket, tmp_path):
    run_tiny(tmp_path, both(server, bucket))
    body = archive.series[UID]["1-1.dcm"]
    archive.series[UID]["1-1.dcm"] = body[:-2] + b"??"
    server.out = status(410)
    (tmp_path / "crops" / "Calc-Training_P_00002_LEFT_CC_1.png").unlink()
    with pytest.raises(MiramError, match=rf"{UID} \(its files differ from those verified before"):
        cut_tiny(tmp_path, both(server, bucket))


def test_the_index_is_not_read_while_tcia_answers(server, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(idc_module, "read_index", lambda _: pytest.fail("the index was read"))
    assert run_tiny(tmp_path, both(server, bucket))["lesions"] == 4


def test_preset_paper_as_it_is_shipped_goes_over_to_idc_and_its_records_say_so(
    archive, server, bucket, wanted, tmp_path, monkeypatch
):
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["transfer"] |= {"attempts": 2, "timeout_seconds": 20.0}
    document["sources"]["idc"]["bucket_urls"] = ["http://127.0.0.1:9/gone", bucket.url]
    paper = document["presets"]["paper"]
    paper["transfer"]["backoff_seconds"] = 0.01
    paper["sources"]["tcia"] |= {"api_url": f"{server.url}/services/v4", "csv_url": f"{server.url}/uploads"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    server.out = moved
    assert main(["--preset", "paper", "catalogue"]) == 0
    assert main(["--preset", "paper", "crops"]) == 0
    assert record.read(layout.record("catalogue", "paper"))["facts"]["listed_by"] == "idc"
    assert record.read(layout.record("crops", "paper"))["facts"]["origins"] == {"idc": 8}
    assert (layout.data("paper") / layout.LOCK).read_bytes() == wanted["instances.csv"]
