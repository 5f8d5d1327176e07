"""The workflow through Slurm, with its profile, on a cluster of one node."""

import os
import re
import sys
from pathlib import Path

import pytest
from real_tools import THROUGH_SLURM, assert_gap_is_told, assert_same_numbers, command, failing_project
from test_pipeline import edit

pytestmark = pytest.mark.cluster


def through_slurm(project, tmp_path):
    """What Snakemake said and returned, and the options of each submission by its rule."""
    real, log = command("which", "sbatch").stdout.strip(), tmp_path / "submitted"
    spy = tmp_path / "bin" / "sbatch"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    path = f"{spy.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = command(*THROUGH_SLURM, cwd=project, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    submitted = [(re.search(r"--comment rule_([a-z]+)", line)[1], line) for line in log.read_text().splitlines()]
    return done, submitted


def test_its_numbers_are_plain_snakemakes_and_only_training_asks_for_a_gpu(project, plain, slurm, tmp_path):
    edit(project, lambda document: document["presets"]["demo"]["compute"].update(accelerator="auto"))
    done, submitted = through_slurm(project, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_numbers(project, plain)
    assert {rule for rule, options in submitted if "--gpus" in options} == {"pretrain", "classify", "explain"}
    assert {rule for rule, options in submitted if "--gpus" not in options} >= {"archive", "crops", "evaluate", "table"}
    assert all(re.search(r"--mem \d+", options) and re.search(r"-t \d+", options) for _, options in submitted)


@pytest.mark.slow
def test_a_failing_job_is_reported_with_its_log_and_is_a_gap_of_the_results(plain, slurm, tmp_path):
    project = failing_project(plain, tmp_path)
    done, submitted = through_slurm(project, tmp_path)
    assert_gap_is_told(project, done)
    assert {rule for rule, _ in submitted} == {"classify"}
