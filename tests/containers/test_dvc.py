"""DVC over the workflow: plain Snakemake's numbers; in throw-away clones what runs again, is seen, survives a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from real_tools import assert_same_numbers
from test_pipeline import BIN, RESULTS, edit, environment, finished, jobs, run, small_project

from miram import layout

pytestmark = pytest.mark.container
DVC = BIN / "dvc"
MIRAM = [sys.executable, "-m", "miram.cli"]
SKIPPED = "didn't change, skipping"


def git(folder, *words):
    return finished(folder, ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]).stdout


def one_method(document):
    document["methods"] = {"mae": document["methods"]["mae"]}
    document["splits"]["protocols"] = document["splits"]["protocols"][:1]
    document["statistics"]["reference"] = "mae"
    for preset in document["presets"].values():
        preset["methods"] = {}


def written(folder, pattern):
    """When each record was written."""
    found = {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}
    assert found, pattern
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A project that one person reproduced, committed and pushed."""
    folder = small_project(tmp_path_factory.mktemp("published"))
    edit(folder, one_method)
    git(folder, "init", "-q")
    finished(folder, [DVC, "remote", "add", "-q", "-d", "store", tmp_path_factory.mktemp("store")])
    finished(folder, [DVC, "repro"])
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "reproduced")
    finished(folder, [DVC, "push"])
    return folder


@pytest.fixture
def clone(published, tmp_path):
    """A second person's fresh clone with the data and models of the first."""
    git(tmp_path, "clone", "-q", published, "clone")
    finished(tmp_path / "clone", [DVC, "pull"])
    return tmp_path / "clone"


def test_a_second_reproduction_runs_nothing(published):
    assert SKIPPED in finished(published, [DVC, "repro"]).stdout


def test_few_files_are_pushed(published):
    kept = json.loads(finished(published, [DVC, "list", ".", "data/demo", "--dvc-only", "-R", "--json"]).stdout)
    assert "crops.u8" in {file["path"] for file in kept}
    assert not [file["path"] for file in kept if file["path"].endswith((".png", ".dcm"))]
    kept = json.loads(finished(published, [DVC, "list", ".", "runs/demo", "--dvc-only", "-R", "--json"]).stdout)
    assert "encoder.safetensors" in {file["path"].rpartition("/")[2] for file in kept}
    assert not [file["path"] for file in kept if file["path"].endswith(".pt")]


def test_a_clone_that_pulled_runs_nothing_and_agrees_with_its_records(clone):
    assert SKIPPED in finished(clone, [DVC, "repro"]).stdout
    assert jobs(clone) == set()
    assert "agrees with its crate" in finished(clone, [*MIRAM, "verify"]).stdout
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_clone_that_pulled_can_cut_the_crops_otherwise_though_no_film_was_pulled(clone):
    assert not (clone / "data/demo/archive").exists()
    edit(clone, lambda document: document["crops"].update(margin=0.1))
    finished(clone, [*MIRAM, "crops"])
    assert json.loads((clone / "data/demo/crops.json").read_text())["facts"]["lesions"] > 0


@pytest.mark.slow
def test_an_experiment_changes_one_parameter_and_what_follows_from_it_in_place(clone):
    data = written(clone, "data/demo/**/*.json")
    finished(clone, [DVC, "exp", "run", "-S", "pretrain.mask_ratio=0.5"])
    assert written(clone, "data/demo/**/*.json") == data
    assert "mask_ratio: 0.5" in (clone / "params.yaml").read_text()
    assert "agrees with its crate" in finished(clone, [*MIRAM, "verify"]).stdout
    assert jobs(clone) == set()
    compared = json.loads(finished(clone, [DVC, "metrics", "diff", "--json"]).stdout)
    assert "results/demo/summary.json" in compared
    assert "pretrain.mask_ratio" in finished(clone, [DVC, "params", "diff"]).stdout
    plots = json.loads(finished(clone, [DVC, "plots", "diff", "--json"]).stdout)
    assert set(plots["data"]) == {"results/demo/pretraining.csv", "results/demo/comparison.csv"}
    assert not plots.get("errors")


@pytest.mark.parametrize("preset", ["paper", "paper-448"])
def test_the_preset_of_an_experiment_is_resolved_and_what_it_makes_is_stored(clone, preset):
    planned = finished(clone, [DVC, "exp", "run", "--dry", "-S", f"preset={preset}"])
    assert f"miram --preset {preset} verify results/{preset} && miram --preset {preset} show" in planned.stdout
    edit(clone, lambda document: document.update(preset=preset))
    stored = re.search("Outputs (.*)", finished(clone, [DVC, "stage", "list"]).stdout)[1].split(", ")
    for folder in (layout.data(preset), layout.explain(preset), layout.results(preset)):
        assert any(folder.is_relative_to(output) for output in stored), folder


def test_of_own_images_the_folders_that_have_their_name_are_stored(tmp_path):
    folder = small_project(tmp_path / "project")
    git(tmp_path, "init", "-q", folder)
    finished(folder, ["sh", "-c", re.search("^# .* First: (.*)$", (folder / "dvc.yaml").read_text(), re.MULTILINE)[1]])
    stored = re.search("Outputs (.*)", finished(folder, [DVC, "stage", "list"]).stdout)[1].split(", ")
    assert {"runs/my-images", "results/my-images"} <= {*stored}
    planned = finished(folder, [DVC, "repro", "--dry"]).stdout
    assert "miram --preset demo verify results/my-images && miram --preset demo show" in planned


def test_an_output_that_was_edited_by_hand_is_named_and_not_kept(clone):
    encoder = next(clone.glob("runs/demo/**/encoder.safetensors"))
    made = encoder.read_bytes()
    encoder.unlink()  # it may be a link into DVC's cache
    encoder.write_bytes(made + b"edited")
    refused = run(clone, [DVC, "repro"])
    assert refused.returncode != 0
    assert f"{encoder.relative_to(clone)} is not the file that" in refused.stdout
    assert git(clone, "status", "--porcelain") == ""  # dvc.lock still names what was made
    finished(clone, [DVC, "checkout", "--force"])
    assert encoder.read_bytes() == made
    assert SKIPPED in finished(clone, [DVC, "repro"]).stdout


def test_a_forced_checkout_leaves_the_films_of_another_preset_and_their_ledger(clone):
    kept = [clone / "data/paper" / name for name in ("ledger.jsonl", "crops/lesion.png")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("fetched for hours")
    (clone / "data/paper/lesions.csv").write_text("made of them")
    finished(clone, [DVC, "checkout", "--force"])
    assert not (clone / "data/paper/lesions.csv").exists()
    assert all(path.exists() for path in kept)


@pytest.mark.slow
def test_after_a_kill_of_dvc_the_next_reproduction_ends_well(clone):
    pretrained = written(clone, "runs/demo/**/pretrain/*/seed-*/record.json")
    edit(clone, lambda document: document["finetune"].update(drop_path=0.2))
    assert jobs(clone) == {"classify", *RESULTS, "explain"}
    running = subprocess.Popen(
        [DVC, "repro"], cwd=clone, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(clone.glob("logs/demo/**/seed-0.log")):
        assert running.poll() is None, "dvc ended before a fine-tuning began"
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)  # Snakemake and its job work on as orphans
    running.wait()
    finished(clone, [DVC, "repro"])
    assert "agrees with its crate" in finished(clone, [*MIRAM, "verify"]).stdout
    assert SKIPPED in finished(clone, [DVC, "repro"]).stdout
    assert written(clone, "runs/demo/**/pretrain/*/seed-*/record.json") == pretrained


@pytest.mark.slow
def test_its_numbers_are_plain_snakemakes(project, plain):
    finished(project, [DVC, "repro"])
    assert_same_numbers(project, plain)
