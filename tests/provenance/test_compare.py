"""`miram compare` on small folders: two runs that differ in one thing at a time."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from miram.cli import main
from miram.evaluate.metrics import METRIC_COLUMNS
from miram.layout import LOCK, WORKFLOW
from miram.provenance import record
from miram.provenance.compare import compare
from miram.provenance.crate import METADATA, read_origin, write_crate

PARAMS = Path(record.LOCK).with_name("params.yaml")
METHODS = {"mae": 0.42, "mocov3": 0.78}
INSTANCES = "series_uid,sop_uid,bytes,sha256\n1.2,1.2.3,4,aa\n1.4,1.4.1,4,bb\n"


def metrics(seeds, step, methods, moved):
    """A table of two metrics: accuracy and its fellow 0.1 below, intervals of ±0.1, seeds 0.02 apart."""
    rows = []
    for method in methods:
        for metric, down in (("accuracy", 0.0), ("macro_ap", 0.1)):
            value = METHODS[method] - down + (step if moved in (None, (method, metric)) else 0)
            shared = {"protocol": "strict", "task": "pathology", "mode": "finetune", "method": method, "metric": metric}
            shared |= {"split": "test", "low": value - 0.1, "high": value + 0.1, "lesions": 91, "classes_present": 4}
            for place, seed in enumerate(seeds):
                rows.append(shared | {"seed": seed, "value": value + 0.02 * place - 0.01})
            rows.append(shared | {"seed": None, "value": value, "sd": 0.014142})
    table = pd.DataFrame(rows, columns=METRIC_COLUMNS).astype({"seed": "Int64"})
    return table.to_csv(index=False, float_format="%.6f")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that writes the results of a run, and gives their folder."""
    monkeypatch.chdir(tmp_path)
    Path(WORKFLOW).write_text("rule all:")
    monkeypatch.setattr(record, "_git", lambda: {"commit": "c0ffee" * 7, "dirty": False})
    monkeypatch.setattr(record, "_versions", lambda: {"torch": "2.13.0+cpu", "dvc": None})

    def run(
        name, *, seeds=(0, 1), step=0.0, moved=None, methods=METHODS, threads=1,
        lock="a" * 64, code="b" * 64, cpu="an AMD", instances=INSTANCES,
    ):  # fmt: skip
        folder = tmp_path / name
        results = folder / "results/demo"
        results.mkdir(parents=True)
        (folder / LOCK).write_text(instances)
        (results / "metrics.csv").write_text(metrics(seeds, step, methods, moved))
        monkeypatch.setattr(record, "lock_digest", lambda: lock)
        monkeypatch.setattr(record, "code_digest", lambda stage: code)
        monkeypatch.setattr(record, "processor_name", lambda: cpu)
        records = []
        for seed in seeds:
            path = folder / f"finetune-{seed}.json"
            begun = record.begin(path, stage="finetune", values={"seed": seed, "threads": threads}, inputs=records)
            facts = {"device": "cpu", "cpu_capability": "AVX2", "threads": threads}
            record.finish(path, begun, outputs=[results / "metrics.csv"], facts=facts)
            records = [path]
        write_crate(records, [folder / LOCK], results, workflow=Path(WORKFLOW), preset="demo")
        return results

    return run


def weighed(first, second):
    return compare(first, second, ("A", "B"))


def told(found):
    """The lines of what differs between the runs."""
    return [line.strip() for line in found.page.partition("What differs")[2].splitlines()[1:]]


def test_a_folder_agrees_with_itself_and_nothing_differs(make):
    folder = make("a")
    found = weighed(folder, folder)
    assert found.agrees and found.verdict == "A agrees with B: 2 of 2 methods the same, to the last digit"
    assert "Of 3 files 3 have the same bytes." in found.page
    assert told(found) == ["nothing that is recorded"]


def test_a_thread_more_moves_the_last_digits_and_is_named(make):
    found = weighed(make("a"), make("b", step=0.00002, threads=2))
    assert found.agrees and found.verdict == "A agrees with B: 2 of 2 methods within numerics (0.0005)"
    assert re.search(r"^mae +numerics +all 2 numbers$", found.page, re.MULTILINE)
    assert told(found) == ["parameter threads (finetune): 1 against 2", "torch's threads: 1 against 2"]


def test_other_seeds_are_named_and_their_numbers_judged_by_the_intervals(make):
    found = weighed(make("a"), make("b", seeds=(2, 3), step=0.03))
    assert found.agrees
    assert found.verdict == "A agrees with B: 2 of 2 methods within their intervals, 0 of these within numerics"
    assert "accuracy strict/pathology/finetune: 0.7800 [0.6800, 0.8800] against 0.8100 [0.7100, 0.9100]" in found.page
    assert found.page.count("seeds 0, 1 against 2, 3 (finetune)") == 2
    assert told(found) == ["parameter seed (finetune): 0, 1 against 2, 3"]


def test_numbers_beyond_the_intervals_are_told_apart_metric_by_metric(make):
    found = weighed(make("a"), make("b", step=0.2, moved=("mocov3", "accuracy")))
    assert not found.agrees
    assert found.verdict == "A differs from B: 1 of 2 methods beyond their intervals (mocov3)"
    assert re.search(r"^mae +same +all 2 numbers$", found.page, re.MULTILINE)
    assert re.search(r"^mocov3 +told apart +same: macro_ap; told apart: accuracy$", found.page, re.MULTILINE)


def test_a_run_of_another_effect_differs_and_its_methods_are_named(make):
    found = weighed(make("a"), make("b", step=-0.3))
    assert not found.agrees
    assert found.verdict == "A differs from B: 2 of 2 methods beyond their intervals (mae, mocov3)"


def test_another_lock_code_processor_and_data_are_named_each(make):
    other = make("b", lock="d" * 64, code="e" * 64, cpu="an Intel", instances=INSTANCES.replace("bb", "cc"))
    found = weighed(make("a"), other)
    assert found.agrees
    assert told(found) == [
        "code of the stages finetune",
        f"lock: {'a' * 12} against {'d' * 12}",
        "processor: an AMD against an Intel",
        f"data lock {LOCK}: different instances, 1 of 2 against 1 of 2",
    ]


def test_an_edited_number_disagrees_with_its_own_crate_however_small_the_step(make):
    first, second = make("a"), make("b")
    path = second / "metrics.csv"
    path.write_text(path.read_text().replace("0.780000", "0.780001", 1))
    found = weighed(first, second)
    assert not found.agrees
    assert found.verdict.startswith("B disagrees with its own crate: B/metrics.csv is not the file that B/ro-crate-")
    assert "damaged: B/metrics.csv" in found.page and "numerics: accuracy" in found.page
    (second / METADATA).write_text("{")
    found = weighed(first, second)
    assert not found.agrees and "ro-crate-metadata.json is damaged" in found.verdict


def test_a_method_that_only_one_run_has_is_named_and_makes_them_differ(make):
    found = weighed(make("a", methods=["mocov3"]), make("b"))
    assert not found.agrees
    assert found.verdict == "A differs from B: numbers of mae are missing in one of the two"
    assert "only in B: strict/pathology/finetune: accuracy, macro_ap" in found.page


def test_a_crate_from_before_is_compared_by_what_it_has(make):
    first, second = make("a"), make("b")
    content = json.loads((second / METADATA).read_text())
    old = [entity for entity in content["@graph"] if not entity["@id"].startswith(("#machine", "#package"))]
    for entity in old:
        entity.pop("softwareRequirements", None)
        if entity["@id"] == "#run":
            entity["instrument"] = {"@id": "#miram"}
    (second / METADATA).write_text(json.dumps({**content, "@graph": old}))
    found = weighed(first, second)
    assert found.agrees
    assert "processor: an AMD against not recorded" in told(found)
    assert "torch: 2.13.0+cpu against not recorded" in told(found)
    assert "not recorded by either: processor, torch's CPU capability" in " ".join(told(weighed(second, second)))


def test_the_crate_tells_the_packages_and_the_machines(make):
    found = read_origin(make("a"))
    assert found == {
        "code finetune": ["b" * 64],
        "commit": ["c0ffee" * 7],
        "requirements.lock": ["a" * 64],
        "python": [record.platform.python_version()],
        "torch": ["2.13.0+cpu"],
        "processor": ["an AMD"],
        "system": [record.platform.platform()],
        "device": ["cpu"],
        "cpu_capability": ["AVX2"],
        "threads": ["1"],
    }


def command(capsys, *words):
    code = main(["--params", str(PARAMS), "compare", *map(str, words)])
    return code, capsys.readouterr()


def test_the_command_ends_with_1_where_the_results_do_not_agree(make, capsys):
    first, other = make("a"), make("b", step=-0.3)
    assert command(capsys, first, first)[0] == 0
    code, said = command(capsys, first, other, "--brief")
    assert code == 1 and said.out.splitlines() == [
        f"{first} differs from {other}: 2 of 2 methods beyond their intervals (mae, mocov3)"
    ]


@pytest.mark.parametrize("foreign", ["", "1"])  # a clone that another user owns
def test_by_default_a_folder_is_compared_with_itself_as_committed(make, capsys, tmp_path, monkeypatch, foreign):
    folder, made = make("a"), make("b", step=0.00002)
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "a"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    for file in ("metrics.csv", METADATA):
        (folder / file).write_bytes((made / file).read_bytes())
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", foreign)
    code, said = command(capsys, folder, "--brief")
    outcome = f"{folder} agrees with the published results: 2 of 2 methods within numerics (0.0005)\n"
    assert (code, said.out) == (0, outcome)
    assert f"{folder} agrees with {folder} of HEAD (" in command(capsys, folder)[1].out
    code, said = command(capsys, made, "--brief")  # a folder that git does not know
    assert code == 1 and "git has no" in said.out


def test_without_git_it_says_so_in_one_line_and_in_full_with_the_remedy(make, capsys, monkeypatch, tmp_path):
    folder = make("a")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for path in (None, str(tmp_path)):  # outside a repository; without the program
        if path is not None:
            monkeypatch.setenv("PATH", path)
        code, said = command(capsys, folder, "--brief")
        assert code == 1 and not said.err and len(said.out.splitlines()) == 1
        assert f"{folder} is not compared with the published results: " in said.out
        code, said = command(capsys, folder)
        assert code == 1 and not said.out and "miram compare A B" in said.err
