"""The preflight asks the source a real question: an answer that no stage could use is never called one."""

import pytest
from faults import html, status
from tiny_archive import send, zip_bytes
from tiny_runs import tcia

from miram.planning.sources import check_source

OK = ["ok", "ok"]


def check(where, timeout_seconds=20.0):
    return check_source(where["source"], where["settings"], timeout_seconds)


def alone(server):
    where = tcia(server)
    where["settings"]["fallback"] = None
    return where


def of_idc(*buckets):
    return {"collection": "cbis_ddsm", "bucket_urls": [bucket.url for bucket in buckets], "films": "whole"}


def both(server, bucket):
    where = tcia(server)
    where["settings"]["fallback"] = {"source": "idc", "settings": of_idc(bucket)}
    return where


def moved(handler, files):
    if handler.path.endswith("/page"):
        html(handler, files)
    else:
        send(handler, b"", 301, Location="/services/v4/page")


WRONG = {
    "410": (status(410), "HTTP status 410: busy"),
    "503": (status(503), "HTTP status 503"),
    "html": (html, "no list of collections but '<html>"),
    "redirect to a page": (moved, "no list of collections but '<html>"),
    "nothing": (lambda handler, files: send(handler, b""), "no list of collections but ''"),
    "another list": (lambda handler, files: send(handler, b'[{"Modality": "MG"}]'), "no list of collections"),
    "other collections": (lambda handler, files: send(handler, b'[{"Collection": "ANOTHER"}]'), "has no collection"),
}


def test_an_archive_that_has_the_collection_is_ok_and_idc_is_not_asked(server, bucket):
    found = check(both(server, bucket))
    assert [finding.level for finding in found] == OK and not bucket.asked
    assert found[0].text == f"Source: {server.url}/services/v4/ has collection CBIS-DDSM"
    assert set(server.asked) == {"getCollectionValues", "mass_case_description_train_set.csv"}


@pytest.mark.parametrize(("answer", "named"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_of_tcia_stops_and_names_the_other_sources(server, answer, named):
    server.out = answer
    found = check(alone(server))[0]
    assert found.level == "stop" and named in found.text and server.url in found.text
    assert "`source: idc`" in found.remedy and "`source: local`" in found.remedy


@pytest.mark.parametrize(("answer", "named"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_of_tcia_is_a_warning_where_idc_answers(server, bucket, answer, named):
    server.out = answer
    found = check(both(server, bucket))[0]
    assert found.level == "warning" and named in found.text
    assert f"The run will use IDC, which does ({bucket.url})" in found.remedy


@pytest.mark.parametrize("gone", [False, True])
def test_when_neither_answers_both_are_named_and_it_stops(server, bucket, gone):
    server.out, bucket.out = status(410), status(403)
    if gone:
        bucket.close()
    found = check(both(server, bucket))[0]
    assert found.level == "stop" and "HTTP status 410" in found.text and f"{bucket.url}: " in found.text
    assert "`source: idc`" in found.remedy and "`source: local`" in found.remedy


def test_a_server_that_is_gone_is_no_answer(server, bucket):
    server.close()
    api, lists = check(both(server, bucket))
    assert (api.level, lists.level) == ("warning", "warning")
    assert "come with this software" in lists.remedy


def test_instead_of_case_lists_that_are_a_page_the_carried_ones_are_taken(server):
    server.faults["mass_case_description_train_set.csv"] = [html]
    api, lists = check(alone(server))
    assert (api.level, lists.level) == ("ok", "warning") and "no case list but '<html>" in lists.text


def test_a_folder_that_lacks_one_of_the_case_lists_stops(server, tmp_path):
    (tmp_path / "mass_case_description_test_set.csv").write_text("patient_id,\n", encoding="utf-8")
    where = alone(server)
    where["settings"]["csv_url"] = str(tmp_path)
    found = check(where)[1]
    assert found.level == "stop" and "sources.tcia.csv_url" in found.remedy


@pytest.mark.parametrize(
    ("answers", "level"), [((None, None), "ok"), ((html, None), "warning"), ((html, status(503)), "stop")]
)
def test_one_good_bucket_of_idc_is_enough(archive, bucket, answers, level):
    other = type(bucket)(archive)
    bucket.out, other.out = answers
    found = check_source("idc", of_idc(bucket, other), 20.0)[0]
    other.close()
    assert found.level == level
    if level == "warning":
        assert "no list of files but '<html>" in found.text and f"The run will use {other.url}" in found.remedy
    if level == "stop":
        assert bucket.url in found.text and other.url in found.text and "`source: local`" in found.remedy


def test_a_collection_that_the_index_does_not_know_stops(bucket):
    found = check_source("idc", of_idc(bucket) | {"collection": "none"}, 20.0)[0]
    assert found.level == "stop" and "has no collection 'none'" in found.text


def test_a_local_folder_must_hold_dicom_files(archive, tmp_path):
    settings = {"folder": str(tmp_path / "archive")}
    found = check_source("local", settings, 1.0)[0]
    assert found.level == "stop" and "is not a folder (sources.local.folder)" in found.text
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "1.zip").write_bytes(zip_bytes({"1-1.dcm": b"x"}))
    found = check_source("local", settings, 1.0)[0]
    assert found.level == "stop" and "1 ZIP" in found.text and "Unpack" in found.remedy
    (tmp_path / "archive" / "1-1.dcm").write_bytes(archive.series["1.2.3.0"]["1-1.dcm"])
    assert check_source("local", settings, 1.0)[0].level == "ok"


def test_the_folder_of_ones_own_images_must_be_there(tmp_path):
    assert check_source("images", {"folder": str(tmp_path)}, 1.0)[0].level == "ok"
    found = check_source("images", {"folder": str(tmp_path / "gone")}, 1.0)[0]
    assert found.level == "stop" and "sources.images.folder" in found.remedy


def test_of_the_embedded_archive_nothing_is_asked():
    assert check_source("tcia", {}, 1.0) == []
