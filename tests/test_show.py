"""A table is printed by `miram show`, and by all that call it, only where it is of the present parameters."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from miram import layout, params
from miram.cli import main, results
from miram.cli.stage import expected as expected_of
from miram.files import sha256_file
from miram.stages import STAGES

ROOT = Path(__file__).parent.parent
TABLE = "| method | accuracy |\n| miram-nyström | 61.0 ± 0.4 |\n"


def edit(change):
    document = yaml.safe_load(Path("params.yaml").read_text())
    change(document)
    Path("params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def use_own_images(document):
    document["source"] = "images"
    for name in ("demo", "paper"):
        document["presets"][name]["finetune"]["tasks"] = ["label"]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def finish_all(preset="demo"):
    """Write what the workflow would have made of the present parameters: all records, and the table."""
    chosen = params.load(Path("params.yaml"), preset)
    table = layout.results(chosen.name) / "comparison.md"
    write(table, f"# {chosen.title}\n{TABLE}")
    expected = expected_of(chosen)
    for path, (stage, values) in sorted(expected.items(), key=lambda item: item[1][0] == "table"):
        outputs = {str(table): sha256_file(table)} if stage == "table" else {}
        inputs = (
            [] if stage != "table" else [layout.record("evaluate", chosen.name), layout.record("crops", chosen.name)]
        )
        inputs = {str(file): sha256_file(file) for file in inputs}
        write(path, json.dumps({"stage": stage, "values": values, "inputs": inputs, "outputs": outputs}))
    return table.read_text(encoding="utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working folder, in which nothing was run; the table is there all the same, as it came with git."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    write(layout.results("demo") / "comparison.md", f"# from git\n{TABLE}")
    return tmp_path


def refusal(capfd, *arguments):
    """Why the table is not shown."""
    assert main([*arguments, "show"]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "does not belong to the present parameters" in said.err and "Run the workflow" in said.err
    return said.err


def test_the_table_of_the_present_parameters_is_printed_byte_by_byte(project, capfd):
    table = finish_all()
    assert main(["show"]) == 0
    assert capfd.readouterr().out == table


def test_where_git_replaced_a_result_the_records_to_delete_are_named(project, capfd):
    finish_all()
    write(layout.results("demo") / "comparison.md", f"# from git\n{TABLE}")
    said = refusal(capfd)
    assert str(layout.record("table", "demo")) in said and "delete the records named above" in said


def test_a_table_that_came_with_git_is_not_printed(project, capfd):
    assert "records are missing: data/demo/archive.json, " in refusal(capfd)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda document: document["pretrain"].update(mask_ratio=0.5), "pretrain.mask_ratio of "),
        (lambda document: document["presets"]["demo"]["finetune"].update(seeds=[0, 1, 2]), "records are missing"),
        (lambda document: document["crops"].update(margin=0.1), "crops.crops.margin of data/demo/crops.json was [0.0]"),
        (lambda document: document["statistics"].update(confidence=0.9), "table.statistics.confidence of "),
    ],
    ids=("pre-training", "a seed more", "crops", "statistics"),
)
def test_a_table_of_other_parameters_is_not_printed_and_what_has_changed_is_named(project, capfd, change, named):
    finish_all()
    edit(change)
    assert named in refusal(capfd)


def test_a_table_that_was_edited_or_made_of_other_records_is_not_printed(project, capfd):
    table = finish_all()
    path = layout.results("demo") / "comparison.md"
    path.write_text(table.replace("61.0", "91.0"), encoding="utf-8")
    assert "comparison.md is not the file that runs/demo/table.json names" in refusal(capfd)
    finish_all()
    record = layout.record("crops", "demo")
    record.write_text(record.read_text() + " ")
    assert "data/demo/crops.json is not the file that runs/demo/table.json names" in refusal(capfd)
    finish_all()
    layout.record("table", "demo").write_text("{}")
    assert "runs/demo/table.json is damaged" in refusal(capfd)


def test_many_reasons_are_told_in_few_lines(project, capfd):
    finish_all()
    edit(lambda document: document["finetune"].update(drop_path=0.2))
    assert "\nand 23 more: miram verify\n" in refusal(capfd)


def test_own_images_have_a_table_of_their_own(project, capfd):
    finish_all()
    edit(use_own_images)
    assert "results/my-images/comparison.md is not shown" in refusal(capfd)
    finish_all()
    assert main(["show"]) == 0
    assert capfd.readouterr().out.startswith("# demo on my-images\n")
    assert "results/my-images/comparison.md is not shown" in refusal(capfd, "--preset", "paper")


def test_a_table_with_gaps_keeps_no_record_of_its_own_and_takes_none_of_a_run_at_work(project, capfd, monkeypatch):
    finish_all()
    layout.record("pretrain", "demo", "strict", "mae", 0).unlink()
    made = []

    def make(stage):
        made.append(stage)
        layout.record(stage, "demo").write_text(f"with gaps: {stage}")
        if stage == "table":  # meanwhile the run makes this one
            layout.record("evaluate", "demo").write_text("complete")

    stages = [stage.name for stage in STAGES.values() if stage.with_gaps]
    for stage in stages:
        monkeypatch.setattr(results, stage, lambda *_, stage=stage: make(stage))
    assert main(["so-far"]) == 0
    assert made == stages and "classifiers have finished" in capfd.readouterr().out
    assert [stage for stage in stages if layout.record(stage, "demo").exists()] == ["evaluate"]
    assert layout.record("evaluate", "demo").read_text() == "complete" and layout.record("crate", "demo").exists()


@pytest.fixture
def idle(project):
    """The environment in which Snakemake does nothing, exit code 0; make finds all installed."""
    programs = {"snakemake": "true", "miram": f'exec {sys.executable} -m miram.cli "$@"'}
    for name, line in programs.items():
        write(project / ".venv/bin" / name, f"#!/bin/sh\n{line}\n")
        (project / ".venv/bin" / name).chmod(0o755)
    for number, name in enumerate(("requirements.lock", "requirements-cuda.lock", "pyproject.toml", ".venv/installed")):
        write(project / name, "")
        os.utime(project / name, (number, number))
    shutil.copy(ROOT / "Makefile", project)
    for name in (
        "data",
        "runs",
        "logs",
        "results",
        ".snakemake",
        "bench",
    ):  # for docker/run, whose /data is this folder
        (project / name).mkdir(exist_ok=True)
    write(project / "run", (ROOT / "docker/run").read_text().replace("/data", str(project)))
    path = f"{project / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("command", [["make", "--silent", "demo"], ["sh", "run", "demo"]], ids=("make", "docker"))
def test_a_run_that_did_nothing_does_not_end_with_the_table_of_another(idle, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    options = {"env": idle, "capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(command, **options)
    assert done.returncode != 0 and "accuracy" not in done.stdout, done.stdout
    assert "records are missing" in done.stderr
    edit(use_own_images)
    own = finish_all()
    done = subprocess.run(command, **options)
    assert done.returncode == 0 and done.stdout.startswith(own), done.stderr
    assert "results/demo" not in done.stdout  # nor is another run compared with what git has


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_crops_for_small_are_linked_from_a_path_with_blanks_and_into_no_folder(idle, project):
    (project / "my crops").mkdir()
    link, command = project / "data/archive-crops", ["make", "--silent", "small", "CROPS=my crops"]
    options = {"env": idle, "capture_output": True, "encoding": "utf-8"}
    for _ in range(2):
        assert "results/small/comparison.md is not shown" in subprocess.run(command, **options).stderr
        assert link.readlink() == (project / "my crops").resolve()
    link.unlink()
    link.mkdir()
    done = subprocess.run(command, **options)
    assert done.returncode != 0 and "data/archive-crops is there and is no link" in done.stdout
    assert not [*link.iterdir()]


def test_the_image_runs_the_workflow_for_preset_small(idle):
    done = subprocess.run(["sh", "run", "small"], env=idle, capture_output=True, encoding="utf-8")
    assert "results/small/comparison.md is not shown" in done.stderr, done.stderr
