"""The preflight of the workflow: what it stops, and that it neither hides work nor has any done again."""

import os
import re
import shutil
import sys

import pytest
from test_pipeline import RESULTS, edit, finished, jobs, own_images, run, small_project, with_own_images

TRAINED = {"classify", *RESULTS}
PRETRAINED = {"pretrain", "explain", *TRAINED}
CHANGES = {  # of what the preflight reads -> what is to be done then
    "seeds": (lambda values: values["finetune"].update(seeds=[0, 1]), {"explain", *TRAINED}),
    "accumulate": (lambda values: values["pretrain"].update(accumulate=2), PRETRAINED),
    "checkpoints": (lambda values: values["pretrain"].update(checkpoint_every_epochs=2), PRETRAINED),
}
# several runs from one start of Python: for each argument, which holds the options, a process of its own
RUNS = """
import os, sys
from miram.provenance import record
from miram.stages import STAGES
from snakemake.cli import main
os.dup2(1, 2)
[record.code_digest(stage) for stage in STAGES]  # known to all of them then
for options in sys.argv[1:]:
    print("run:", options, flush=True)
    child = os.fork()
    if child == 0:
        main(["--cores", "2", *options.split()])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo apptainer version 1.3.0; exit; fi
while [ "$1" != bash ]; do shift; done
echo "$3" >> in-image
exec "$@"
"""


def with_local(document):
    """Preset paper, as small as the demo, with one method and a folder in place of the archive."""
    with_own_images(document)
    document["source"] = "local"
    document["sources"]["local"] = {"folder": "../archive", "csv_url": "../archive/csv"}
    document["finetune"]["modes"] = ["finetune"]
    demo, paper = (document["presets"][name] for name in ("demo", "paper"))
    paper |= {name: demo[name] for name in ("encoder", "decoder", "moco", "pretrain", "compute")}
    for preset in (demo, paper):
        preset["finetune"] = demo["finetune"] | {"tasks": ["pathology_4class"], "epochs": 2}
    document["preset"] = "paper"


SOURCES = {"images": ("demo", "my-images", with_own_images), "local": ("paper", "paper", with_local)}


def project_of(source, folder):
    """A small project, its preset, and the name of its folders. Of the sources own images are there, local ones not."""
    project = small_project(folder / "project")
    own_images(folder / "images")
    shutil.copy(project / "params.yaml", project / "demo.yaml")
    preset, name, change = SOURCES[source]
    edit(project, change)
    return project, preset, name


def change(project, preset, *names):
    edit(project, lambda document: [CHANGES[name][0](document["presets"][preset]) for name in names])


def planned(said):
    """The rules of a plan that was printed."""
    return set(re.findall(r"^(\w+) +\d+$", said, re.MULTILINE)) - {"total", "all"}


def stand_in(project):
    """The PATH with an Apptainer that has no image: what would run there runs here, and is written down."""
    (project / "miram.sif").touch()
    (project / "bin").mkdir()
    (project / "bin" / "apptainer").write_text(APPTAINER)
    (project / "bin" / "apptainer").chmod(0o755)
    return f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(("source", "contained"), [("images", False), ("local", True)])
def test_one_call_plans_all_that_a_change_asks_for_and_no_image_is_read_again(source, contained, tmp_path):
    project, preset, _ = project_of(source, tmp_path)
    for rules in project.glob("workflow/rules/*.smk"):  # the jobs, and the preflight, make empty files
        made = re.sub(r"(shell: )COMMAND\(.*\)", r'\1"touch {output}"', rules.read_text())
        rules.write_text(re.sub(r'f"\{MIRAM\} doctor.*?"', '"touch examined"', made))
    through = "--use-singularity" if contained else "--quiet host"
    options = [through]
    for name in CHANGES:
        shutil.copy(project / "params.yaml", project / "kept.yaml")
        change(project, preset, name)
        (project / "params.yaml").rename(project / f"{name}.yaml")
        (project / "kept.yaml").rename(project / "params.yaml")
        options.append(f"{through} --dry-run --config params={name}.yaml")
    said = finished(project, ["env", f"PATH={stand_in(project)}", sys.executable, "-c", RUNS, *options]).stdout
    first, *plans = said.split("run:")[1:]
    own = {"claims"} if source == "images" else set()
    for plan, (_, expected) in zip(plans, CHANGES.values(), strict=True):
        assert planned(plan) == expected - own, plan
    assert "This machine is examined" in first and (project / "examined").exists()
    assert "This machine is examined" not in "".join(plans)
    in_image = (project / "in-image").read_text().splitlines() if contained else []
    assert len(in_image) == (18 if contained else 0)
    assert [place for place, line in enumerate(in_image) if "touch examined" in line] == [0][: len(in_image)]


def test_what_the_preflight_stops_has_not_begun_and_its_own_words_are_shown(tmp_path):
    project, _, made = project_of("local", tmp_path)  # whose folder is not there
    stopped = run(project)
    assert stopped.returncode == 1
    said = (project / "logs" / made / "doctor.log").read_text()
    assert "stop    ../archive is not a folder (sources.local.folder)." in said and said in stopped.stderr
    assert "Failed:" not in stopped.stderr
    assert not [*project.glob("data/**/*.json"), *project.glob("runs/**/*")]
    assert [path.name for path in project.glob("logs/**/*.log")] == ["doctor.log"]


def read(project, pattern):
    """When each file was written."""
    found = {path: path.stat().st_mtime_ns for path in project.glob(pattern)}
    assert found, pattern
    return found


def cells(project, made):
    return {path.parent.name for path in project.glob(f"runs/{made}/strict/classifiers/*/finetune/mae/*/record.json")}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_one_call_makes_all_that_changes_ask_for_and_opens_no_image(source, tmp_path):
    project, preset, made = project_of(source, tmp_path)
    if source == "local":
        finished(project, [sys.executable, "-m", "miram.cli", "--preset", "demo", "--params", "demo.yaml", "archive"])
        (project / "data/demo/archive").rename(tmp_path / "archive")
    finished(project)
    assert cells(project, made) == {"seed-0"}
    data = read(project, f"data/{made}/**/*")
    sources = [*tmp_path.glob("images/*.png"), *tmp_path.glob("archive/**/*.dcm")]
    for path in sources:  # the same size and time: whoever opens one sees that it is no image
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, ns=times)
    trained = f"runs/{made}/**/mae/**/record.json"
    before = read(project, trained)
    change(project, preset, *CHANGES)
    finished(project)
    assert cells(project, made) == {"seed-0", "seed-1"}
    after = read(project, trained)
    assert not [path for path, written in before.items() if after[path] == written]
    assert read(project, f"data/{made}/**/*") == data
    assert jobs(project) == set()
