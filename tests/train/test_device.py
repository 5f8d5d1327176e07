import pytest
import torch

from miram.errors import MiramError
from miram.train.device import usable_accelerator


@pytest.mark.parametrize(
    ("asked", "available", "used"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_auto_takes_a_cuda_device_where_there_is_one_and_no_other_kind(monkeypatch, asked, available, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert usable_accelerator(asked) == used


def test_cuda_without_a_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MiramError, match="finds no CUDA device"):
        usable_accelerator("cuda")
