"""A job that makes all classifiers of a method: which it makes again, and what one that fails leaves."""

import json
import shutil
import weakref
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from miram import layout, params
from miram.cli import main
from miram.cli.stage import classifiers, do_stage, drop_outdated, first_pretrainings, outdated
from miram.errors import MiramError
from miram.provenance import record

ROOT = Path(__file__).parent.parent
PLACE = ("strict", "pathology_4class", "mae")
COMMAND = ["classify", "--protocol", "strict", "--task", "pathology_4class", "--method", "mae"]
ALL = ["finetune/seed-0", "finetune/seed-1", "linear/seed-0"]


class Job:
    """The job, with trainings that only write files; its inputs are records of stages that did nothing."""

    def __init__(self):
        self.made, self.rates, self.fault = [], [], None

    def run(self):
        """The classifiers that are made now, in their order."""
        self.made, self.rates = [], []
        assert main(COMMAND) == (1 if self.fault else 0)
        return self.made

    def train(self, out, lesions, encoder_file, asked, **_):
        name = f"{out.parts[-3]}/{out.name}"
        if name == self.fault:
            raise MiramError("It broke.", "Mend it.")
        self.made.append(name)
        self.rates.append(getattr(asked, "lr", None))
        for file in ("predictions.parquet", "log.csv", "model.safetensors"):
            (out / file).write_text(file)
        return {"lr": 1e-3}

    @property
    def chosen(self):
        return params.load(Path("params.yaml"))

    def before(self):
        """Do what comes before."""
        for stage, place in (("crops", ()), ("pack", ()), ("splits", PLACE[:1]), ("pretrain", ("strict", "mae", 0))):
            do_stage(self.chosen, stage, [], [], dict, *place)

    def records(self):
        """Those of the classifiers that have one."""
        paths = {f"{path.parts[-4]}/{path.parts[-2]}": path for path in Path("runs").glob("**/seed-*/record.json")}
        return {name: path for name, path in sorted(paths.items()) if "pretrain" not in path.parts}


@pytest.fixture
def job(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    job = Job()
    for name in ("finetune.finetune", "probe.probe"):
        monkeypatch.setattr(f"miram.train.{name}", job.train)
    monkeypatch.setattr("miram.train.classifiers.Lesions", lambda *_: None)
    monkeypatch.setattr(record, "_git", lambda: None)
    job.before()
    return job


def edit(change):
    document = yaml.safe_load(Path("params.yaml").read_text())
    change(document)
    Path("params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def test_every_classifier_has_its_record_and_the_job_one_that_names_them(job):
    assert job.run() == ALL
    records = job.records()
    assert list(records) == ALL
    made = record.read(layout.record("classify", "demo", *PLACE))
    assert made["stage"] == "classify" and made["outputs"].keys() == {str(path) for path in records.values()}
    assert str(layout.record("pretrain", "demo", "strict", "mae", 0)) in made["inputs"]
    kept = [name for name, path in records.items() if any("model" in file for file in record.read(path)["outputs"])]
    assert kept == ["finetune/seed-0"]


def test_what_is_current_stays_as_it_is_and_the_log_says_so(job, capsys):
    job.run()
    before = {path: path.read_bytes() for path in job.records().values()}
    assert job.run() == []
    assert before == {path: path.read_bytes() for path in job.records().values()}
    assert "strict/pathology_4class/linear/mae/seed-0 is current: it stays as it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "again"),
    [
        (lambda: edit(lambda d: d["finetune"].update(drop_path=0.3)), ALL[:2]),
        (lambda: edit(lambda d: d["finetune"].update(linear_c=[0.5])), ALL[2:]),
        (lambda: edit(lambda d: d["finetune"].update(modes=["finetune", "knn"])), ["knn/seed-0"]),
        (lambda: layout.classifier("demo", cell(1)).joinpath("predictions.parquet").write_text("edited"), ALL[1:2]),
        (lambda: layout.classifier("demo", cell(0)).joinpath("model.safetensors").unlink(), ALL[:1]),
        (lambda: layout.record("finetune", "demo", *cell(1)).write_text("damaged"), ALL[1:2]),
        (lambda: Job().before(), ALL),  # other records of what they are made from
    ],
    ids=["values", "values of a mode", "mode", "edited", "lost", "damaged", "inputs"],
)
def test_what_is_outdated_is_made_again_alone(job, spoil, again):
    job.run()
    for path in Path("runs").glob("**/pretrain/**/record.json"):  # begun at another second than its successor
        path.write_text(path.read_text().replace('"started": "2', '"started": "1'))
    job.run()
    spoil()
    assert job.run() == again


def cell(seed):
    return layout.Cell("strict", "pathology_4class", "finetune", "mae", seed)


def test_a_folder_in_the_place_of_an_output_is_no_error_of_the_check(job):
    job.run()
    network = layout.classifier("demo", cell(0)) / "model.safetensors"
    network.unlink()
    network.mkdir()
    left = drop_outdated(job.chosen, params.parts(job.chosen, "classify", *PLACE))
    assert [place for _, place in left] == [cell(0)]


def test_another_code_or_lock_makes_them_again(job, monkeypatch):
    job.run()
    digest = record.code_digest
    with monkeypatch.context() as other:
        other.setattr(record, "code_digest", lambda stage: "0" * 64 if stage == "probe" else digest(stage))
        assert job.run() == ["linear/seed-0"]
    assert job.run() == ["linear/seed-0"]
    monkeypatch.setattr(record, "lock_digest", lambda: "0" * 64)
    assert job.run() == ALL


def test_outdated_records_go_before_the_first_training(job, monkeypatch):
    job.run()
    edit(lambda document: document["finetune"].update(drop_path=0.3))
    left = []
    monkeypatch.setattr("miram.train.finetune.finetune", lambda *given, **_: left.append([*job.records()]) or {})
    main(COMMAND)
    assert left[0] == ["linear/seed-0"]


def test_one_that_fails_is_named_and_does_not_stop_the_others(job, capsys):
    job.fault = "finetune/seed-0"
    assert job.run() == ALL[1:]
    said = capsys.readouterr().err
    assert said.endswith("miram classify: strict/pathology_4class/finetune/mae/seed-0: It broke.\nMend it.\n")
    assert not layout.record("classify", "demo", *PLACE).exists()
    assert [*job.records()] == ALL[1:]
    job.fault = None
    assert job.run() == ALL[:1]
    assert layout.record("classify", "demo", *PLACE).exists()


def test_what_one_that_fails_held_is_free_before_the_next_begins(job, monkeypatch):
    class Network:
        pass

    def train(out, *_, **__):
        held.append(weakref.ref(network := Network()))
        left.append([one() for one in held[:-1]])
        network.itself = network  # as modules with hooks: freed by the collector alone
        try:
            raise RuntimeError("CUDA out of memory")
        except RuntimeError as error:
            raise MiramError("It broke.", "Mend it.") from error

    held, left = [], []
    monkeypatch.setattr("miram.train.finetune.finetune", train)
    assert main(COMMAND) == 1
    assert left == [[], [None]]


def test_a_later_seed_takes_the_learning_rate_that_the_first_has_chosen(job):
    edit(lambda document: document["presets"]["demo"]["finetune"]["lr"].update(strict=[5e-4, 1e-3]))
    assert job.run() == ALL
    assert job.rates == [[5e-4, 1e-3], [1e-3], None]
    first, later = (layout.record("finetune", "demo", *cell(seed)) for seed in (0, 1))
    assert str(first) in record.read(later)["inputs"]
    made = json.loads(first.read_text())
    first.write_text(json.dumps(made | {"facts": {"lr": 5e-4}}))
    assert job.run() == ALL[1:2] and job.rates == [[5e-4]]  # another choice
    job.fault = ALL[0]
    first.unlink()
    assert job.run() == []  # without a choice neither


def test_a_table_of_what_is_done_hides_what_a_run_would_make_again(job):
    job.run()
    every = {cell: path for cell, path in classifiers(job.chosen, Namespace(hidden=())).items() if path.exists()}
    assert len(every) == 3 and outdated(job.chosen) == set()
    edit(lambda document: document["finetune"].update(drop_path=0.3))
    hidden = {path for cell, path in every.items() if cell.mode == "finetune"}
    assert outdated(job.chosen) == hidden
    shown = classifiers(job.chosen, Namespace(hidden=hidden))
    assert [cell.mode for cell, path in shown.items() if path.exists()] == ["linear"]
    edit(lambda document: document["finetune"].update(drop_path=0.1))
    assert outdated(job.chosen) == set()
    edit(lambda document: document["pretrain"].update(mask_ratio=0.6))  # of what they start from
    started = layout.record("pretrain", "demo", "strict", "mae", 0)
    assert outdated(job.chosen) == {*every.values(), layout.record("classify", "demo", *PLACE), started}
    assert first_pretrainings(job.chosen, Namespace(hidden={started}), "strict")["mae"].exists() is False
