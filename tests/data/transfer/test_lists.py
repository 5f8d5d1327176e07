import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from tiny_archive import dicom_bytes
from tiny_runs import list_tiny, tcia

from miram.cli import main
from miram.data.case_lists import read_lesions
from miram.data.cbis_ddsm.cases import carried_lesions, write_case_lists
from miram.data.transfer.lists import CARRIED
from miram.errors import MiramError
from miram.layout import CASE_CSVS

ROOT = Path(__file__).parents[3]
NEEDED = "1.3.6.1.4.1.9590.100.1.2.100018879311824535125115145152454291132"  # a series of the case lists
GONE = "http://127.0.0.1:9/"  # the discard port: nothing listens there
FIRST = CASE_CSVS[0]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project(source): the working folder has the parameters of that source, and nothing else."""

    def make(source):
        given = (ROOT / "params.yaml").read_text()
        (tmp_path / "params.yaml").write_text(given.replace("\nsource: tcia", f"\nsource: {source}"))

    make.folder = tmp_path
    monkeypatch.chdir(tmp_path)
    return make


@pytest.fixture
def no_network(monkeypatch):
    """Every way to a network ends the test."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def local(folder, csv_url):
    folder.mkdir(exist_ok=True)
    (folder / "1.dcm").write_bytes(dicom_bytes(np.zeros((2, 2), np.uint16), NEEDED))
    return {"source": "local", "settings": {"folder": str(folder), "csv_url": str(csv_url)}}


@pytest.mark.parametrize("source", ["tcia", "idc"])
def test_the_plan_of_cbis_ddsm_needs_no_network(no_network, project, capsys, source):
    project(source)
    assert main(["--preset", "paper", "data", "plan"]) == 0
    told = capsys.readouterr().out
    assert "needed: 3568 lesions on 3103 films: 6775 series, 163512966728 bytes (163.51 GB)" in told
    assert "leak: 31 patients are in both official parts; of them are 60 of 704 test lesions" in told
    assert "absent from the source: 0 series" in told and "disk at the peak: " in told
    assert not (project.folder / "data").exists()


def test_lists_that_cannot_be_downloaded_are_the_carried_ones_and_that_is_said(tmp_path, capsys):
    facts = list_tiny(tmp_path, local(tmp_path / "dicoms", GONE), carried=True)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("case lists: ")]
    assert f"{GONE}{FIRST} does not deliver" in told and told.endswith("The carried lists are used.")
    assert (facts["lesions"], facts["series"], facts["case_lists_from"]) == (3568, 6775, CARRIED)
    assert read_lesions(tmp_path / "csv").equals(carried_lesions())


def test_a_folder_without_lists_is_no_end_and_one_with_some_of_them_is(tmp_path, capsys):
    dicoms = tmp_path / "dicoms"
    facts = list_tiny(tmp_path, local(dicoms, dicoms), carried=True)
    assert facts["case_lists_from"] == CARRIED and "The carried lists are used." in capsys.readouterr().err
    shutil.copy(tmp_path / "csv" / FIRST, dicoms)
    with pytest.raises(MiramError, match=f"The case list {dicoms}/{CASE_CSVS[1]} cannot be read"):
        list_tiny(tmp_path, local(dicoms, dicoms), carried=True)
    with pytest.raises(MiramError, match="/none/mass_case_description_train_set"):
        list_tiny(tmp_path, local(dicoms, tmp_path / "none"), carried=True)


def test_of_another_archive_nothing_is_carried(server, tmp_path):
    where = tcia(server)
    where["settings"]["csv_url"] = GONE
    with pytest.raises(MiramError, match="does not deliver the case list"):
        list_tiny(tmp_path, where, carried=False)


@pytest.fixture
def short(tmp_path):
    """CBIS-DDSM's lists, of which one lacks its last lesion and another tells a lesion otherwise."""
    write_case_lists(tmp_path / "lists")
    path = tmp_path / "lists" / FIRST
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    path = tmp_path / "lists" / CASE_CSVS[3]
    path.write_text(path.read_text().replace(",MALIGNANT,", ",BENIGN,", 1))
    return tmp_path / "lists"


def test_downloaded_lists_that_lack_lesions_are_refused(server, short, tmp_path, monkeypatch):
    lists = {name: (short / name).read_bytes() for name in CASE_CSVS}
    monkeypatch.setattr(server.archive, "case_lists", lambda: lists)
    with pytest.raises(MiramError, match=r"uploads/ lack 1 lesions of CBIS-DDSM: Mass-Training_P_\d+_\w+[\s\S]*folder"):
        list_tiny(tmp_path, tcia(server), carried=True)


def test_how_lists_of_a_folder_differ_is_said_and_kept(short, tmp_path, capsys):
    facts = list_tiny(tmp_path, local(tmp_path / "dicoms", short), carried=True)
    lost, changed = facts["case_list_differences"]
    assert lost.startswith("Mass-Training_P_") and lost.endswith("not in these lists")
    assert "pathology is 'BENIGN', but 'MALIGNANT' in the carried lists" in changed
    told = capsys.readouterr().err
    assert "case lists: 2 differences from the carried: " in told and changed in told


def test_equal_lists_differ_in_nothing_and_those_of_a_tiny_archive_are_not_compared(server, tmp_path, capsys):
    write_case_lists(tmp_path / "lists")
    where = local(tmp_path / "dicoms", tmp_path / "lists")
    assert list_tiny(tmp_path / "equal", where, carried=True)["case_list_differences"] == []
    assert list_tiny(tmp_path / "tiny", tcia(server), carried=True)["case_list_differences"] == []
    assert "case lists: " not in capsys.readouterr().err
