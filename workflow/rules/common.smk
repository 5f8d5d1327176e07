"""What every rule needs: the parameters, the places of the records, and the triggers of a new run."""

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir).parents[1]  # the same by whichever Snakefile the workflow is entered
# The code whose digests stand below is the code that the jobs run, whichever copy of the package is installed.
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `miram` beside this Snakemake
os.environ["PYTHONUTF8"] = "1" # in jobs, for the libraries that read their files in the encoding of the locale

from miram import layout, params
from miram.planning import mounts
from miram.provenance import record
from miram.errors import MiramError
from miram.files import lock
from miram.stages import STAGES

if sum(word in ("--config", "-C") or word.startswith("--config=") for word in sys.argv) > 1:
    raise WorkflowError("--config stands twice, and Snakemake reads only the last one. Use one: --config preset=paper params=FILE.")
unknown = set(config) - {"preset", "params", "container"}
if unknown:
    raise WorkflowError(
        f"--config {sorted(unknown)}: only preset, params=FILE and container=IMAGE are read; every other value stands in params.yaml."
    )


@cache
def OWN_IMAGES():
    """The images that one's own table names, looked for once a process."""
    if P.source != params.IMAGES:
        return []
    from miram.data.own_images.table import image_paths

    return image_paths(Path(P.sources.images.table_csv), Path(P.sources.images.folder))


@cache
def EXTRA_IMAGES():
    """One's own images for pre-training alone."""
    return layout.extra_files(P.pretrain.extra_images)


try:
    PARAMS = Path(config.get("params", layout.default_params()))
    P = params.load(PARAMS, config.get("preset"))
    mounts.check_mounted(params.given_paths(P))
    if workflow.is_main_process:  # of a cluster's jobs those alone look for them whose inputs they are
        OWN_IMAGES(), EXTRA_IMAGES()
except MiramError as error:
    raise WorkflowError(str(error))

# The image that every job runs in under --use-singularity: `make sif` writes it; or --config container=docker://NAME@DIGEST.
IMAGE = str(config.get("container", layout.project_file("miram.sif")))
if workflow.deployment_settings.deployment_method and "://" not in IMAGE and not Path(IMAGE).is_file():
    raise WorkflowError(
        f"There is no container image {IMAGE}. Build it: make image sif. Or name another: --config container=docker://NAME@DIGEST."
    )


container: IMAGE


# Apptainer mounts the working folder alone. Jobs on a cluster are given what stands here.
if workflow.deployment_settings.deployment_method and workflow.is_main_process:
    given = [*params.given_paths(P).values(), PARAMS, ROOT]
    made = [layout.data(P.name), layout.runs(P.name), layout.results(P.name), layout.logs(P.name)]
    try:
        binds = mounts.bind_options(mounts.folders_outside(given, [*OWN_IMAGES(), *EXTRA_IMAGES()], made))
    except MiramError as error:
        raise WorkflowError(str(error))
    own_args = workflow.deployment_settings.apptainer_args
    workflow.deployment_settings.apptainer_args = " ".join([own_args, *(bind for bind in binds if bind not in own_args)])


# Snakemake's own lock survives a kill and then blocks the next run; this one goes with its process. A run whose parent was
# killed (`dvc repro`, a terminal) works on: the next one waits for it, and then does what is left.
if workflow.is_main_process:
    Path(".snakemake").mkdir(exist_ok=True)
    run_lock = open(".snakemake/miram.lock", "wb")
    lock(run_lock, Path.cwd(), lambda: "Another run of this workflow is at work in this folder: waiting for its end.")

MIRAM = f"miram --params {shlex.quote(str(PARAMS))} --preset {P.preset}"
RESULTS = layout.results(P.name)
RESERVED = yaml.safe_load(layout.resource("needs.yaml").read_text(encoding="utf-8"))[P.preset]
PROTOCOLS = P.splits.protocols
PRETRAINED = params.pretrainings(P)
FIRST = [place for place in PRETRAINED if (place[0], place[2]) == (PROTOCOLS[0], P.pretrain.seeds[0])] # that are shown
CLASSIFIED, TRIVIAL = ([place for stage, place in params.jobs(P) if stage.name == name] for name in ("classify", "trivial"))
EXPLAINED = params.explained(P)


wildcard_constraints:
    protocol="[a-z]+",
    task="[a-z0-9_]+",
    method="[a-z0-9-]+",
    seed=r"\d+",


def RECORD(stage, *place):
    """Path of a stage's record; where no place is given, with wildcards."""
    return str(layout.record(stage, P.name, *(place or [f"{{{name}}}" for name in STAGES[stage].place])))


def MADE(stage):
    """Paths of what a stage writes into the results folder."""
    return layout.result_files(stage, P.name)


def LOG(stage):
    """Path of what a stage's jobs say, with wildcards."""
    return str(layout.log(stage, P.name, *(f"{{{name}}}" for name in STAGES[stage].place)))


def DOES(stage):
    """What a job of a stage does, in words."""
    place = ", ".join(f"{name} {{wildcards.{name}}}" for name in STAGES[stage].place)
    return f"{stage}{place and f' ({place})'}: {STAGES[stage].does}"


def TRIGGERS(stage):
    """Snakemake runs a job again when its values change, the code (but for comments) or, of training, the lock.

    A job of several classifiers runs when one of them would, and then makes that one alone.
    """

    def values(wildcards):
        place = [wildcards.get(name) for name in STAGES[stage].place]
        parts = params.parts(P, stage, *place)
        of_parts = {str(cell): params.stage_values(P, row.name, *cell) | record.made_by(row.name) for row, cell in parts}
        return json.dumps(params.stage_values(P, stage, *place) | of_parts, sort_keys=True)

    return {"values": values, **record.made_by(stage)}


def COMMAND(stage):
    """The command of a stage's jobs, which tells it its place."""
    options = [f"--{name} {{wildcards.{name}}}" for name in STAGES[stage].place]
    return " ".join(["{MIRAM}", stage, *options, "> {log} 2>&1"])


def needs(rule, gpus=0):
    """What a job of a rule reserves: of a cluster gpu, mem_mb and runtime (minutes), of one machine gpu_job."""
    gpus = 0 if P.compute.accelerator == "cpu" else gpus
    # tasks: Slurm starts one process for all GPUs, not one for each. gpu_job: the jobs of one machine are not told which GPU
    # is theirs, so the default profile lets one train at a time
    return {"gpu": gpus, "tasks": 0, "gpu_job": min(gpus, 1), **RESERVED.get(rule, {})}


resource_scopes:
    gpu_job="local", # not counted over the nodes of a cluster
