"""The Docker image: what it runs, as whom, where it may write, and how it stops."""

import json
import time

import pytest
from real_tools import CONFINED, ROOT, STRANGER, assert_same_numbers, command, docker_run, records

pytestmark = pytest.mark.container


def parameters(project):
    return ["--volume", f"{project}/params.yaml:/opt/miram/params.yaml:ro"]


def test_confined_to_its_mounts_it_makes_plain_snakemakes_numbers_and_prints_the_table(image, digest, plain, out):
    done = docker_run(image, options=[*CONFINED, "--volume", f"{out}:/data", *parameters(plain)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith((out / "results/demo/comparison.md").read_text())
    assert_same_numbers(out, plain)
    made = records(out)
    assert {content["image"] for content in made.values()} == {digest}
    assert all(content["git"]["commit"] for content in made.values())
    assert {path.stat().st_uid for path in out.rglob("*")} == {int(STRANGER.split(":")[0])}


@pytest.mark.slow
def test_without_any_mount_its_own_folders_serve(image, plain):
    done = docker_run(image, options=["--network", "none", "--read-only", *parameters(plain)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# Comparison of methods, preset demo" in done.stdout


def test_sigterm_stops_it_within_ten_seconds_and_the_next_run_ends_well(image, plain, out):
    options = [*CONFINED, "--volume", f"{out}:/data", *parameters(plain)]
    name = command("docker", "run", "--detach", *options, image).stdout.strip()
    deadline = time.monotonic() + 300
    while not list(out.glob("logs/demo/**/pretrain*")):
        assert time.monotonic() < deadline, command("docker", "logs", name).stderr
        time.sleep(0.1)
    time.sleep(3)
    started = time.monotonic()
    command("docker", "kill", "--signal", "TERM", name, check=True)
    status = command("docker", "wait", name).stdout.strip()
    seconds = time.monotonic() - started
    command("docker", "rm", name)
    assert seconds < 10
    assert status != "0"
    assert not (out / "results/demo/comparison.md").exists()
    done = docker_run(image, options=options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_numbers(out, plain)


def test_a_folder_that_it_may_not_write_is_named_with_the_remedy(image, tmp_path):
    refused = docker_run(image, options=["--volume", f"{tmp_path}:/data"])
    assert refused.returncode == 1
    assert "/data/data cannot be written by user 1000" in refused.stderr
    assert "--user" in refused.stderr


def test_any_other_word_is_a_stage(image):
    refused = docker_run(image, "crops", options=CONFINED)
    assert refused.returncode == 1
    assert "There is no record data/demo/" in refused.stderr


def test_it_has_an_ordinary_user_labels_no_setuid_programs_and_nothing_unlisted(image):
    config = json.loads(command("docker", "image", "inspect", "--format", "{{json .Config}}", image).stdout)
    assert config["User"] == "miram"
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == command("docker", "run", "--rm", image, "--version").stdout.strip()
    assert labels["revision"] == command("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip()
    look = "find / -xdev -type f -perm /6000; ls -A /opt/miram; cat /data/* /tmp/*"
    found = command("docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", look).stdout.split()
    made = {"bench", "commit.json", "profiles", "data", "runs", "logs", "results", ".snakemake"}
    listed = {line[1:].split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert set(found) == listed | made
