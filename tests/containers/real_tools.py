"""What the tests of the containers and of the cluster share: commands, the tools' scripts, the project that is run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_pipeline import edit, small_project

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT.parent / "shared" / "tools"
SNAKEMAKE = [sys.executable, "-m", "snakemake"]


def command(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)


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
    git = ["git", "-c", "user.name=miram", "-c", "user.email=miram@localhost"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "as tested"]):
        command(*git, *words, cwd=project, check=True)
    return project


def records(project):
    """Every record of a finished project, by its path there."""
    paths = [*project.glob("data/demo/*.json"), *project.glob("runs/demo/**/*.json")]
    found = {str(path.relative_to(project)): json.loads(path.read_text()) for path in paths}
    return {path: content for path, content in found.items() if "stage" in content}
