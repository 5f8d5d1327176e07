"""The crate as a Workflow Run RO-Crate: the workflow, its stages, and when they did what."""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest
import rocrate
from rocrate.rocrate import ROCrate

from miram.layout import WORKFLOW
from miram.provenance import record
from miram.provenance.crate import METADATA, read_crate, write_crate

RUNS, RESULTS = Path("runs/demo"), Path("results/demo")
PROFILES = "https://w3id.org/ro/wfrun/"
VALIDATOR = "roc-validator==0.13.0"
DRIVER = Path(__file__).with_name("validate_crate.py")
TIMES = {  # stage -> start and end of each of its jobs
    "splits": [("2026-03-01T10:00:00+00:00", "2026-03-01T10:00:05+00:00")],
    "pretrain": [
        ("2026-03-01T10:10:00+00:00", "2026-03-01T12:00:00+00:00"),
        ("2026-03-01T10:05:00+00:00", "2026-03-01T11:00:00+00:00"),
    ],
    "table": [("2026-03-01T12:00:01+00:00", "2026-03-01T12:00:02+00:00")],
}


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """A function that does a small run and gives its crate; it takes the times of the stages' jobs."""
    monkeypatch.chdir(tmp_path)
    Path(WORKFLOW).write_text("rule all:\n")
    RESULTS.mkdir(parents=True)

    def run(times):
        inputs = []
        for stage, jobs in times.items():
            inputs = [_job(stage, number, inputs, *moments) for number, moments in enumerate(jobs)]
        write_crate(inputs, [], RESULTS, workflow=Path(WORKFLOW), preset="demo")
        return ROCrate(RESULTS)

    def _job(stage, number, inputs, *moments):
        clock = iter(moments)
        monkeypatch.setattr(record, "_now", lambda: next(clock))
        path, folder = RUNS / f"{stage}-{number}.json", RESULTS if stage == "table" else RUNS
        folder.mkdir(parents=True, exist_ok=True)
        begun = record.begin(path, stage=stage, values={"seed": number}, inputs=inputs)
        output = folder / f"{stage}-{number}.csv"
        output.write_text(stage)
        record.finish(path, begun, outputs=[output], facts={})
        return path

    return run


def test_the_workflow_is_the_main_entity_and_a_file_of_the_crate(write_run):
    workflow = write_run(TIMES).mainEntity
    assert workflow.id == WORKFLOW
    assert (RESULTS / WORKFLOW).read_text() == "rule all:\n"
    assert set(workflow["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"}
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    assert [tool["name"] for tool in workflow["hasPart"]] == ["miram splits", "miram pretrain", "miram table"]
    assert [step["workExample"] for step in workflow["step"]] == workflow["hasPart"]


def test_the_crate_says_to_which_profiles_it_conforms(write_run):
    root = write_run(TIMES).root_dataset
    named = {profile.id for profile in root["conformsTo"]}
    assert {f"{PROFILES}{kind}/0.5" for kind in ("process", "workflow", "provenance")} < named
    assert all(profile["version"] for profile in root["conformsTo"])


def test_a_classifier_is_told_as_made_by_the_command_of_its_job(write_run):
    workflow = write_run({"finetune": TIMES["pretrain"], "table": TIMES["table"]}).mainEntity
    assert [tool["name"] for tool in workflow["hasPart"]] == ["miram classify", "miram table"]
    assert [step["name"] for step in workflow["step"]] == ["finetune", "table"]


def test_a_stage_is_an_action_from_its_first_start_to_its_last_end(write_run):
    crate = write_run(TIMES)
    found = {name: (crate.get(name)["startTime"], crate.get(name)["endTime"]) for name in ("#run", "#run/pretrain")}
    assert found["#run"] == ("2026-03-01T10:00:00+00:00", "2026-03-01T12:00:02+00:00")
    assert found["#run/pretrain"] == ("2026-03-01T10:05:00+00:00", "2026-03-01T12:00:00+00:00")


def test_an_action_names_who_ran_what_on_what_and_what_came_out(write_run):
    crate = write_run(TIMES)
    run, table = crate.get("#run"), crate.get("#run/table")
    assert run["agent"] == table["agent"] == crate.get("#operator")
    assert (run["instrument"].id, table["instrument"].id) == (WORKFLOW, "#tool/table")
    assert [given.id for given in table["object"]] == ["#parameter/table.seed", "#files/pretrain"]
    assert table["result"].id == "table-0.csv"
    assert {action.id for action in crate.root_dataset["mentions"]} >= {"#run", "#run/splits", "#control/splits"}


def test_records_of_an_earlier_miram_give_a_crate_without_times(write_run):
    write_run(TIMES)
    for path in RUNS.glob("*.json"):
        old = json.loads(path.read_text())
        path.write_text(json.dumps({name: old[name] for name in old if name not in ("started", "ended")}))
    final = RUNS / "table-0.json"
    made = json.loads(final.read_text())
    final.write_text(json.dumps({**made, "inputs": {}}))  # whose digests are those of the records with times
    write_crate([final], [], RESULTS, workflow=Path(WORKFLOW), preset="demo")
    assert "endTime" not in (RESULTS / METADATA).read_text()


def test_a_crate_of_an_earlier_miram_is_read(write_run):
    write_run(TIMES)
    files, values = read_crate(RESULTS)
    content = json.loads((RESULTS / METADATA).read_text())
    new = ("#tool", "#step", "#control", "#files", "#run/", "#operator", WORKFLOW)
    graph = [entity for entity in content["@graph"] if not entity["@id"].startswith(new)]
    for entity in graph:
        if entity["@id"] == "./":
            del entity["mainEntity"]
        elif entity["@id"] == "#run":
            entity |= {"instrument": [{"@id": "#miram"}, {"@id": "#machine"}], "result": [entity["result"]]}
    (RESULTS / METADATA).write_text(json.dumps({**content, "@graph": graph}))
    assert read_crate(RESULTS) == ({name: files[name] for name in files if name != WORKFLOW}, values)


def test_no_person_is_named(write_run):
    people = [entity for entity in write_run(TIMES).get_entities() if entity.type == "Person"]
    assert [person["name"] for person in people] == ["Whoever ran the workflow (not recorded)"]


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    """The Python of an environment of its own that has the RO-Crate validator."""
    folder = tmp_path_factory.mktemp("validator")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--retries", "1", VALIDATOR]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{VALIDATOR} could not be installed within 600 s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{VALIDATOR} could not be installed: {error.stderr.strip().splitlines()[-1]}")
    return python


def findings(python, severity="REQUIRED"):
    """What the validator finds wrong with the crate, without a network."""
    context = json.loads(Path(rocrate.__file__).with_name("data").joinpath("ro-crate.jsonld").read_text())
    context["@context"]["ComputationalWorkflow"] = "https://bioschemas.org/ComputationalWorkflow"  # as in RO-Crate 1.1
    Path("context.json").write_text(json.dumps(context))
    done = subprocess.run(
        [python, DRIVER, RESULTS, severity, "context.json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_validator_finds_nothing_that_the_profile_requires_missing(write_run, validator):
    write_run(TIMES)
    assert findings(validator) == []


@pytest.mark.slow
def test_the_validator_names_what_is_missing(write_run, validator):
    write_run(TIMES)
    content = json.loads((RESULTS / METADATA).read_text())
    for entity in content["@graph"]:
        if entity["@id"] == "#run/table":
            del entity["instrument"]
    (RESULTS / METADATA).write_text(json.dumps(content))
    assert any("The Action MUST have an instrument" in line for line in findings(validator))
