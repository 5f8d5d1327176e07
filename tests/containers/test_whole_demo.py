"""The demo as it is shipped, through every way in: each makes the numbers of plain Snakemake. An hour on two cores.

usage: python -m pytest -m slow --durations=0 tests/containers/test_whole_demo.py
"""

import pytest
from real_tools import CONFINED, SNAKEMAKE, THROUGH_SLURM, assert_same_numbers, docker_run, whole_project
from test_pipeline import BIN, finished

pytestmark = [pytest.mark.slow, pytest.mark.container, pytest.mark.cluster]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    project = whole_project(tmp_path_factory.mktemp("plain") / "project")
    finished(project)
    return project


@pytest.fixture
def project(tmp_path):
    return whole_project(tmp_path / "project")


def test_docker(image, plain, out):
    done = docker_run(image, options=[*CONFINED, "--volume", f"{out}:/data"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_numbers(out, plain)


def test_apptainer(project, plain, sif, apptainer, monkeypatch):
    (project / "miram.sif").symlink_to(sif)
    monkeypatch.setenv("PATH", apptainer)
    finished(project, [*SNAKEMAKE, "--cores", "2", "--use-singularity"])
    assert_same_numbers(project, plain)


def test_slurm(project, plain, slurm):
    finished(project, THROUGH_SLURM)
    assert_same_numbers(project, plain)


def test_dvc(project, plain):
    finished(project, [BIN / "dvc", "repro"])
    assert_same_numbers(project, plain)
