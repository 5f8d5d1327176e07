import hashlib
import json
import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from miram.errors import MiramError
from miram.provenance import record
from miram.stages import STAGES


@pytest.fixture
def written(tmp_path):
    (tmp_path / "in.txt").write_text("in")
    (tmp_path / "out.txt").write_text("out")
    path = tmp_path / "crops.json"
    begun = record.begin(path, stage="crops", values={"a": 1}, inputs=[tmp_path / "in.txt"])
    record.finish(path, begun, outputs=[tmp_path / "out.txt"], facts={"n": 3})
    return path


def test_a_record_says_what_made_the_outputs(written):
    found = record.read(written)
    assert found["facts"] == {"n": 3}
    assert found["values"] == {"a": 1}
    assert set(found) >= {"stage", "inputs", "outputs", "code", "lock", "image", "git", "versions", "machine"}


def test_the_processor_is_named_by_its_model_or_where_that_is_unknown_by_its_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(record.platform, "processor", lambda: "")
    monkeypatch.setattr(record.platform, "machine", lambda: "arm64")
    assert record.processor_name() == "arm64"
    record.CPU_INFO.write_text("processor\t: 0\nCPU part\t: 0xd40\n")
    assert record.processor_name() == "arm64"
    record.CPU_INFO.write_text("processor\t: 0\nmodel name\t: AMD EPYC: 7B13\nmodel name\t: other\n")
    assert record.processor_name() == "AMD EPYC: 7B13"
    begun = record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])
    assert begun["machine"]["processor"] == "AMD EPYC: 7B13"


def test_code_that_was_copied_into_an_image_names_the_commit_it_came_from(tmp_path, monkeypatch):
    built_from = {"commit": "4c239ca", "dirty": False}
    (tmp_path / "commit.json").write_text(json.dumps(built_from))
    monkeypatch.setattr(record, "BUILT_FROM", tmp_path / "commit.json")
    assert record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])["git"] == built_from


def test_code_that_git_does_not_know_makes_the_tree_differ_from_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "ROOT", tmp_path / "miram")
    for name in ("miram/stage.py", "results/demo/table.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("as committed")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "results/demo/table.csv").write_text("made")
    (tmp_path / "notes.txt").write_text("mine")
    assert record._git()["dirty"] is False
    (tmp_path / "miram/new.py").write_text("not committed")
    assert record._git()["dirty"] is True
    subprocess.run([*git, "clean", "-fdq"], check=True)
    (tmp_path / "miram/stage.py").write_text("changed")
    assert record._git()["dirty"] is True


def test_the_commit_of_a_clone_that_another_user_owns_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "ROOT", tmp_path / "miram")
    assert record._git() is None and not capsys.readouterr().err
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert record._git() is None  # nothing is committed
    assert "warning: the record will name no commit, because git says: fatal: " in capsys.readouterr().err
    (tmp_path / "params.yaml").touch()
    for words in (["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    own = record._git()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert record._git() == own and own["dirty"] is False


def test_an_output_that_changed_or_went_is_named(written, tmp_path):
    (tmp_path / "out.txt").write_text("edited")
    with pytest.raises(MiramError, match=r"out\.txt is not the file"):
        record.read(written)
    (tmp_path / "out.txt").unlink()
    with pytest.raises(MiramError, match=r"out\.txt.*is missing"):
        record.read(written)


def test_an_input_that_changed_since_is_named_and_one_that_went_is_not(written, tmp_path):
    (tmp_path / "in.txt").unlink()
    record.read(written)
    (tmp_path / "in.txt").write_text("made anew")
    with pytest.raises(MiramError, match=r"crops\.json was made from another .*in\.txt"):
        record.read(written)


def test_the_image_of_the_container_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(record.IMAGE, raising=False)
    assert record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])["image"] is None
    monkeypatch.setenv(record.IMAGE, "sha256:1234")
    assert record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])["image"] == "sha256:1234"


def test_an_image_with_other_packages_than_the_lock_beside_the_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(record.IMAGE_LOCK, str(record.LOCK))
    record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])
    (tmp_path / "requirements.lock").write_text("torch==1.0\n")
    monkeypatch.setenv(record.IMAGE_LOCK, str(tmp_path / "requirements.lock"))
    with pytest.raises(MiramError, match="built with another lock"):
        record.begin(tmp_path / "crops.json", stage="crops", values={}, inputs=[])


def test_a_damaged_or_missing_record_is_named(written):
    written.write_text(written.read_text()[:40])
    with pytest.raises(MiramError, match=r"crops\.json is damaged"):
        record.read(written)
    written.write_text(json.dumps({"stage": "crops"}))
    with pytest.raises(MiramError, match=r"crops\.json is damaged"):
        record.read(written)
    written.unlink()
    with pytest.raises(MiramError, match="There is no record"):
        record.read(written)


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """The package's source in another place, so that a test can edit it."""
    root = tmp_path / "miram"
    shutil.copytree(record.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(record, "ROOT", root)
    forget()
    yield root
    forget()


def forget():
    record.module_digest.cache_clear()
    record._parsed.cache_clear()


def digests():
    forget()
    return {stage: record.code_digest(stage) for stage in STAGES}


def changed_by(source, edit):
    before = digests()
    source.write_text(edit(source.read_text()))
    after = digests()
    return {stage for stage in after if after[stage] != before[stage]}


def test_code_that_an_entry_of_the_registry_names_counts_where_models_are_built(copied_package):
    for module in (("attention", "nystrom.py"), ("mocov3.py",)):
        source = copied_package.joinpath("models", *module)
        assert changed_by(source, lambda text: text + "\nmore = 1\n") == {"pretrain"}


def test_a_comment_or_a_docstring_changes_no_digest(copied_package):
    source = copied_package / "data" / "splits.py"
    edit = '"""Other words. '
    assert not changed_by(source, lambda text: "# a comment\n" + text.replace('"""', edit, 1))


def test_code_changes_the_digests_of_its_own_stage_and_of_those_that_import_it(copied_package):
    def add(text):
        return text + "\nSOMETHING = 1\n"

    assert changed_by(copied_package / "train" / "finetune.py", add) == {"finetune"}
    assert changed_by(copied_package / "models" / "encoder.py", add) == {
        *("pretrain", "classify", "finetune", "probe", "trivial", "explain")
    }
    assert changed_by(copied_package / "phantom" / "tissue.py", add) == {"archive"}
    assert changed_by(copied_package / "report" / "page" / "style.css", add) == {"report"}


def test_what_changes_no_result_changes_no_digest(copied_package):
    assert not changed_by(copied_package / "progress.py", lambda text: text + "\nSOMETHING = 1\n")


def test_a_record_tells_the_code_and_inputs_that_the_stage_started_from(tmp_path):
    (tmp_path / "in.txt").write_text("in")
    path = tmp_path / "crops.json"
    begun = record.begin(path, stage="crops", values={}, inputs=[tmp_path / "in.txt"])
    (tmp_path / "in.txt").write_text("changed meanwhile")
    record.finish(path, begun, outputs=[], facts={})
    assert json.loads(path.read_text())["inputs"] == {str(tmp_path / "in.txt"): hashlib.sha256(b"in").hexdigest()}


def test_a_stage_that_begins_again_has_no_record_until_it_ends(written):
    record.begin(written, stage="crops", values={}, inputs=[])
    assert not written.exists()


def test_a_record_tells_in_utc_when_the_stage_started_and_ended(written):
    found = record.read(written)
    started, ended = (datetime.fromisoformat(found[name]) for name in ("started", "ended"))
    assert started <= ended
    assert started.utcoffset() == ended.utcoffset() == timedelta(0)
