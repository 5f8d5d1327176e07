"""What the tests of the containers and of the cluster share: commands, the tools' scripts, the project that is run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from test_pipeline import copied_project, edit, small_project, table

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT.parent / "shared" / "tools"
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
THROUGH_SLURM = [
    *SNAKEMAKE,
    *("--profile", "workflow/profiles/slurm"),
    *("--slurm-status-command", "squeue"),  # without accounting, the default waits for ever
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
]
STRANGER = "4321:4321"  # a user whom the image does not know
CELL = "pathology_4class/finetune/miram-nystrom/seed-0"  # of the tiny project
CONFINED = ["--network", "none", "--read-only", "--user", STRANGER]
NUMBERS = (  # of a finished project, beside its table
    *(f"results/demo/{name}.csv" for name in ("metrics", "differences", "pretraining", "instances")),
    "data/demo/splits/*.csv",
    "runs/demo/**/predictions.parquet",
)


def command(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)


def docker_run(image, *words, options=()):
    return command("docker", "run", "--rm", *options, image, *words)


def works(*words):
    return shutil.which(words[0]) is not None and command(*words).returncode == 0


def bring_up(script, *words):
    """Run one of the tools' scripts; skip the test where it is missing or fails."""
    if not (TOOLS / script).is_file() or os.geteuid() != 0:
        pytest.skip(f"needs root and {script} of the shared tools, or the tool itself")
    with tempfile.TemporaryFile("w+") as said:  # not a pipe, which a daemon would hold open
        line = ["timeout", "600", "bash", TOOLS / script, *words]
        status = subprocess.run(line, stdout=said, stderr=said, stdin=subprocess.DEVNULL).returncode
        said.seek(0)
        if status:
            pytest.skip(f"{script} failed ({status}): {said.read()[-500:]}")


def stop(pid_file):
    """End a daemon that these tests started."""
    if pid_file.exists():
        command("kill", pid_file.read_text().strip())


def tiny_project(folder):
    """A clone of the smallest demo, with one method and one protocol."""

    def tiny(document):
        del document["methods"]["mae"]
        document["splits"]["protocols"] = ["strict"]

    project = small_project(folder)
    edit(project, tiny)
    return committed(project)


def whole_project(folder):
    """A clone with the demo as it is shipped."""
    return committed(copied_project(folder))


def committed(project):
    git = ["git", "-c", "user.name=miram", "-c", "user.email=miram@localhost"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "as tested"]):
        command(*git, *words, cwd=project, check=True)
    return project


def failing_project(plain, folder):
    """The finished project once more, to be fine-tuned otherwise; one network cannot be kept."""
    project = shutil.copytree(plain, folder / "failing", symlinks=True)
    weights = project / "runs/demo/strict/classifiers" / CELL / "model.safetensors"
    weights.unlink()
    (weights / "in the way").mkdir(parents=True)
    edit(project, lambda document: document["finetune"].update(drop_path=0.2))
    return project


def assert_gap_is_told(project, done):
    """The failed job was named with its log and what it says, and table and report were made with the gap."""
    log = "logs/demo/strict/classify/pathology_4class/miram-nystrom.log"
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"Failed:\n  classify: {log}\nMade without them" in said
    assert f"{CELL}/model.safetensors cannot be written" in said  # from the log
    assert f"did not finish: see {log}" in " ".join((project / "results/demo/comparison.md").read_text().split())
    assert f"See {log}" in (project / "results/demo/report.html").read_text()


def assert_same_numbers(made, expected):
    """All results, splits and predictions are the same to the last bit; times and memory may differ."""
    pd.testing.assert_frame_equal(table(made), table(expected), check_exact=True, obj="comparison.csv")
    for pattern in NUMBERS:
        files = sorted(path.relative_to(expected) for path in expected.glob(pattern))
        assert files == sorted(path.relative_to(made) for path in made.glob(pattern)) != [], pattern
        for file in files:
            read = pd.read_csv if file.suffix == ".csv" else pd.read_parquet
            pd.testing.assert_frame_equal(read(made / file), read(expected / file), check_exact=True, obj=str(file))


def records(project):
    """Every record of a finished project, by its path there."""
    paths = [*project.glob("data/demo/*.json"), *project.glob("runs/demo/**/*.json")]
    found = {str(path.relative_to(project)): json.loads(path.read_text()) for path in paths}
    return {path: content for path, content in found.items() if "stage" in content}
