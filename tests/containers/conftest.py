"""The real tools, brought up where that is possible. A test whose tool cannot be had is skipped, with the reason."""

import json
import os
import shutil
from pathlib import Path

import pytest
from real_tools import ROOT, STRANGER, TOOLS, bring_up, command, stop, tiny_project, works
from test_pipeline import finished

WORK = Path("/var/tmp/miram-tools")  # what the tools are made of; kept for the next time
BASE = "python:3.11-slim-bookworm"
STAND_IN = "miram-base"
IMAGE = "miram-repro"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture(scope="session")
def base_image(tmp_path_factory):
    """Name of the Python image to build on, in an engine that runs and reaches the packages' registry."""
    running = works("docker", "info")
    if running and not TOOLS.is_dir():
        yield BASE
        return
    bring_up("docker-up.sh", WORK / "docker")
    folder = tmp_path_factory.mktemp("base")  # the stand-in's own packages replaced the machine's certificates
    shutil.copy(CERTIFICATES, folder)
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY {CERTIFICATES.name} {CERTIFICATES}\n")
    command("docker", "build", "--tag", STAND_IN, folder, check=True)
    download = "pip download --quiet --no-deps --dest /tmp tabulate"
    reached = command("docker", "run", "--rm", STAND_IN, "sh", "-c", download)
    if reached.returncode:
        pytest.skip(f"a container reaches no registry of packages: {reached.stderr[-300:]}")
    yield STAND_IN
    if not running:
        stop(WORK / "docker" / "dockerd.pid")


@pytest.fixture(scope="session")
def image(base_image):
    """Name of the project's own image, built by `make image` without CUDA."""
    built = command("make", "image", "CPU=yes", f"BASE={base_image}", cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    return IMAGE


@pytest.fixture
def out(tmp_path):
    """A folder of the stranger's, to be mounted."""
    folder = tmp_path / "out"
    folder.mkdir()
    os.chown(folder, *map(int, STRANGER.split(":")))
    return folder


@pytest.fixture(scope="session")
def digest(image):
    """What the records must name: the digest that the image was given."""
    variables = json.loads(command("docker", "image", "inspect", "--format", "{{json .Config.Env}}", image).stdout)
    return dict(variable.split("=", 1) for variable in variables)["MIRAM_IMAGE"]


@pytest.fixture(scope="session")
def apptainer():
    """The PATH with Apptainer on it."""
    if works("apptainer", "--version"):
        return os.environ["PATH"]
    if not works(str(WORK / "apptainer" / "bin" / "apptainer"), "--version"):
        bring_up("get-apptainer.sh", WORK / "apptainer")
    return f"{WORK / 'apptainer' / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def sif(image, apptainer, tmp_path_factory):
    """The Apptainer image that `make sif` makes of the Docker image, here with a quicker compression."""
    path = tmp_path_factory.mktemp("sif") / "miram.sif"
    env = {**os.environ, "PATH": apptainer}
    built = command("make", "sif", f"SIF={path}", 'SIF_ARGS=--mksquashfs-args "-comp lz4"', cwd=ROOT, env=env)
    assert built.returncode == 0, built.stdout + built.stderr
    yield path
    path.unlink()


@pytest.fixture(autouse=True, scope="module")
def _cluster():
    """The machine's own cluster, or that which `slurm` brings up."""


@pytest.fixture(scope="session")
def slurm():
    """A Slurm that takes jobs, and its executor in this environment."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs the packages of the extra `slurm`")
    if works("sinfo"):
        yield
        return
    bring_up("slurm-up.sh", WORK / "slurm")
    yield
    for name in ("slurmctld", "slurmd"):
        stop(WORK / "slurm" / f"{name}.pid")
    stop(Path("/run/munge/munged.pid"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The tiny project, finished by plain Snakemake: what all others must equal."""
    project = tiny_project(tmp_path_factory.mktemp("plain") / "project")
    finished(project)
    return project


@pytest.fixture
def project(tmp_path):
    """The tiny project, in which nothing was run yet."""
    return tiny_project(tmp_path / "project")
