import json
import shutil

import pytest

from miram import record
from miram.errors import MiramError


@pytest.fixture
def written(tmp_path):
    (tmp_path / "in.txt").write_text("in")
    (tmp_path / "out.txt").write_text("out")
    path = tmp_path / "crops.json"
    record.write(
        path,
        stage="crops",
        values={"a": 1},
        inputs=[tmp_path / "in.txt"],
        outputs=[tmp_path / "out.txt"],
        facts={"n": 3},
    )
    return path


def test_a_record_says_what_made_the_outputs(written):
    found = record.read(written)
    assert found["facts"] == {"n": 3}
    assert found["values"] == {"a": 1}
    assert set(found) >= {"stage", "inputs", "outputs", "code", "lock", "git", "versions", "machine"}


def test_an_output_that_changed_or_went_is_named(written, tmp_path):
    (tmp_path / "out.txt").write_text("edited")
    with pytest.raises(MiramError, match=r"out\.txt is not the file"):
        record.read(written)
    (tmp_path / "out.txt").unlink()
    with pytest.raises(MiramError, match=r"out\.txt.*is missing"):
        record.read(written)


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
    record.code_digest.cache_clear()
    yield root
    record.code_digest.cache_clear()


def digest(module):
    record.code_digest.cache_clear()
    return record.code_digest(module)


def test_the_code_digest_reacts_to_code_below_a_stage_and_not_to_comments_or_docstrings(copied_package):
    before = digest("miram.data.splits")
    source = copied_package / "files.py"
    imported = copied_package / "data" / "splits.py"
    imported.write_text("# a comment\n" + imported.read_text().replace('"""', '"""Other words. ', 1))
    assert digest("miram.data.splits") == before
    imported.write_text(imported.read_text() + "\nimport miram.files\n")
    with_import = digest("miram.data.splits")
    assert with_import != before
    source.write_text(source.read_text() + "\nSOMETHING = 1\n")
    assert digest("miram.data.splits") != with_import


def test_a_change_of_fine_tuning_leaves_the_digests_before_it_alone(copied_package):
    stages = {stage: digest(module) for stage, module in record.STAGE_MODULES.items()}
    source = copied_package / "train" / "finetune.py"
    source.write_text(source.read_text() + "\nSOMETHING = 1\n")
    changed = {stage for stage, module in record.STAGE_MODULES.items() if digest(module) != stages[stage]}
    assert changed == {"finetune"}


def test_every_stage_names_a_module_that_exists():
    for module in record.STAGE_MODULES.values():
        assert record.ROOT.parent.joinpath(*module.split(".")).with_suffix(".py").is_file(), module
