from pathlib import Path

import pytest
import torch

from miram.errors import MiramError
from miram.train import checkpoint

STATE = {
    "fingerprint": "of a training",
    "step": 7,
    "model": {"weight": torch.arange(6.0).reshape(2, 3)},
    "log": [{"loss": 0.5}],
}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def test_a_state_comes_back(path):
    state = checkpoint.load(path)
    assert state["step"] == 7 and state["log"] == [{"loss": 0.5}]
    assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_named(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MiramError, match=r"checkpoint\.pt is truncated"):
        checkpoint.load(path)


def test_a_checkpoint_that_would_run_code_is_refused(path):
    torch.save({"step": Path("anything that is not a tensor")}, path)
    with pytest.raises(MiramError, match="not a checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_of_another_program_is_refused(path):
    torch.save({"state_dict": {}}, path)
    with pytest.raises(MiramError, match="not a checkpoint of this program"):
        checkpoint.load(path)


def test_a_state_that_cannot_be_saved_leaves_the_last_one(path):
    with pytest.raises((TypeError, AttributeError, RuntimeError)):
        checkpoint.save(path, {"step": (i for i in range(3))})
    assert checkpoint.load(path)["step"] == 7
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, STATE)

    def full(state, target):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(MiramError, match=r"checkpoint\.pt cannot be written"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path)["step"] == 7
