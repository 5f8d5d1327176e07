import hashlib

import pandas as pd
import pytest
from faults import html, nothing, status
from tiny_archive import send
from tiny_runs import list_tiny, tcia

from miram.errors import MiramError

UID = "1.2.4.2"


def test_the_whole_list_is_asked_for_once(archive, server, tmp_path):
    facts = list_tiny(tmp_path, tcia(server))
    assert (facts["series"], facts["images"], facts["absent_series"]) == (8, 12, [])
    assert facts["bytes"] == sum(len(body) for files in archive.series.values() for body in files.values())
    assert server.asked.total() == 5  # the list and the four case lists
    assert facts["case_lists"] == {
        name: hashlib.sha256(body).hexdigest() for name, body in archive.case_lists().items()
    }
    assert pd.read_csv(tmp_path / "series.csv")["images"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]  # films; crop and mask


def test_a_list_that_is_short_is_not_believed(server, tmp_path):
    server.left_out = {UID, "1.2.3.1"}
    assert list_tiny(tmp_path, tcia(server))["absent_series"] == []
    assert {name for name in server.asked if name.startswith("getSeries ")} == {f"getSeries {UID}", "getSeries 1.2.3.1"}


def test_a_series_that_the_archive_does_not_have_is_told(server, tmp_path, capsys):
    server.unlisted = {UID}
    facts = list_tiny(tmp_path, tcia(server))
    assert (facts["absent_series"], facts["images"]) == ([UID], 10)
    assert f"does not have series {UID}" in capsys.readouterr().err


def test_a_case_list_may_begin_with_the_mark_of_its_encoding(server, tmp_path, monkeypatch):
    plain = server.archive.case_lists()
    monkeypatch.setattr(server.archive, "case_lists", lambda: {name: b"\xef\xbb\xbf" + plain[name] for name in plain})
    assert list_tiny(tmp_path, tcia(server))["lesions"] == 4


@pytest.mark.parametrize("answer", [html, nothing, status(500), lambda handler, files: send(handler, b'{"error": 1}')])
def test_a_list_of_series_that_is_none_is_named_with_its_address(server, tmp_path, answer):
    server.faults["getSeries"] = [answer] * 3
    with pytest.raises(MiramError, match=rf"{server.url}/services/v4/ does not deliver what was requested"):
        list_tiny(tmp_path, tcia(server))


def test_an_unknown_collection_is_named(archive, server, tmp_path):
    server.unlisted = set(archive.series)
    with pytest.raises(MiramError, match="no series of collection 'CBIS-DDSM'"):
        list_tiny(tmp_path, tcia(server))


def test_a_case_list_that_is_html_is_named_with_its_address(server, tmp_path):
    name = "calc_case_description_test_set.csv"
    server.faults[name] = [html] * 3
    with pytest.raises(MiramError, match=rf"{server.url}/uploads/{name} does not deliver .*no case list but '<html>"):
        list_tiny(tmp_path, tcia(server))


def test_a_server_that_is_gone_is_named(server, tmp_path):
    where = tcia(server)
    server.close()
    with pytest.raises(MiramError, match=rf"{server.url}/uploads/mass_case_.*(refused|Connection)[\s\S]*params\.yaml"):
        list_tiny(tmp_path, where)


def test_an_address_that_is_none_is_named_at_once(server, tmp_path):
    where = tcia(server)
    where["settings"]["api_url"] = "tcia"
    with pytest.raises(MiramError, match="tcia/getSeries"):
        list_tiny(tmp_path, where, backoff_seconds=100.0)


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "csv").write_text("a file where the folder should be")
    with pytest.raises(MiramError, match=rf"{tmp_path}/csv.* cannot be written"):
        list_tiny(tmp_path, tcia(server))
