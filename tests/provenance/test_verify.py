"""A results folder against what made it: each way in which the two can come apart."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from miram.errors import MiramError
from miram.layout import LOCK, WORKFLOW, is_result
from miram.provenance import record
from miram.provenance.crate import METADATA, write_crate
from miram.provenance.verify import verify

DATA, RUNS, RESULTS = (Path(kind, "demo") for kind in ("data", "runs", "results"))
STAGES = [  # record, stage, values, records that it reads, files that it writes
    (DATA / "crops.json", "crops", {"crops": {"bits": 8, "shape": "square"}}, [], [DATA / "lesions.csv"]),
    (RUNS / "a/record.json", "pretrain", {"seed": 0, "side": 48}, [DATA / "crops.json"], [RUNS / "a/encoder.bin"]),
    (RUNS / "b/record.json", "pretrain", {"seed": 0, "side": 96}, [DATA / "crops.json"], [RUNS / "b/encoder.bin"]),
    (
        *(RUNS / "table.json", "table", {}, [RUNS / "a/record.json", RUNS / "b/record.json"]),
        [RESULTS / "comparison.csv", RESULTS / "comparison.png"],
    ),
    (
        *(RUNS / "crate.json", "crate", {}, [RUNS / "table.json", DATA / LOCK, Path(WORKFLOW)]),
        [RESULTS / METADATA, RESULTS / LOCK, RESULTS / WORKFLOW],
    ),
]
FILM = hashlib.sha256(b"film").hexdigest()
INSTANCES = f"series_uid,sop_uid,bytes,sha256\n1.2,1.2.3,4,{FILM}\n1.4,1.4.1,4,of a film that was not kept\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The working folder, with every stage done."""
    monkeypatch.chdir(tmp_path)
    write(DATA / LOCK, INSTANCES)
    Path(WORKFLOW).write_text("rule all:")
    for path, stage, values, inputs, outputs in STAGES:
        begun = record.begin(path, stage=stage, values=values, inputs=inputs)
        if stage == "crate":
            write_crate(inputs[:1], inputs[1:2], RESULTS, workflow=inputs[2], preset="demo")
        else:
            for output in outputs:
                write(output, f"made by {path}")
        record.finish(path, begun, outputs=outputs, facts={})
    return tmp_path


def expected(change=lambda stage, values: values):
    return {path: (stage, change(stage, dict(values))) for path, stage, values, *_ in STAGES}


def mismatches(capsys, wanted=None, results=RESULTS, films=False):
    """What `verify` names; it must stop when it names anything."""
    try:
        verify(results, wanted or expected(), name="demo", films=films)
        stopped = False
    except MiramError:
        stopped = True
    lines = capsys.readouterr().out.splitlines()
    found = [line.removeprefix("mismatch  ") for line in lines if line.startswith("mismatch")]
    assert stopped == bool(found)
    return found


def test_what_was_made_agrees_with_its_records(project, capsys):
    write(DATA / "archive/series.json", "not looked at")
    write(RUNS / "a/other.json", '{"no": "record"}')
    assert verify(RESULTS, expected(), name="demo", films=False) == {"records": 6}
    assert mismatches(capsys) == []


def test_a_folder_that_was_left_behind_is_noted_and_no_mismatch(project, capsys):
    shutil.rmtree("data")
    verify(RESULTS, expected(), name="demo", films=False)
    assert f"note      {DATA} is not here" in capsys.readouterr().out


def test_results_of_a_run_of_another_name_are_told_which_the_parameters_make(project, capsys):
    verify(RESULTS, expected(), name="demo", films=False)
    assert "The parameters are those of" not in capsys.readouterr().out
    verify(RESULTS, expected(), name="my-images", films=False)
    assert "note      The parameters are those of results/my-images." in capsys.readouterr().out


def test_a_job_without_its_record_is_named_with_its_files_where_the_other_runs_are_here(project, capsys):
    shutil.rmtree(RUNS / "a")
    assert mismatches(capsys) == [
        f"The record {RUNS / 'a/record.json'} is missing: its job did not finish, or its outputs were deleted.",
        f"{RUNS / 'a/record.json'}, named by {RUNS / 'table.json'}, is missing.",
    ]
    shutil.rmtree(RUNS)
    assert mismatches(capsys) == []


def test_a_record_that_the_parameters_do_not_name_is_noted_and_no_mismatch(project, capsys):
    old = RUNS / "old/record.json"
    begun = record.begin(old, stage="pretrain", values={"side": 32}, inputs=[])
    write(RUNS / "old/encoder.bin", "of a method that is gone")
    record.finish(old, begun, outputs=[RUNS / "old/encoder.bin"], facts={})
    write(RUNS / "old/encoder.bin", "changed")
    verify(RESULTS, expected(), name="demo", films=False)
    assert f"note      {old} belongs to no job of the parameters" in capsys.readouterr().out


def test_a_preset_beyond_the_papers_is_checked_against_the_papers_data(project, capsys):
    for made, of in (
        ("data/demo", "data/paper"),
        ("runs/demo", "runs/paper-448"),
        ("results/demo", "results/paper-448"),
    ):
        Path(made).rename(of)
    Path("data/paper/crops.json").write_text("{")
    with pytest.raises(MiramError):
        verify(Path("results/paper-448"), {}, name="paper-448", films=False)
    assert "The record data/paper/crops.json is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "witnesses"),
    [
        (RUNS / "a/encoder.bin", [RUNS / "a/record.json"]),
        (DATA / "lesions.csv", [DATA / "crops.json"]),
        (RESULTS / "comparison.csv", [RESULTS / METADATA, RUNS / "table.json"]),
        (RESULTS / METADATA, [RUNS / "crate.json"]),
        (RESULTS / LOCK, [RESULTS / METADATA, RUNS / "crate.json"]),
        (RESULTS / WORKFLOW, [RESULTS / METADATA, RUNS / "crate.json"]),
    ],
    ids=str,
)
def test_an_edited_or_missing_file_is_named_by_all_that_know_it(project, capsys, file, witnesses):
    with open(file, "a") as stream:
        stream.write("\n")
    expected = sorted(f"{file} is not the file that {witness} names: its SHA-256 differs." for witness in witnesses)
    assert [found for found in mismatches(capsys) if "data lock" not in found] == expected
    if file.name != METADATA:
        file.unlink()
        assert mismatches(capsys) == sorted(f"{file}, named by {witness}, is missing." for witness in witnesses)


def test_a_changed_parameter_is_named_with_both_values_in_the_crate_and_in_the_records(project, capsys):
    other = expected(lambda stage, values: {**values, "seed": 1} if stage == "pretrain" else values)
    assert mismatches(capsys, other) == [
        f"pretrain.seed of {witness} was [0]; the parameters say [1]."
        for witness in (RESULTS / METADATA, RUNS / "a/record.json", RUNS / "b/record.json")
    ]


def test_a_parameter_that_is_new_is_named(project, capsys):
    other = expected(lambda stage, values: {**values, "new": 1} if stage == "crops" else values)
    assert mismatches(capsys, other) == [
        f"crops.new of {witness} was null; the parameters say [1]."
        for witness in (DATA / "crops.json", RESULTS / METADATA)
    ]


def test_values_exchanged_between_two_jobs_are_named_by_their_records(project, capsys):
    swapped = expected(lambda stage, values: {**values, "side": 144 - values["side"]} if "side" in values else values)
    assert [line.split(";")[0] for line in mismatches(capsys, swapped)] == [
        f"pretrain.side of {RUNS / 'a/record.json'} was [48]",
        f"pretrain.side of {RUNS / 'b/record.json'} was [96]",
    ]


def test_a_table_of_another_run_is_named_also_without_that_run(project, capsys):
    shutil.rmtree("data")
    shutil.rmtree("runs")
    write(RESULTS / "comparison.csv", "made by another run")
    assert mismatches(capsys) == [
        f"{RESULTS / 'comparison.csv'} is not the file that {RESULTS / METADATA} names: its SHA-256 differs."
    ]


def test_a_stage_that_was_done_again_is_named_by_those_that_used_it(project, capsys):
    made = json.loads((RUNS / "a/record.json").read_text())
    write(RUNS / "a/record.json", json.dumps({**made, "facts": {"epochs": 2}}))
    assert mismatches(capsys) == [
        f"{RUNS / 'a/record.json'} is not the file that {RUNS / 'table.json'} names: its SHA-256 differs."
    ]


def test_a_damaged_record_and_a_missing_crate_are_named(project, capsys):
    write(RUNS / "b/record.json", "{")
    (RESULTS / METADATA).unlink()
    found = mismatches(capsys)
    assert any(line.startswith(f"The record {RUNS / 'b/record.json'} is damaged") for line in found)
    assert f"There is no {RESULTS / METADATA}." in found


def test_another_folder_than_the_working_one_can_be_checked(project, capsys, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert mismatches(capsys, results=project / RESULTS) == []
    other = expected(lambda stage, values: {**values, "seed": 1} if stage == "pretrain" else values)
    assert len(mismatches(capsys, other, results=project / RESULTS)) == 3
    write(project / RUNS / "a/encoder.bin", "edited")
    assert len(mismatches(capsys, results=project / RESULTS)) == 1


def test_data_of_another_lock_and_films_that_are_not_in_it_are_named(project, capsys):
    film = DATA / "dicom/1.2/1-1.dcm"
    write(film, "film")
    assert mismatches(capsys, films=True) == []
    write(film, "other")
    assert mismatches(capsys, films=False) == []  # films are read only when they are asked for
    locks = RESULTS / LOCK
    assert mismatches(capsys, films=True) == [
        f"{DATA / 'dicom/1.2'} lacks the instance 1.2.3 of {locks}.",
        f"{film} is not in {locks}.",
    ]
    write(locks, "damaged")
    assert f"{locks} has the columns ['damaged']" in mismatches(capsys, films=True)
    write(DATA / LOCK, "another release")
    assert f"{DATA / LOCK} is not the data lock of the results, {locks}." in mismatches(capsys)


def test_the_crate_is_read_back_by_the_library_and_holds_files_parameters_and_source(project):
    crate = ROCrate(RESULTS)
    assert {file.id for file in crate.get("#run")["result"]} == {"comparison.csv", "comparison.png", LOCK}
    assert (
        crate.get("comparison.csv")["sha256"]
        == hashlib.sha256(Path("results/demo/comparison.csv").read_bytes()).hexdigest()
    )
    assert crate.get("#parameter/pretrain.side")["value"] == "[48, 96]"
    assert crate.get("https://doi.org/10.7937/k9/tcia.2016.7o02s9cy")["name"] == "CBIS-DDSM"
    assert crate.root_dataset["license"].id == "https://spdx.org/licenses/Apache-2.0"


def test_the_crate_tells_the_code_and_of_ones_own_images_no_source(project, monkeypatch):
    monkeypatch.setenv(record.IMAGE, "sha256:abc")
    monkeypatch.setattr(record, "_git", lambda: {"commit": "c0ffee", "dirty": True})
    path = RUNS / "one.json"
    begun = record.begin(path, stage="images", values={}, inputs=[])
    record.finish(path, begun, outputs=[RESULTS / "comparison.csv"], facts={})
    assert write_crate([path], [], RESULTS, workflow=Path(WORKFLOW), preset="demo on my-images") == {
        "files": 2,
        "records": 1,
    }
    assert ROCrate(RESULTS).get("#miram")["identifier"] == [
        f"code:images:{record.code_digest('images')}",
        "commit:c0ffee+changes",
        "image:sha256:abc",
        f"requirements.lock:{record.lock_digest()}",
    ]
    assert "CBIS" not in (RESULTS / METADATA).read_text()
    assert ROCrate(RESULTS).name == "MIRAM on own images, preset demo on my-images"


LEFT = ("claims.md", "audit.md", "reconstructions_mocov3.png")  # by an earlier run
FOREIGN = ("README.md", "reconstructions_My_plot.png", "notes/claims.md")


def test_a_run_removes_what_it_no_longer_makes_and_no_file_of_the_users(project):
    for name in (*LEFT, *FOREIGN):
        write(RESULTS / name, "not of this run")
    write_crate([RUNS / "table.json"], [DATA / LOCK], RESULTS, workflow=Path(WORKFLOW), preset="demo")
    assert not [name for name in LEFT if (RESULTS / name).exists()]
    kept = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*") if path.is_file()}
    assert kept == {"comparison.csv", "comparison.png", LOCK, METADATA, WORKFLOW, *FOREIGN}


def test_every_name_that_a_stage_writes_is_one_that_a_run_may_remove():
    made = {path.name for path in Path(__file__).parents[2].joinpath("results/demo").iterdir()}
    assert made == {name for name in made if is_result(name)}
    assert not any(map(is_result, FOREIGN))


def test_a_file_that_no_record_of_the_run_names_is_named_with_and_without_the_runs(project, capsys):
    for name in (*LEFT, *FOREIGN, ".DS_Store"):
        write(RESULTS / name, "not of this run")
    named = sorted(str(RESULTS / name) for name in (*LEFT, *FOREIGN))
    assert mismatches(capsys) == [f"{path} is named by no record of this run." for path in named]
    shutil.rmtree("runs")
    assert mismatches(capsys) == [f"{path} is named by nothing in {RESULTS / METADATA}." for path in named]


def test_a_file_of_a_job_that_the_parameters_no_longer_have_is_named(project, capsys):
    begun = record.begin(RUNS / "claims.json", stage="claims", values={}, inputs=[])
    write(RESULTS / "claims.md", "of another run")
    record.finish(RUNS / "claims.json", begun, outputs=[RESULTS / "claims.md"], facts={})
    assert mismatches(capsys) == [f"{RESULTS / 'claims.md'} is named by no record of this run."]


def test_a_crate_needs_the_records_behind_the_results_not_their_files(project):
    before = (RESULTS / METADATA).read_bytes()
    (DATA / "lesions.csv").unlink()
    write_crate([RUNS / "table.json"], [DATA / LOCK], RESULTS, workflow=Path(WORKFLOW), preset="demo")
    assert (RESULTS / METADATA).read_bytes() == before
    (RESULTS / "comparison.csv").unlink()
    with pytest.raises(MiramError, match="comparison"):
        write_crate([RUNS / "table.json"], [], RESULTS, workflow=Path(WORKFLOW), preset="demo")


def test_the_same_records_give_the_same_crate(project):
    before = (RESULTS / METADATA).read_bytes()
    write_crate([RUNS / "table.json"], [DATA / LOCK], RESULTS, workflow=Path(WORKFLOW), preset="demo")
    assert (RESULTS / METADATA).read_bytes() == before
