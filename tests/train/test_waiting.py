"""What makes a GPU wait or compute slowly in the steps of pre-training; seen on the CPU, where it costs nothing."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from miram.train.augment import draw_moco_view
from miram.train.device_views import render_batch
from miram.train.loop import Run

NUMBER_OF_TENSOR = torch.ops.aten._local_scalar_dense.default  # what `.item()`, `float()` and `if tensor` call
KINDS = {
    "linformer": {"rank": 4},
    "nystrom": {"landmarks": 4, "pinv_iterations": 2, "pinv_init": "matrix", "residual_kernel": 3},
}


class Watching(TorchDispatchMode):
    """Counts the numbers that are read from tensors, and notes the size of the largest float64 tensor."""

    def __init__(self):
        super().__init__()
        self.read, self.largest_double = 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.read += operation is NUMBER_OF_TENSOR
        found = operation(*args, **(kwargs or {}))
        for made in found if isinstance(found, tuple | list) else [found]:
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.largest_double = max(self.largest_double, made.numel())
        return found


@pytest.fixture
def steps(monkeypatch):
    """What was seen in each step."""
    seen, original = [], Run._optimise

    def watched(run, batches):
        batch = next(batches)
        with Watching() as watching:
            values = original(run, iter([batch]))
        seen.append(watching)
        return values

    monkeypatch.setattr(Run, "_optimise", watched)
    return seen


@pytest.mark.parametrize("objective", ["mae", "native", "performer", "mocov3", "divided", *KINDS])
def test_no_step_reads_a_number_of_the_device_or_computes_in_float64(objective, steps, tmp_path, run_pretraining):
    own = {"attention": objective, "options": KINDS[objective]} if objective in KINDS else {}
    run_pretraining(tmp_path, "performer" if own else objective, **own)
    assert len(steps) == 9
    assert {(step.read, step.largest_double) for step in steps} == {(0, 0)}


def test_views_are_made_on_a_device_without_a_float64_tensor_larger_than_the_batch():
    random = np.random.default_rng(0)
    chosen = [torch.from_numpy(random.integers(0, 256, (50, 40), dtype=np.uint8)) for _ in range(8)]
    jitter = {"jitter_brightness": 0.4, "jitter_contrast": 0.4, "jitter_probability": 1.0}
    blur = {"blur_sigma_min": 0.1, "blur_sigma_max": 2.0, "blur_probability": 1.0, "solarise_probability": 0.5}
    draws = [draw_moco_view(50, 40, 0.2, random, **jitter, **blur) for _ in chosen]
    with Watching() as watching:
        render_batch(chosen, 16, draws)
    assert watching.largest_double <= len(chosen)
