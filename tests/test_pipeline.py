"""The whole pipeline on a small archive: what runs, what runs again after a change, and what a kill leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from miram.models._timm import create_model

pytestmark = pytest.mark.timeout(3600)  # a whole run of the workflow, which another may crowd out for long
ROOT = Path(__file__).parent.parent
SOURCES = (
    "Snakefile",
    "miram",
    "workflow",
    "profiles",
    "params.yaml",
    "requirements.lock",
    "results/bench",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
)
BIN = Path(sys.executable).parent
VARYING = r"pretrain_(seconds|peak_memory)"
RESULTS = ("evaluate", "cohort", "claims", "efficiency", "table", "report", "crate")  # rules
MIRAM = [sys.executable, "-m", "miram.cli"]
RUN = [BIN / "snakemake", "--cores", "2"]


def copied_project(folder: Path) -> Path:
    """A copy of the project, with the demo that it ships."""
    for name in SOURCES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def small_project(folder: Path) -> Path:
    """A copy of the project whose demo is as short as it gets: two methods, one seed, one mode, two epochs."""
    copied_project(folder)
    edit(folder, small)
    return folder


def small(document):
    methods = document["methods"]
    document["methods"] = {name: methods[name] for name in ("mae", "miram-nystrom")}
    for preset in document["presets"].values():
        preset.get("methods", {}).pop("miram-linformer", None)
    document["finetune"]["modes"] = ["finetune"]
    demo = document["presets"]["demo"]
    demo["archive"]["patients"] = 40
    demo["encoder"]["depth"] = demo["decoder"]["depth"] = 1
    demo["pretrain"] |= {"epochs": 3, "warmup_epochs": 1, "checkpoint_every_epochs": 1}
    demo["finetune"] |= {"seeds": [0], "epochs": 2, "warmup_epochs": 1}


def edit(folder, change):
    file = folder / "params.yaml"
    document = yaml.safe_load(file.read_text())
    change(document)
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def run(folder, command=RUN, **more):
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, **more)


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def finished(folder, command=RUN):
    done = run(folder, command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def jobs(folder, *target):
    """The rules that a run would do now."""
    planned = finished(folder, [*RUN, "--dry-run", *target])
    return set(re.findall(r"^(\w+) +\d+$", planned.stdout + planned.stderr, re.MULTILINE)) - {"total", "all"}


def table(folder, name="demo"):
    found = pd.read_csv(folder / "results" / name / "comparison.csv")
    return found[[column for column in found if not re.match(VARYING, column)]]


def test_the_demo_is_fewer_than_45_jobs(tmp_path):
    planned = finished(copied_project(tmp_path), [*RUN, "--dry-run"])
    assert int(re.search(r"^total +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE)[1]) < 45


def trainings(folder, *target):
    """The trainings that a run for a target would do now."""
    said = finished(folder, [*RUN, "--dry-run", *target])
    return set(re.findall(r"((?:pretrain|classify|trivial) \(.*?\)):", said.stdout + said.stderr))


@pytest.fixture(scope="module")
def headline(tmp_path_factory):
    """A small project after its headline, the trainings of that and of the whole, and the results then."""
    folder = small_project(tmp_path_factory.mktemp("project"))
    own, whole = trainings(folder, "headline"), trainings(folder)
    unfinished = run(folder, [*MIRAM, "table"])
    assert unfinished.returncode == 1 and "There are no predictions to evaluate" in unfinished.stderr
    shown = finished(folder, [*RUN, "headline"]).stdout
    assert (folder / "results/demo/comparison.md").read_text() in shown
    results = shutil.copytree(folder / "results", tmp_path_factory.mktemp("headline") / "results")
    return folder, own, whole, results.parent


@pytest.fixture(scope="module")
def project(headline):
    """A small project, finished."""
    folder, own, whole, _ = headline
    assert trainings(folder) == whole - own
    assert not (folder / "runs/demo/table.json").exists()
    (folder / "results/demo/comparison.md").unlink()
    assert "classifiers have finished" in finished(folder, [*MIRAM, "table"]).stdout
    assert (folder / "results/demo/comparison.md").is_file()
    finished(folder)
    return folder


def test_the_headline_comes_first_and_the_rest_is_named(headline):
    _, own, whole, folder = headline
    assert own and own == {job for job in whole if "protocol strict" in job} < whole
    rows = table(folder).set_index(["protocol", "method"])
    assert rows.loc["strict"]["accuracy_percent_mean"].notna().all()
    assert rows.loc[("published", "mae"), "notes"] == "not run"
    gap = "fine-tuning published/pathology_4class/finetune/mae/seed-0: not run"
    assert gap in (folder / "results/demo/report.html").read_text()
    assert (folder / "results/demo/claims.md").is_file()


@pytest.fixture
def restored(project):
    """The finished project, given back with its sources as they were."""
    kept = {path: path.read_text() for path in [project / "params.yaml", *project.glob("miram/**/*.py")]}
    yield project
    for path, text in kept.items():
        path.write_text(text)


def test_the_table_has_a_row_for_each_method_and_says_demo(project):
    found = table(project)
    for protocol in ("strict", "published"):
        own = found[found["protocol"] == protocol]
        assert {"from-scratch", "mae", "miram-nystrom"} <= set(own["method"])
        assert own["accuracy_percent_mean"].notna().all()
    assert set(found["preset"]) == {"demo"}
    assert "demo" in (project / "results/demo/comparison.md").read_text()
    assert (project / "results/demo/reconstructions_miram-nystrom.png").stat().st_size > 1000
    assert "Demo: no verdict" in (project / "results/demo/report.html").read_text()
    assert json.loads((project / "runs/demo/report.json").read_text())["facts"]["gaps"] == []


def test_what_goes_by_the_claims_names_them_among_its_inputs(project):
    for stage in ("claims", "efficiency", "report"):
        record = json.loads((project / f"runs/demo/{stage}.json").read_text())
        assert "workflow/resources/claims.yaml" in record["inputs"], stage


def test_its_table_is_shown_and_after_a_change_it_is_not_before_the_next_run(restored):
    assert finished(restored, [*MIRAM, "show"]).stdout == (restored / "results/demo/comparison.md").read_text()
    edit(restored, lambda document: document["presets"]["demo"]["finetune"].update(seeds=[0, 1]))
    refused = run(restored, [*MIRAM, "show"])
    assert refused.returncode == 1 and refused.stdout == ""
    assert "records are missing: runs/demo/strict/classifiers" in refused.stderr


def test_a_second_run_has_nothing_to_do(project):
    assert jobs(project) == set()


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("table.json", {"table", "report", "crate"}),
        ("strict/classifiers/pathology_4class/finetune/mae/seed-0/record.json", {"classify", "explain", *RESULTS}),
        ("strict/pretrain/mae/seed-0/record.json", {"pretrain", "classify", "explain", *RESULTS}),
    ],
    ids=("table", "classifier", "pre-training"),
)
def test_a_record_that_is_deleted_as_the_messages_advise_is_made_again(project, tmp_path, lost, again):
    (project / "runs/demo" / lost).rename(tmp_path / "record.json")
    try:
        assert jobs(project) == again
        assert "headline" in jobs(project, "headline") and (project / "runs/demo/crate.json").exists()
    finally:
        (tmp_path / "record.json").rename(project / "runs/demo" / lost)


def test_a_fine_tuning_parameter_runs_fine_tuning_and_what_follows(restored):
    edit(restored, lambda document: document["finetune"].update(drop_path=0.2))
    assert jobs(restored) == {"classify", *RESULTS, "explain"}


def test_a_pretraining_parameter_leaves_the_data_alone(restored):
    edit(restored, lambda document: document["pretrain"].update(mask_ratio=0.5))
    assert jobs(restored) == {"pretrain", "classify", *RESULTS, "explain"}


def test_a_comment_runs_nothing_and_code_runs_its_stage(restored):
    source = restored / "miram/train/finetune.py"
    source.write_text("# a comment\n" + source.read_text())
    assert jobs(restored) == set()
    source.write_text(source.read_text() + "\nSOMETHING = 1\n")
    assert jobs(restored) == {"classify", *RESULTS, "explain"}


def test_a_mode_more_runs_the_jobs_of_classifiers_and_one_that_is_not_used_none(restored):
    edit(restored, lambda document: document["finetune"].update(knn_neighbours=3))
    assert jobs(restored) == set()
    edit(restored, lambda document: document["finetune"].update(modes=["finetune", "knn"]))
    assert jobs(restored) == {"classify", *RESULTS, "explain"}
    edit(restored, lambda document: document["splits"].update(protocols=["strict"]))
    assert jobs(restored) == {"classify", "audit", *RESULTS, "explain"}


def test_an_unknown_key_stops_the_workflow_with_its_name(restored):
    edit(restored, lambda document: document["pretrain"].update(mask_ration=0.5))
    stopped = run(restored, [*RUN, "--dry-run"])
    assert stopped.returncode != 0
    assert "Unknown key pretrain.mask_ration" in stopped.stdout + stopped.stderr


def test_what_computes_on_a_gpu_reserves_it(tmp_path):
    folder = copied_project(tmp_path)
    reserved = '{rule.name: rule.resources["gpu"].value for rule in workflow.rules if "gpu" in rule.resources}'
    with open(folder / "Snakefile", "a") as file:
        file.write(f'print("gpus", json.dumps({reserved}))\n')
    edit(folder, lambda document: document["presets"]["paper"]["compute"].update(devices=4))
    said = finished(folder, [*RUN, "--list-rules", "--config", "preset=paper"]).stdout
    gpus = json.loads(re.search("^gpus (.*)$", said, re.MULTILINE)[1])
    of_one = dict.fromkeys(("classify", "explain"), 1)
    assert {rule: number for rule, number in gpus.items() if number} == {"pretrain": 4} | of_one


def test_the_workflow_is_the_same_by_the_entry_that_catalogues_look_for(tmp_path):
    folder = copied_project(tmp_path)
    listed = [finished(folder, [*RUN, *entry, "--list-rules"]).stdout for entry in ([], ["-s", "workflow/Snakefile"])]
    assert "pretrain" in listed[0]
    assert listed[0] == listed[1]


def test_a_second_config_that_would_drop_the_first_is_refused(tmp_path):
    folder = copied_project(tmp_path)
    refused = run(folder, [*RUN, "--dry-run", "--config", "preset=paper", "--config", "params=params.yaml"])
    assert refused.returncode != 0 and "Use one: --config preset=paper params=FILE" in refused.stdout + refused.stderr
    assert finished(folder, [*RUN, "--dry-run", "--config", "preset=demo", "params=params.yaml"])


def test_containers_without_their_image_are_refused_with_the_command_that_builds_it(project):
    refused = run(project, [*RUN, "--use-singularity", "--dry-run"])
    assert refused.returncode != 0
    assert "There is no container image miram.sif. Build it: make image sif" in refused.stdout + refused.stderr


def test_a_second_run_in_one_folder_waits_for_the_first(project):
    holder = "import fcntl, sys; f = open('.snakemake/miram.lock', 'w'); fcntl.flock(f, 2); print(flush=True); input()"
    first = subprocess.Popen([sys.executable, "-c", holder], cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first.stdout.readline()
    second = subprocess.Popen(RUN, cwd=project, env=environment(), stderr=subprocess.PIPE, text=True)
    assert any("Another run of this workflow" in line for line in iter(second.stderr.readline, ""))
    time.sleep(1.0)
    waited = second.poll() is None
    first.communicate(b"\n")
    assert waited and second.wait(600) == 0


@pytest.mark.slow
def test_a_killed_run_ends_with_the_table_of_an_uninterrupted_one(project, tmp_path, wait_until):
    folder = small_project(tmp_path / "killed")
    for log in ("crops.log", "strict/pretrain/mae/seed-0.log", "strict/classify/pathology_4class/mae.log"):
        running = subprocess.Popen(
            RUN, cwd=folder, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
        )
        started = folder / "logs/demo" / log
        wait_until(lambda started=started, run=running: started.exists() or run.poll() is not None, 1800)
        assert running.poll() is None, f"the run ended before {log}"
        time.sleep(1.0)
        if "/pretrain/" in log:  # its jobs too; at the other stages they are left working, as a lone kill does
            os.killpg(running.pid, signal.SIGKILL)
        running.kill()
        running.wait()
    finished(folder)
    pd.testing.assert_frame_equal(table(folder), table(project))


@pytest.fixture
def copied(project, tmp_path):
    """The finished project once more, for a test that spoils it."""
    return shutil.copytree(project, tmp_path / "project", symlinks=True)


KILLED = """
import os, signal
replace = os.replace
def killed(source, target, **more):
    if "seed-1/predictions" in str(target):
        open("killed", "w").write(os.path.dirname(target))
        os.killpg(0, signal.SIGKILL)
    replace(source, target, **more)
os.replace = killed
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_second_seed_does_not_train_the_first_again(copied):
    edit(copied, lambda document: document["finetune"].update(drop_path=0.2))
    edit(copied, lambda document: document["presets"]["demo"]["finetune"].update(seeds=[0, 1]))
    (copied / "sitecustomize.py").write_text(KILLED)  # of the jobs: what they write last of a network
    assert run(copied, start_new_session=True).returncode == -signal.SIGKILL
    (copied / "sitecustomize.py").unlink()
    second = copied / (copied / "killed").read_text()
    first = second.with_name("seed-0") / "record.json"
    assert json.loads(first.read_text())["values"]["drop_path"] == 0.2 and not (second / "record.json").exists()
    before = first.read_bytes()
    finished(copied)
    assert first.read_bytes() == before and (second / "record.json").exists()
    assert not [*copied.glob("runs/**/classifiers/**/checkpoint.pt")]
    assert row(copied, "strict", "mae")["seeds"] == 2


def test_a_table_of_what_is_done_shows_no_classifier_of_other_parameters(copied):
    code = copied / "miram/train/finetune.py"
    text = code.read_text()
    code.write_text(text + "\nSOMETHING = 1\n")
    assert finished(copied, [*MIRAM, "so-far"]).stdout.startswith("complete, left as it is: results/demo/comparison.md")
    finished(copied, [*MIRAM, "show"])  # all is done: the table is a run's
    code.write_text(text)
    edit(copied, lambda document: document["presets"]["demo"]["finetune"]["lr"].update(published=[2e-3]))
    assert "3 of 6 classifiers have finished" in finished(copied, [*MIRAM, "so-far"]).stdout
    assert row(copied, "strict", "mae")["accuracy_percent_mean"] > 0
    gap = row(copied, "published", "mae")
    assert np.isnan(gap["accuracy_percent_mean"]) and gap["notes"] == "not run" and np.isnan(gap["finetune_lr"])
    assert (
        len([*copied.glob("runs/demo/published/classifiers/*/finetune/*/seed-0/record.json")]) == 3
    )  # nothing is lost
    edit(copied, lambda document: document["presets"]["demo"]["pretrain"].update(epochs=4))
    assert "1 of 6 classifiers have finished" in finished(copied, [*MIRAM, "so-far"]).stdout
    assert row(copied, "strict", "from-scratch")["accuracy_percent_mean"] > 0
    gap = row(copied, "strict", "mae")
    assert gap["notes"] == "not run" and np.isnan(gap["pretrain_record"])
    told = json.loads((copied / "runs/demo/strict/pretrain/mae/seed-0/record.json").read_text())["values"]
    assert told["epochs"] == 3  # nor is this one lost
    page = (copied / "results/demo/report.html").read_text()
    assert "stage explain: not run, runs/demo/explain/record.json of the present parameters is missing" in page
    assert not (copied / "results/demo/efficiency.csv").read_text().splitlines()[1:]  # headings alone


def row(folder, protocol, method):
    found = table(folder).fillna({"notes": ""}).set_index(["protocol", "method"])
    return found.loc[protocol, method]


def failed(folder):
    """What a run says in which a job fails."""
    done = run(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_cell_that_fails_is_a_gap_in_table_and_report_and_the_next_run_fills_it(copied):
    own = copied / "runs/demo/published/classifiers/pathology_4class"
    blocked = own / "finetune/mae/seed-0/model.safetensors"
    blocked.unlink()
    (blocked / "in the way").mkdir(parents=True)
    edit(copied, lambda document: document["finetune"].update(drop_path=0.2, modes=["finetune", "linear"]))
    log = "logs/demo/published/classify/pathology_4class/mae.log"
    for _ in range(2):  # the second run tries that cell alone, and fails as well
        assert f"Failed:\n  classify: {log}\nMade without them" in failed(copied)
        assert "published/pathology_4class/finetune/mae/seed-0: " in (copied / log).read_text()
        rows = table(copied).set_index(["protocol", "method", "mode"])
        gap = rows.loc["published", "mae", "finetune"]
        assert np.isnan(gap["accuracy_percent_mean"]) and f"did not finish: see {log}" in gap["notes"]
        for done in (("strict", "mae", "finetune"), ("published", "mae", "linear")):
            assert rows.loc[done]["accuracy_percent_mean"] > 0
        assert (own / "linear/mae/seed-0/record.json").exists()  # of the same job
        assert f"See {log}" in (copied / "results/demo/report.html").read_text()
    cells = {path: path.stat().st_mtime_ns for path in copied.glob("runs/demo/*/classifiers/**/record.json")}
    shutil.rmtree(blocked)
    assert jobs(copied) == {"classify", *RESULTS}
    finished(copied)
    assert len(cells) == 13 and cells == {path: path.stat().st_mtime_ns for path in cells}
    rows = table(copied).set_index(["protocol", "method", "mode"])
    assert rows.loc["published", "mae", "finetune"]["accuracy_percent_mean"] > 0
    assert json.loads((copied / "runs/demo/report.json").read_text())["facts"]["gaps"] == []


@pytest.mark.slow
def test_what_waits_for_a_failed_pre_training_is_a_gap_and_not_the_result_of_before(copied):
    (copied / "weights.pth").write_text("no weights")
    edit(copied, lambda document: document["methods"]["mae"].update(encoder_init="weights.pth"))
    said = failed(copied)
    logs = [f"logs/demo/{protocol}/pretrain/mae/seed-0.log" for protocol in ("published", "strict")]
    assert f"Failed:\n  pretrain: {logs[0]}\n  pretrain: {logs[1]}\nMade without them" in said
    notes = row(copied, "strict", "mae")["notes"]
    assert np.isnan(row(copied, "strict", "mae")["accuracy_percent_mean"])
    assert f"runs/demo/strict/pretrain/mae/seed-0/record.json is missing; did not finish: see {logs[1]}" in notes
    assert row(copied, "strict", "miram-nystrom")["accuracy_percent_mean"] > 0
    assert {"pretrain", "classify"} <= jobs(copied)
    edit(copied, lambda document: document["methods"].pop("mae"))  # the table with the gap must not stay
    assert jobs(copied) == {*RESULTS, "explain"}


@pytest.mark.slow
def test_encoders_of_others_go_through_to_the_report_and_a_file_that_does_not_fit_is_a_gap(copied):
    for name in ("test_vit", "test_resnet"):
        save_file(create_model(name).state_dict(), copied / f"{name}.safetensors")
    resnet = {"timm": "test_resnet.r160_in1k", "weights": "test_resnet.safetensors", "side": 64}
    rows = {"vit": {"timm": "test_vit", "weights": "test_resnet.safetensors"}, "resnet": resnet}
    modes = ["finetune", "linear"]
    edit(copied, lambda document: document.update(encoders=rows))
    edit(copied, lambda document: (document["finetune"].update(modes=modes), document["splits"].update(further="main")))
    said = failed(copied)
    assert "test_resnet.safetensors does not hold the weights of timm's test_vit: cls_token absent instead of" in said
    noted = table(copied).set_index(["protocol", "method", "mode"])["notes"]
    log = "logs/demo/strict/classify/pathology_4class/vit.log"
    for mode in modes:
        assert f"did not finish: see {log}" in noted["strict", "vit", mode]
    edit(copied, lambda document: document["encoders"]["vit"].update(weights="test_vit.safetensors"))
    assert jobs(copied) == {"classify", *RESULTS, "explain"}
    finished(copied)
    made = table(copied).set_index(["protocol", "method", "mode"])
    for method, name in (("vit", "test_vit"), ("resnet", "test_resnet.r160_in1k")):
        for protocol in ("strict", "published"):
            own = made.sort_index().loc[protocol, method].loc[modes]
            assert own["accuracy_percent_mean"].notna().all() and (own["finetune_flops"] > 0).all()
            told = f"not pre-trained here: {name} of timm, {name.partition('.')[0]}.safetensors"
            assert own["notes"].str.startswith(told).all()
            assert (own["side"] == (64 if method == "resnet" else 48)).all() and own["pretrain_batch"].isna().all()
    records = copied.glob("runs/demo/strict/classifiers/pathology_4class/*/resnet/seed-0/record.json")
    assert all("test_resnet.safetensors" in json.loads(path.read_text())["inputs"] for path in records)
    differences = pd.read_csv(copied / "results/demo/differences.csv").query("first == 'miram-nystrom'")
    assert (differences.query("second == 'resnet'")["differs_in"] == "side (48 against 64)").all()
    maps, points = (copied / "runs/demo/explain" / name for name in ("relevance.npz", "embedding.csv"))
    with np.load(maps) as found:
        assert (found["vit"].shape[1:], found["resnet"].shape[1:]) == ((3, 3), (2, 2))
    assert {"vit", "resnet", "mae"} <= set(pd.read_csv(points)["method"])
    text = (copied / "results/demo/report.html").read_text()
    assert all(f'"calibration-{name}-' in text and f"relevance map of {name} " in text for name in ("vit", "resnet"))
    crop = next((copied / "data/demo/crops").glob("*.png"))
    assert "resnet, pathology_4class" in finished(copied, [*MIRAM, "predict", crop, "--method", "resnet"]).stdout
    assert "| t4 " in finished(copied, [*MIRAM, "plan", "--card", "t4"]).stdout


@pytest.mark.slow
def test_a_failure_before_any_result_is_told_and_an_interrupted_run_makes_none(tmp_path, wait_until):
    folder = small_project(tmp_path / "project")
    source = folder / "miram/phantom/archive.py"
    code = source.read_text()
    source.write_text("raise OSError")
    said = failed(folder)
    assert "Failed:\n  archive: logs/demo/archive.log\nNot all results could be made of the rest: see logs" in said
    assert "There are no predictions to evaluate" in (folder / "logs/demo/so-far.log").read_text()
    source.write_text(code)
    options = {"start_new_session": True, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(RUN, cwd=folder, env=environment(), **options)
    wait_until((folder / "logs/demo/strict/pretrain/mae/seed-0.log").exists, 1800)
    os.killpg(running.pid, signal.SIGTERM)
    assert "Failed:" not in running.communicate()[1]
    assert running.returncode != 0 and not [*folder.glob("results/demo/comparison.*")]


def own_images(folder):
    """60 images of 30 patients: dark, bright or striped; one of them is no image, and one has two lesions in boxes.

    The last patients are the test set, and those before them for pre-training alone, without a label.
    """
    folder.mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(60):
        label = ("dark", "bright", "striped")[number // 2 % 3]
        level = {"dark": 40, "bright": 200, "striped": 30 + 180 * (np.arange(40) // 5 % 2)}[label]
        pixels = np.broadcast_to(level, (48, 40)) + random.integers(-25, 26, (48, 40))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
        part = "test" if number >= 48 else "pretrain" if number >= 42 else "train"
        row = f"{number:02}.png", f"patient {number // 2}", "" if part == "pretrain" else label, part
        boxes = [("4", "4,5", "32", "30"), ("8", "12", "20", "20")] if number == 1 else [("",) * 4]
        rows += [(*row, *box) for box in boxes]
    (folder / "00.png").write_bytes(b"no image")
    columns = ["Image", "Patient", "Label", "Split", "x", "y", "width", "height"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(folder / "images.csv", index=False, sep=";", encoding="utf-16")


def with_own_images(document):
    document["source"] = "images"
    document["sources"]["images"]["positive"] = "striped"
    document["methods"] = {"mae": document["methods"]["mae"]}
    document["statistics"]["reference"] = "mae"
    document["splits"]["protocols"] = ["strict"]
    document["finetune"]["modes"] = ["finetune", "linear", "knn"]
    for name in ("demo", "paper"):
        document["presets"][name]["finetune"]["tasks"] = ["label"]
    for preset in document["presets"].values():
        preset["methods"] = {}
    document["presets"]["demo"]["finetune"]["epochs"] = 5


@pytest.mark.slow
def test_images_of_ones_own_with_three_classes_go_through_the_whole_workflow_to_a_table(tmp_path):
    folder = small_project(tmp_path / "project")
    own_images(tmp_path / "images")
    edit(folder, with_own_images)
    said = finished(folder, [*MIRAM, "images", "--check"]).stdout
    assert (
        "60 images of 30 patients; 1 of them are set aside" in said and "Sensitivity is measured for: striped" in said
    )
    assert [path.name for path in (folder / "data/my-images").iterdir()] == ["images-check.html"]
    finished(folder)
    assert not (folder / "results/demo").exists() and not (folder / "runs/demo").exists()
    found = table(folder, "my-images").set_index(["mode", "method"])
    assert set(found.index) == {
        (mode, method) for mode in ("finetune", "linear", "knn") for method in ("from-scratch", "mae", "majority class")
    }
    assert set(found["task"]) == {"label"} and set(found["classes_present"]) == {3}
    accuracy = found["accuracy_percent_mean"]
    assert accuracy["linear", "mae"] > accuracy["linear", "majority class"] + 30
    predictions = pd.read_parquet(
        folder / "runs/my-images/strict/classifiers/label/finetune/mae/seed-0/predictions.parquet"
    )
    assert list(predictions)[4:] == ["prob_bright", "prob_dark", "prob_striped"]
    splits = pd.read_csv(folder / "data/my-images/splits/strict.csv")
    assert splits.groupby("patient_id")["split"].nunique().max() == 1
    assert splits["split"].value_counts()[["pretrain", "test"]].to_dict() == {"pretrain": 6, "test": 12}
    seen = json.loads((folder / "runs/my-images/strict/pretrain/mae/record.json").read_text())["facts"]["images"]
    assert seen == splits["split"].isin(["train", "validation", "pretrain"]).sum() == 48
    overview = (folder / "data/my-images/overview.md").read_text()
    assert overview in said and overview in (folder / "logs/my-images/images.log").read_text()
    page = (folder / "results/my-images/report.html").read_text()
    assert "What the images are" in page and "pictures under several names" in page
    assert "share of lesions of class striped found" in page
    text = (folder / "results/my-images/comparison.md").read_text()
    assert "my-images: own images, small models of preset demo" in text and "DEMO" not in text
    assert overview.strip() in text and "claims.md" not in text
    assert "sensitivity is that of striped, at" in " ".join(text.split())
    assert finished(folder, [*MIRAM, "show"]).stdout == text
    assert "00.png cannot be decoded" in (folder / "results/my-images/set_aside.md").read_text()
    assert "CBIS-DDSM" not in (folder / "results/my-images/ro-crate-metadata.json").read_text()
    assert jobs(folder) == set()
    (tmp_path / "images" / "01.png").write_bytes((tmp_path / "images" / "07.png").read_bytes())
    assert {"images", "pack", "pretrain"} <= jobs(folder)
    (tmp_path / "images" / "02.png").unlink()
    stopped = run(folder, [*RUN, "--dry-run"])
    assert stopped.returncode != 0 and "'02.png', which is not in" in stopped.stdout + stopped.stderr


@pytest.mark.slow
def test_two_pre_trainings_and_unequal_sides_are_told_apart_in_every_result(tmp_path):
    folder = small_project(tmp_path)

    def change(document):
        document["pretrain"]["seeds"] = [0, 5]
        demo = document["presets"]["demo"]
        demo["finetune"]["seeds"] = [0, 1, 2]
        demo["methods"]["miram-nystrom"]["side"] = 64

    edit(folder, change)
    finished(folder)
    made = {path.parent.name for path in folder.glob("runs/demo/strict/pretrain/mae/*/record.json")}
    assert made == {"seed-0", "seed-5"}
    results = folder / "results/demo"
    metrics = pd.read_csv(results / "metrics.csv").query("method == 'mae' and split == 'test' and seed.notna()")
    assert metrics.groupby("seed")["pretrain_seed"].first().to_dict() == {0: 0, 1: 5, 2: 0}
    variance = pd.read_csv(results / "variance.csv").query("method == 'mae' and metric == 'macro_auc'")
    assert (variance["pretrainings"] == 2).all() and variance[["sd_pretraining", "sd_finetuning"]].notna().all(
        axis=None
    )
    differences = pd.read_csv(results / "differences.csv").query("first == 'miram-nystrom' and second == 'mae'")
    assert set(differences["differs_in"]) == {"side (64 against 48)"} and set(differences["pretrainings"]) == {2}
    rows = table(folder).query("mode == 'finetune'").set_index("method")
    assert set(rows.loc["mae", "side"]) == {48} and (rows.loc["mae", "pretrain_steps"] > 0).all()
    assert (rows.loc["miram-nystrom", "finetune_flops"].mean() > rows.loc["mae", "finetune_flops"]).all()
    assert "pre-trained 2 times" in (results / "report.html").read_text()
    assert json.loads((folder / "runs/demo/report.json").read_text())["facts"]["gaps"] == []
    finished(folder, [*MIRAM, "verify"])
