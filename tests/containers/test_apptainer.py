"""The workflow inside the Apptainer image that is made of the Docker image."""

import os

import pytest
from real_tools import SNAKEMAKE, assert_gap_is_told, assert_same_numbers, command, failing_project, records
from test_pipeline import jobs

pytestmark = pytest.mark.container


def test_every_job_runs_in_the_image_and_its_numbers_are_plain_snakemakes(project, plain, sif, apptainer, digest):
    (project / "miram.sif").symlink_to(sif)
    env = {**os.environ, "PATH": apptainer, "OMP_NUM_THREADS": "1"}
    run = [*SNAKEMAKE, "--cores", "1", "--use-singularity"]
    done = command(*run, cwd=project, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    made, expected = records(project), records(plain)
    assert {path: content["code"] for path, content in made.items()} == {p: c["code"] for p, c in expected.items()}
    assert {content["image"] for content in made.values()} == {digest}
    assert {content["image"] for content in expected.values()} == {None}
    commit = command("git", "rev-parse", "HEAD", cwd=project).stdout.strip()
    assert {content["git"]["commit"] for content in made.values()} == {commit}
    assert_same_numbers(project, plain)
    again = command(*run, "--dry-run", cwd=project, env=env)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert jobs(project) == set()  # outside the image, too


@pytest.mark.slow
def test_a_failing_job_is_reported_with_its_log_and_is_a_gap_of_the_results(plain, sif, apptainer, tmp_path):
    project = failing_project(plain, tmp_path)
    (project / "miram.sif").symlink_to(sif)
    env = {**os.environ, "PATH": apptainer, "OMP_NUM_THREADS": "1"}
    assert_gap_is_told(project, command(*SNAKEMAKE, "--cores", "1", "--use-singularity", cwd=project, env=env))
