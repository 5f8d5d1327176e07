import errno
import hashlib
import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tiny_archive import dicom_bytes, mask_of, zip_bytes
from tiny_runs import cut_tiny, list_tiny, made, run_tiny, tcia

from miram.data.transfer.http import Http
from miram.data.transfer.receipt import hash_file
from miram.data.transfer.sources import local as module
from miram.data.transfer.sources.local import Local
from miram.errors import MiramError

CLASSIC = "CBIS-DDSM/Mass-Training_{patient}/9.9.{n}/{uid}/1-{i}.dcm"
DESCRIPTIVE = "CBIS-DDSM/Mass-Training_{patient}/08-07-2016-DDSM-NA-{n}/1.000000-ROI mask images-{n}/1-{i}.dcm"
COMMONS = "cbis_ddsm/{patient}/9.9.{n}/MG_{uid}/{hash}.dcm"
FLAT = "{hash}"


def lay_out(archive, folder: Path, pattern: str) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    for n, (uid, files) in enumerate(archive.series.items()):
        for i, body in enumerate(files.values(), start=1):
            values = {"patient": f"P_{n:05d}", "uid": uid, "n": n, "i": i, "hash": hashlib.md5(body).hexdigest()}
            path = folder / pattern.format(**values)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    (folder / "metadata.csv").write_text("Series UID\n")
    for name, body in archive.case_lists().items():
        (folder / name).write_bytes(body)
    return {"source": "local", "settings": {"folder": str(folder), "csv_url": str(folder)}}


@pytest.mark.parametrize("pattern", [CLASSIC, DESCRIPTIVE, COMMONS, FLAT])
def test_any_layout_gives_the_crops_that_the_server_gives(archive, server, tmp_path, pattern):
    where = lay_out(archive, tmp_path / "archive", pattern)
    before = {path: path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()}
    run_tiny(tmp_path / "local", where)
    run_tiny(tmp_path / "tcia", tcia(server))
    assert made(tmp_path / "local") == made(tmp_path / "tcia")
    assert before == {path: path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()}


def test_nothing_is_copied(archive, tmp_path):
    run_tiny(tmp_path, lay_out(archive, tmp_path / "archive", CLASSIC), keep_dicom=True)
    links = list((tmp_path / "dicom").rglob("*.dcm"))
    assert len(links) == 12 and all(path.is_symlink() for path in links)
    assert len(list((tmp_path / "dicom").rglob("receipt.csv"))) == 8


def test_an_instance_that_lies_there_twice_counts_once(archive, tmp_path):
    lay_out(archive, tmp_path / "archive", CLASSIC)
    where = lay_out(archive, tmp_path / "archive", COMMONS)
    assert run_tiny(tmp_path, where)["verified_images"] == 12


def test_what_is_not_there_sets_its_lesions_aside(archive, tmp_path):
    del archive.series["1.2.4.2"]
    facts = run_tiny(tmp_path, lay_out(archive, tmp_path / "archive", CLASSIC))
    assert (facts["lesions"], facts["set_aside"]) == (3, 1)


def test_files_that_went_since_the_catalogue_are_named(archive, tmp_path):
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    list_tiny(tmp_path, where)
    next((tmp_path / "archive").rglob("1.2.4.2/*.dcm")).unlink()
    with pytest.raises(MiramError, match=r"1\.2\.4\.2 \(the folder holds 1 images of it, not 2"):
        cut_tiny(tmp_path, where)


def test_a_folder_that_is_none_and_a_missing_case_list_are_named(archive, tmp_path):
    with pytest.raises(MiramError, match=r"nowhere is not a folder \(sources\.local\.folder\)"):
        Local(Http(attempts=1, timeout_seconds=20.0, backoff_seconds=1.0), folder=str(tmp_path / "nowhere"))
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    os.remove(tmp_path / "archive" / "mass_case_description_test_set.csv")
    with pytest.raises(MiramError, match=r"mass_case_description_test_set\.csv cannot be read"):
        list_tiny(tmp_path, where)


def test_a_file_that_cannot_be_read_is_named(archive, tmp_path):
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    (tmp_path / "archive" / "gone.dcm").symlink_to("nowhere")
    with pytest.raises(MiramError, match=r"archive/gone\.dcm cannot be read: No such file[\s\S]*permissions"):
        list_tiny(tmp_path, where)


def test_a_folder_that_cannot_be_listed_is_named_and_its_series_do_not_count_as_absent(archive, tmp_path, monkeypatch):
    where, scandir = lay_out(archive, tmp_path / "archive", CLASSIC), os.scandir

    def refuse(folder: str):
        if folder.endswith("1.2.4.2"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MiramError, match=r"1\.2\.4\.2 cannot be read: Permission denied"):
        list_tiny(tmp_path, where)


def test_a_file_that_can_no_longer_be_read_fails_its_series_alone(archive, tmp_path, monkeypatch):
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    list_tiny(tmp_path, where)

    def refuse(path: Path) -> tuple[int, str, str]:
        if "1.2.4.2/" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return hash_file(path)

    monkeypatch.setattr(module, "hash_file", refuse)
    with pytest.raises(
        MiramError, match=r"1 series could not be downloaded: 1\.2\.4\.2 \(.*1-1\.dcm cannot be read: Permission"
    ):
        cut_tiny(tmp_path, where)
    assert len(list((tmp_path / "crops").iterdir())) == 3


@pytest.mark.filterwarnings("ignore:End of file")  # pydicom's own, of the damaged header
def test_files_that_should_be_dicom_and_are_none_are_told_and_set_their_lesions_aside(archive, tmp_path, capsys):
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    no_preamble, no_header = (next((tmp_path / "archive").rglob(f"1.2.3.{n}/*.dcm")) for n in (1, 2))
    no_preamble.write_bytes(b"<html>")
    no_header.write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    facts = run_tiny(tmp_path, where)
    assert (facts["lesions"], facts["set_aside"]) == (2, 2)
    told = capsys.readouterr().err
    for uid, path in (("1.2.3.1", no_preamble), ("1.2.3.2", no_header)):
        assert f"skipped: {path} is not a DICOM file" in told and f"does not have series {uid}" in told
    assert "metadata.csv" not in told


def test_two_files_of_one_instance_that_differ_in_length_are_named(archive, tmp_path):
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    whole = next((tmp_path / "archive").rglob("1.2.3.1/1-1.dcm"))
    (whole.parent / "copy.dcm").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(MiramError, match=r"1\.2\.3\.1/1-1\.dcm and .*/copy\.dcm are both instance [\d.]+, but differ"):
        list_tiny(tmp_path, where)


def image(kind: str, mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (8, 8)).save(stream, kind)
    return stream.getvalue()


MIRRORS = {
    "JPEG": (
        {"jpeg/1.3.6/1-1.jpg": image("JPEG"), "jpeg/1.3.6/2-1.jpeg": image("JPEG", "RGB")},
        "2 JPEG, 5 other",
        "16 bits",
    ),
    "PNG": ({"png/1.png": image("PNG")}, "1 PNG, 5 other", "16 bits"),
    "ZIP": ({"1.2.3.1.zip": zip_bytes({"1-1.dcm": b"x"}), "p.jpg": image("JPEG")}, "1 JPEG, 1 ZIP, 5 other", "Unpack"),
    "lists alone": ({}, "files of it: 5 other", "Name the folder"),
}


@pytest.mark.parametrize(("files", "told", "remedy"), MIRRORS.values(), ids=MIRRORS)
def test_a_mirror_without_dicom_files_is_refused_at_once_by_what_it_holds(archive, tmp_path, files, told, remedy):
    dicom, archive.series = archive.series, {}
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    for name, body in files.items():
        path = tmp_path / "archive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    with pytest.raises(MiramError, match=r"archive \(sources\.local\.folder\) holds no DICOM file") as caught:
        list_tiny(tmp_path / "run", where)
    assert told in caught.value.message and remedy in caught.value.remedy
    assert not (tmp_path / "run").exists()
    archive.series = dicom
    lay_out(archive, tmp_path / "archive", CLASSIC)
    assert run_tiny(tmp_path / "run", where)["origins"] == {"local": 8}


def test_an_empty_folder_and_one_of_another_archive_are_named(archive, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MiramError, match="holds no DICOM file; no other file either"):
        Local(Http(attempts=1, timeout_seconds=20.0, backoff_seconds=1.0), folder=str(tmp_path / "empty"))
    where = lay_out(archive, tmp_path / "archive", CLASSIC)
    for uid in archive.series:
        shutil.rmtree(next((tmp_path / "archive").rglob(uid)))
    other = dicom_bytes(mask_of((9, 9), (1, 1, 2, 2)), "9.9.9")
    (tmp_path / "archive" / "1-1.dcm").write_bytes(other)
    with pytest.raises(MiramError, match="holds 1 DICOM series, and none that the case lists name"):
        list_tiny(tmp_path / "run", where)
