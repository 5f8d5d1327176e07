"""Preset small on a twentieth of the real lesions: killed in between, it ends with the table of a run that was not."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from test_pipeline import RUN, copied_project, edit, environment, finished, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parent.parent
IMAGES = ROOT.parent / "shared" / "lesions" / "images"
SMALL = [*RUN, "--config", "preset=small"]
ONE_IN = 20
DEADLINE = 1800  # s until a run has begun to train
needs_lesions = pytest.mark.skipif(not IMAGES.is_dir(), reason="needs ../shared/lesions, the archive's own crops")


def shorter(document):
    document["methods"] = {name: document["methods"][name] for name in ("mae", "miram-nystrom")}
    for preset in document["presets"].values():
        preset.get("methods", {}).pop("miram-linformer", None)
    small = document["presets"]["small"]
    small["encoder"]["depth"] = small["decoder"]["depth"] = 1
    document["finetune"]["modes"] = ["finetune"]
    small["pretrain"] |= {"seeds": [0], "batch": 32, "epochs": 2, "warmup_epochs": 1, "checkpoint_every_epochs": 1}
    small["finetune"] |= {"tasks": ["pathology_4class"], "seeds": [0], "epochs": 2, "warmup_epochs": 1}


@pytest.fixture
def project(tmp_path):
    """A copy of the project with a twentieth of the lesions, two methods, and trainings of an epoch or two."""
    copied_project(tmp_path)
    (tmp_path / "data" / "archive-crops").mkdir(parents=True)
    for path in sorted(IMAGES.glob("*.jpg"))[::ONE_IN]:
        (tmp_path / "data" / "archive-crops" / path.name).symlink_to(path)
    edit(tmp_path, shorter)
    return tmp_path


def kill_after(folder: Path, records: int) -> None:
    """Start the run, and kill it and its jobs as soon as this many trainings have finished."""
    with open(folder / "killed.log", "wb") as log:
        run = subprocess.Popen(SMALL, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
    end = time.monotonic() + DEADLINE
    while len(list(folder.glob("runs/small/**/record.json"))) < records:
        assert run.poll() is None and time.monotonic() < end, (folder / "killed.log").read_text()
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


@needs_lesions
def test_a_twentieth_of_the_lesions_killed_and_started_again_ends_with_the_same_table(project):
    kill_after(project, 1)
    kill_after(project, 3)
    finished(project, SMALL)
    lesions = pd.read_csv(project / "data" / "small" / "lesions.csv")
    assert len(lesions) == len(list((project / "data" / "archive-crops").iterdir())) > 150
    first = table(project, "small")
    assert {"from-scratch", "mae", "miram-nystrom"} <= set(first["method"])
    assert set(first["protocol"]) == {"strict", "published"}
    assert "own crops" in (project / "results" / "small" / "comparison.md").read_text()
    who = (project / "results" / "small" / "cohort.md").read_text()
    listed, left = re.search(r"(\d+) series listed .*\n(\d+) of them not fetched, as .*", who).groups()
    assert int(listed) - int(left) == len(lesions)
    for folder in ("runs", "results/small"):
        shutil.rmtree(project / folder)
    finished(project, SMALL)
    pd.testing.assert_frame_equal(first, table(project, "small"))
