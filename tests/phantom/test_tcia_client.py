"""TCIA's own Python client, tcia_utils, works with the embedded server: what it asks is answered as it expects."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from tiny_archive import dicom_bytes, mask_of

from miram.phantom.server import running

CLIENT = "tcia_utils==3.3.5"
FILM, ROI = "1.2.3", "1.2.4"
USE = """
import json, sys
from tcia_utils import nbia
base, folder = sys.argv[1:]
nbia.setApiUrl = lambda endpoint, api_url="nbia": base  # its own addresses are TCIA's
series = nbia.getSeries(collection="CBIS-DDSM")
uids = [one["SeriesInstanceUID"] for one in series]
tables = {
    "plain": nbia.downloadSeries(series, path=f"{folder}/plain", format="df"),
    "hashed": nbia.downloadSeries(uids, input_type="list", path=f"{folder}/hashed", hash="y", format="df"),
    "listed": nbia.getSeriesList(uids),
    "one": nbia.getSeries(collection="CBIS-DDSM", seriesUid=uids[0], format="df"),
}
other = nbia.getSeries(collection="CBIS-DDSM", patientId="nobody")
found = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
print(json.dumps({"series": series, "collections": nbia.getCollections(), "other": other, **found}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment that has the client and nothing of ours."""
    folder = tmp_path_factory.mktemp("client")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.skip(f"{CLIENT} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """A film, and a series of a crop and a mask; by UID their files."""
    film = np.arange(120, dtype=np.uint16).reshape(12, 10)
    mask = mask_of(film.shape, (2, 2, 5, 5))
    return {
        FILM: {"1-1.dcm": dicom_bytes(film, FILM)},
        ROI: {"1-1.dcm": dicom_bytes(film[2:5, 2:5].copy(), ROI), "1-2.dcm": dicom_bytes(mask, ROI)},
    }


@pytest.fixture(scope="module")
def folder(python, archive, tmp_path_factory) -> Path:
    """What the client has downloaded, and in `said.json` what it has said."""
    folder = tmp_path_factory.mktemp("served")
    for uid, files in archive.items():
        (folder / "archive" / "series" / uid).mkdir(parents=True)
        for name, body in files.items():
            (folder / "archive" / "series" / uid / name).write_bytes(body)
    environment = {**os.environ, "no_proxy": "127.0.0.1", "PYTHONPATH": ""}
    with running(folder / "archive") as (api_url, _):
        command = [str(python), "-c", USE, api_url, str(folder)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stderr, file=sys.stderr)
    (folder / "said.json").write_text(done.stdout.splitlines()[-1])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("way", "beside"), [("plain", "LICENSE"), ("hashed", "md5hashes.csv")])
def test_the_client_downloads_every_file_of_every_series(archive, folder, way, beside):
    for uid, files in archive.items():
        found = {path.name: path.read_bytes() for path in (folder / way / uid).iterdir()}
        assert found.pop(beside)
        assert found == files


@pytest.mark.slow
def test_the_sums_that_it_gets_are_those_of_the_files(archive, folder):
    for uid, files in archive.items():
        rows = list(csv.DictReader((folder / "hashed" / uid / "md5hashes.csv").open()))
        assert {row["Filename"]: row["MD5Hash"] for row in rows} == {
            name: hashlib.md5(body).hexdigest() for name, body in files.items()
        }


@pytest.mark.slow
def test_it_gets_the_metadata_of_the_series_under_the_names_that_it_knows(archive, folder):
    said = json.loads((folder / "said.json").read_text())
    wanted = {uid: (len(files), sum(map(len, files.values()))) for uid, files in archive.items()}
    for name in ("series", "plain", "hashed", "listed"):
        found = {row["SeriesInstanceUID"]: (row["ImageCount"], row["FileSize"]) for row in said[name]}
        assert found == wanted, name
        assert {row["LicenseName"] for row in said[name]} == {"CC BY 3.0"}, name
    assert said["collections"] == [{"Collection": "CBIS-DDSM"}]
    assert [row["SeriesInstanceUID"] for row in said["one"]] == [FILM] and not said["other"]
