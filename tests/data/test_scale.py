"""The whole of CBIS-DDSM by number, with tiny pixels: 6,775 series of the real case lists on loopback."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

HERE = Path(__file__).parent
CLIENT = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from tiny_runs import CROPS, cut_tiny, list_tiny, places_in
from miram.data.films import plan_films
folder, where, times = Path(sys.argv[1]), json.loads(sys.argv[2]), [time.monotonic()]
if not (folder / "series.csv").exists():
    list_tiny(folder, where, timeout_seconds=60.0)
plan_films(places_in(folder), **where, crops=CROPS, workers=2, keep_dicom=False)
times.append(time.monotonic())
facts = cut_tiny(folder, where, timeout_seconds=60.0)
times.append(time.monotonic())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"plan": times[1] - times[0], "cut": times[2] - times[1], "peak_kb": peak, "facts": facts}))
"""


@pytest.fixture
def url(shared):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, str(HERE / "scale_server.py"), str(shared / "data")]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    yield server.stdout.readline().strip()
    server.kill()
    server.communicate()


def client(folder: Path, url: str) -> dict:
    settings = {"collection": "CBIS-DDSM", "api_url": url, "csv_url": url}
    where = json.dumps({"source": "tcia", "settings": settings})
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", CLIENT, str(folder), where, str(HERE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(*done.stdout.splitlines()[:-1], sep="\n")
    return json.loads(done.stdout.splitlines()[-1])


def curl_seconds(folder: Path, url: str, uids: list[str]) -> float:
    folder.mkdir()
    lines = "".join(f"-o {folder}/{uid}.zip {url}/getImageWithMD5Hash?SeriesInstanceUID={uid}\n" for uid in uids)
    start = time.monotonic()
    subprocess.run(["xargs", "-P", "2", "-L", "1", "curl", "-sS"], input=lines, text=True, check=True)
    seconds = time.monotonic() - start
    assert len(list(folder.iterdir())) == len(uids)
    return seconds


@pytest.mark.slow
def test_6775_series_are_planned_fetched_and_cut_in_little_memory_and_once(url, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl, to compare with")
    first = client(tmp_path / "run", url)
    asked = requests.get(f"{url}/asked", timeout=10).json()
    again = client(tmp_path / "run", url)
    assert requests.get(f"{url}/asked", timeout=10).json() == asked
    uids = [uid for uid in asked if uid[0].isdigit()]
    curl = curl_seconds(tmp_path / "curl", url, uids)
    own, plain = len(uids) / first["cut"], len(uids) / curl
    print(
        f"{len(uids)} series: planned in {first['plan']:.1f} s; fetched, verified and cut in {first['cut']:.0f} s: "
        f"{own:.1f} series/s; curl, two at a time, the bodies alone: {plain:.1f} series/s; peak of the client "
        f"{first['peak_kb'] / 1e3:.0f} MB; a second run asks for nothing and takes {again['cut']:.1f} s"
    )
    assert first["facts"] == again["facts"]
    assert (first["facts"]["lesions"], first["facts"]["films"], first["facts"]["verified_series"]) == (3568, 3103, 6775)
    assert len(uids) == 6775 and all(asked[uid] == 1 for uid in uids)
    assert max(first["peak_kb"], again["peak_kb"]) < 400_000
    assert max(first["plan"], again["plan"]) < 10
