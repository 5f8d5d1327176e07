"""The loopback server speaks the calls of the NBIA API as the real one does."""

import csv
import hashlib
import io
import zipfile

import pytest
import requests

from miram.errors import MiramError
from miram.phantom.server import running


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    (folder / "series" / "1.2.3").mkdir(parents=True)
    (folder / "csv").mkdir()
    (folder / "series" / "1.2.3" / "1-1.dcm").write_bytes(b"not DICOM at all")
    (folder / "series" / "1.2.3" / "1-2.dcm").write_bytes(b"x" * 200_000)
    (folder / "csv" / "mass_case_description_test_set.csv").write_text("patient_id\n")
    return folder


@pytest.fixture(scope="module")
def urls(archive):
    with running(archive) as addresses:
        yield addresses


def test_the_series_are_listed_with_counts_and_sizes_also_damaged_ones(urls):
    answer = requests.get(f"{urls[0]}getSeries", {"Collection": "CBIS-DDSM", "format": "json"}, timeout=20).json()
    assert [(row["SeriesInstanceUID"], row["ImageCount"], row["FileSize"]) for row in answer] == [("1.2.3", 2, 200_016)]
    for other in ({"Collection": "Other"}, {"PatientID": "nobody"}, {"SeriesInstanceUID": "9.9"}):
        assert requests.get(f"{urls[0]}getSeries", other, timeout=20).json() == []


def test_the_collections_are_listed(urls):
    answer = requests.get(f"{urls[0]}getCollectionValues", timeout=20)
    assert answer.json() == [{"Collection": "CBIS-DDSM"}]


def test_a_zip_comes_without_length_and_with_the_right_sums(urls):
    answer = requests.get(f"{urls[0]}getImageWithMD5Hash", {"SeriesInstanceUID": "1.2.3"}, timeout=20)
    assert "Content-Length" not in answer.headers
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        listed = list(csv.DictReader(io.StringIO(archive.read("md5hashes.csv").decode())))
        assert (
            {row["Filename"] for row in listed} == set(archive.namelist()) - {"md5hashes.csv"} == {"1-1.dcm", "1-2.dcm"}
        )
        assert all(hashlib.md5(archive.read(row["Filename"])).hexdigest() == row["MD5Hash"] for row in listed)


def test_the_plain_zip_has_a_license_and_no_sums(urls):
    answer = requests.get(f"{urls[0]}getImage", {"SeriesInstanceUID": "1.2.3"}, timeout=20)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert set(archive.namelist()) == {"LICENSE", "1-1.dcm", "1-2.dcm"}


def test_metadata_is_posted_for_and_comes_as_csv(urls):
    answer = requests.post(f"{urls[0]}getSeriesMetadata", {"list": "1.2.3,9.9"}, timeout=20)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["Series Instance UID"], row["Image Count"]) for row in rows] == [("1.2.3", "2")]


def test_case_lists_are_served_and_nothing_outside(urls):
    assert requests.get(f"{urls[1]}mass_case_description_test_set.csv", timeout=20).text == "patient_id\n"
    for name in ("none.csv", "../archive.json", "%2e%2e/series"):
        assert requests.get(f"{urls[1]}{name}", timeout=20).status_code == 404


@pytest.mark.parametrize(
    ("call", "query"),
    [
        ("getSeries", {"Colection": "CBIS-DDSM"}),
        ("getImage", {}),
        ("getImageWithMD5Hash", {"SeriesInstanceUID": "4.5.6"}),
        ("getImageWithMD5Hash", {"SeriesInstanceUID": "../csv"}),
        ("getImageWithMD5Hash", {"SeriesInstanceUID": ".."}),
    ],
)
def test_what_the_server_does_not_know_is_a_400_with_a_text(urls, call, query):
    answer = requests.get(f"{urls[0]}{call}", query, timeout=20)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "text/plain"


def test_a_port_in_use_is_named(archive):
    with running(archive) as (api_url, _):
        port = int(api_url.split(":")[2].split("/")[0])
        with pytest.raises(MiramError, match=f"Port {port} .* cannot be listened on"), running(archive, port):
            pass
