"""What tests share in a process: nothing that one of them does to torch reaches another."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("turn", ["first", "second"])  # each finds what the other must not leave
def test_what_a_test_does_to_torch_ends_with_it(turn):
    assert torch.get_num_threads() == 1 and torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)


def test_a_test_that_needs_no_torch_does_not_import_it():
    code = "import sys, conftest; conftest._reset_torch(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent).returncode == 0
