"""The whole of CBIS-DDSM by number, with tiny pixels: 6,775 series of the real case lists on loopback."""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

pytestmark = pytest.mark.slow
HERE = Path(__file__).parents[1]  # with the helpers of all tests of data
CLIENT = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from tiny_runs import CROPS, cut_tiny, list_tiny, places_in
from miram.data.crop_rules import Cutting
from miram.data.transfer.films import plan_films
folder, where, times = Path(sys.argv[1]), json.loads(sys.argv[2]), [time.monotonic()]
if not (folder / "series.csv").exists():
    list_tiny(folder, where, timeout_seconds=60.0)
plan_films(places_in(folder), **where, cutting=Cutting(**CROPS), workers=2, keep_dicom=False)
times.append(time.monotonic())
facts = cut_tiny(folder, where, timeout_seconds=60.0)
times.append(time.monotonic())
used = resource.getrusage(resource.RUSAGE_SELF)
told = {"plan": times[1] - times[0], "cut": times[2] - times[1], "facts": facts}
print(json.dumps(told | {"peak_kb": used.ru_maxrss, "cpu": used.ru_utime + used.ru_stime}))
"""


SLICE_SECONDS = 20.0  # that the client works, and then others
SLICE_SERIES = 150
CURLS = {  # two transfers at a time, and the bodies alone: no hash is checked, nothing unpacked or cut
    "curl, a process a series": ["xargs", "-P", "2", "-L", "1", "curl", "-sS"],
    "curl --parallel": ["curl", "-sS", "--parallel", "--parallel-max", "2", "--config", "-"],
}


@pytest.fixture
def url(shared):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, str(HERE / "scale_server.py"), str(shared / "data")]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    yield server.stdout.readline().strip()
    server.kill()
    server.communicate()


def start(folder: Path, url: str) -> subprocess.Popen:
    settings = {"collection": "CBIS-DDSM", "api_url": url, "csv_url": url}
    where = json.dumps({"source": "tcia", "settings": settings})
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", CLIENT, str(folder), where, str(HERE)]
    with open(folder / "errors.txt", "w") as errors:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)


def end(client: subprocess.Popen, folder: Path) -> dict:
    told, _ = client.communicate()
    assert client.returncode == 0, (folder / "errors.txt").read_text()
    print(*told.splitlines()[:-1], sep="\n")
    return json.loads(told.splitlines()[-1])


def asked(url: str) -> dict[str, int]:
    """How often the client asked for each series."""
    answer = requests.get(f"{url}/asked", timeout=10).json()
    return {name: count for name, count in answer.items() if name[0].isdigit()}


def curl_rate(command: list[str], folder: Path, url: str, uids: list[str]) -> float:
    """Series a second."""
    as_config = "--config" in command
    form = 'url = "{0}"\noutput = "{1}"\n' if as_config else "-o {1} {0}\n"
    addresses = ((f"{url}/plain?SeriesInstanceUID={uid}", folder / f"{uid}.zip") for uid in uids)
    lines = "".join(form.format(*pair) for pair in addresses)
    folder.mkdir()
    begun = time.monotonic()
    subprocess.run(command, input=lines, text=True, check=True, capture_output=True)
    seconds = time.monotonic() - begun
    assert len(list(folder.iterdir())) == len(uids)
    shutil.rmtree(folder)
    return len(uids) / seconds


def rates_by_turns(client: subprocess.Popen, folder: Path, url: str) -> dict[str, list[float]]:
    """Series a second of the client and of curl, which work by turns until the client has ended."""
    rates: dict[str, list[float]] = {name: [] for name in ("client", *CURLS)}
    while client.poll() is None and len(asked(url)) < SLICE_SERIES:  # it plans, and does not ask
        time.sleep(0.1)
    while client.poll() is None:
        begun, before = time.monotonic(), len(asked(url))
        with suppress(subprocess.TimeoutExpired):
            client.wait(SLICE_SECONDS)
        client.send_signal(signal.SIGSTOP)
        rate = (len(asked(url)) - before) / (time.monotonic() - begun)
        if client.poll() is None:
            rates["client"].append(rate)
            for name, command in CURLS.items():
                uids = random.Random(len(rates[name])).sample(sorted(asked(url)), SLICE_SERIES)
                rates[name].append(curl_rate(command, folder, url, uids))
        client.send_signal(signal.SIGCONT)
    return rates


def test_6775_series_are_planned_fetched_and_cut_in_little_memory_and_once(url, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl, to compare with")
    client = start(tmp_path, url)
    rates = rates_by_turns(client, tmp_path / "curl", url)
    first, once = end(client, tmp_path), asked(url)
    again = end(start(tmp_path, url), tmp_path)
    median = {name: statistics.median(found) for name, found in rates.items()}
    print(
        f"{len(once)} series: planned in {first['plan']:.1f} s; fetched, verified and cut at {median['client']:.1f} "
        f"series/s with {1e3 * first['cpu'] / len(once):.1f} ms of CPU each; peak of the client "
        f"{first['peak_kb'] / 1e3:.0f} MB; a second run asks for nothing and takes {again['cut']:.1f} s; by turns of "
        f"{SLICE_SECONDS} s, medians of {len(rates['client'])}: "
        + ", ".join(f"{name} {median[name]:.1f} series/s" for name in CURLS)
    )
    assert first["facts"] == again["facts"]
    assert (first["facts"]["lesions"], first["facts"]["films"], first["facts"]["verified_series"]) == (3568, 3103, 6775)
    assert asked(url) == once and len(once) == 6775 and set(once.values()) == {1}
    assert max(first["peak_kb"], again["peak_kb"]) < 400_000
    assert max(first["plan"], again["plan"]) < 10
