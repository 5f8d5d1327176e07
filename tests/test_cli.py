import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from miram import layout, params
from miram.cli import main
from miram.cli.stage import do_stage, given_encoders, unfinished_logs
from miram.errors import MiramError

ROOT = Path(__file__).parent.parent
CELL = ["--protocol", "strict", "--task", "pathology_4class"]
INPUTS = {"crops": (), "pack": (), "splits": ("strict",)}
PLACES = {"splits": ("strict",), "pretrain": ("strict", "mae", 0)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["splits", "--protocol", "leaky"], 2, "no protocol 'leaky'.\nAllowed: strict, published"),
        (["pretrain", "--protocol", "strict", "--method", "simclr", "--seed", "0"], 2, "Allowed: mae, mocov3"),
        (["classify", *CELL, "--method", "simclr"], 2, "Allowed: from-scratch, mae"),
        (["classify", "--protocol", "strict", "--task", "birads", "--method", "mae"], 2, "Allowed: pathology_4class"),
        (["--preset", "paper", "archive"], 2, "Allowed: --preset demo"),
        (["verify"], 1, "There is no folder results/demo"),
        (["--params", "other.yaml", "crops"], 2, "The parameter file other.yaml cannot be read: No such file"),
        (["--params", ".", "crops"], 2, "The parameter file . cannot be read: Is a directory"),
        (["catalogue"], 1, "There is no record data/demo/archive.json"),
        (["crops"], 1, "There is no record data/demo/catalogue.json"),
        (
            ["pretrain", "--protocol", "strict", "--method", "mae", "--seed", "0"],
            1,
            "There is no record data/demo/crops.json",
        ),
        (["evaluate"], 1, "no predictions"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines_with_its_remedy(folder, capsys, arguments, code, named):
    assert main(arguments) == code
    message = capsys.readouterr().err
    assert named in message
    assert len(message.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("preset", "left"), [("demo", "never received"), ("small", "not fetched, as the crop was in another")]
)
def test_series_are_counted_by_the_records_as_a_pulled_clone_has_no_ledger(folder, monkeypatch, preset, left):
    facts = {"catalogue": {"series": 482}, "crops": {"origins": {"tcia": 300, "idc": 78}}}
    places = [("catalogue",), ("crops",), ("splits", "strict"), ("splits", "published")]
    for stage, *place in places:
        path = layout.record(stage, preset, *place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"inputs": {}, "outputs": {}, "facts": facts.get(stage, {})}))
    told = {}

    def describe(*_, listed, **__):
        told.update(listed)
        raise MiramError("enough", "seen")

    monkeypatch.setattr("miram.evaluate.cohort.cohort", describe)
    assert main(["--preset", preset, "cohort"]) == 1
    assert told == {"series listed for these lesions": 482, f"of them {left}": 104}


@pytest.mark.parametrize("asked", [["bench", "--minutes"], ["fit", "--vram"]], ids=" ".join)
@pytest.mark.parametrize("number", ["0", "-3", "nan", "inf"])
def test_no_time_and_no_memory_are_refused_before_anything_is_measured(folder, capsys, asked, number):
    with pytest.raises(SystemExit, match="2"):
        main([asked[0], f"{asked[1]}={number}"])
    assert f"{number} is no number above 0" in capsys.readouterr().err and not (folder / "results").exists()


def test_a_folder_of_results_is_checked_against_the_preset_that_it_is_named_after(folder, capsys):
    for name in ("small", "demo", "theirs"):
        (folder / "results" / name).mkdir(parents=True)
        assert main(["verify", f"results/{name}"]) == 1
        said = capsys.readouterr().out
        assert ("note      By the name of the folder, the parameters are those of preset small." in said) == (
            name == "small"
        )
        assert f"note      runs/{'small' if name == 'small' else 'demo'} is not here" in said
    assert main(["--preset", "demo", "verify", "results/small"]) == 1
    assert "The parameters are those of results/demo." in capsys.readouterr().out


def with_encoder(folder):
    """A row `theirs` among the parameters, whose file does not exist."""
    file = folder / "params.yaml"
    file.write_text(file.read_text().replace("encoders: {}", "encoders: {theirs: {timm: test_vit, weights: vit.pth}}"))


def test_a_file_of_weights_that_is_not_there_is_named(folder, capsys):
    with_encoder(folder)
    for path in (layout.record(stage, "demo", *place) for stage, place in INPUTS.items()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"inputs": {}, "outputs": {}}')
    assert main(["classify", *CELL, "--method", "theirs"]) == 2
    assert "encoders.theirs.weights: there is no file vit.pth" in capsys.readouterr().err
    chosen = params.load(folder / "params.yaml")
    assert given_encoders(chosen, ["from-scratch", "mae"]) == {}  # whose trainings need not wait for that file


def test_weights_that_are_not_ours_are_not_shared_as_ours(folder, capsys):
    with_encoder(folder)
    assert main(["weights", "--method", "theirs", "--out", "shared"]) == 1
    said = capsys.readouterr().err
    assert "theirs was not pre-trained here: its weights are those of encoders.theirs" in said
    assert "name a method: mae, mocov3" in said and not (folder / "shared").exists()


def test_an_unwritable_folder_is_named(folder, capsys):
    (folder / "data").write_text("a file where a folder belongs")
    assert main(["archive"]) == 1
    assert "data/demo cannot be written" in capsys.readouterr().err


def test_what_the_machine_refuses_is_said_in_two_lines_and_another_fault_is_not_hidden(folder, capsys, monkeypatch):
    def fail(number):
        raise OSError(number, os.strerror(number), "data/demo/archive/film.dcm")

    monkeypatch.setattr("miram.phantom.archive.write_archive", lambda *_, **__: fail(errno.ENOSPC))
    assert main(["archive"]) == 1
    fault, _ = capsys.readouterr().err.strip().splitlines()
    assert fault == "miram archive: data/demo/archive/film.dcm: No space left on device"
    monkeypatch.setattr("miram.phantom.archive.write_archive", lambda *_, **__: fail(errno.EINVAL))
    with pytest.raises(OSError, match="Invalid argument"):
        main(["archive"])


def test_a_training_that_has_a_log_and_no_record_did_not_finish(folder):
    chosen = params.load(Path("params.yaml"))
    cell = layout.Cell("strict", "pathology_4class", "finetune", "mae", 0)
    several = [cell, cell._replace(seed=1), cell._replace(mode="linear")]  # of one job
    for stage, places in (("pretrain", [PLACES["pretrain"]]), ("finetune", several)):
        records = [layout.record(stage, "demo", *place) for place in places]
        (log,) = {layout.log(stage, "demo", *place) for place in places}
        for path in (*records, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        assert unfinished_logs(chosen) == dict.fromkeys(records, log)
        for path in records:
            path.touch()
        assert unfinished_logs(chosen) == {}


def test_a_further_process_of_torchrun_trains_and_leaves_lock_and_record_to_the_first(folder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    worked = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        for stage in ("pretrain", "splits"):
            work = partial(lambda name: worked.append(name) or {}, f"{stage} {rank}")
            do_stage(params.load(Path("params.yaml"), "demo"), stage, [], [], work, *PLACES[stage])
            written = layout.record(stage, "demo", *PLACES[stage])
            assert written.exists() == (rank == "0")
            shutil.rmtree(written.parent, ignore_errors=True)
    assert worked == ["pretrain 0", "splits 0", "pretrain 1"]
