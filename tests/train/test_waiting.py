"""What makes a GPU wait or compute slowly in the steps of pre-training; seen on a pretended one."""

import numpy as np
import pytest
import torch
from pretend_gpu import pretended_gpu
from torch.utils._python_dispatch import TorchDispatchMode

from miram.train.augment import draw_moco_view
from miram.train.device_views import render_batch
from miram.train.loop import Run

KINDS = {
    "linformer": {"rank": 4},
    "nystrom": {"landmarks": 4, "pinv_iterations": 2, "pinv_init": "matrix", "residual_kernel": 3},
}


class Watching(TorchDispatchMode):
    """Notes the size of the largest float64 tensor."""

    def __init__(self):
        super().__init__()
        self.largest_double = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        for made in found if isinstance(found, tuple | list) else [found]:
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.largest_double = max(self.largest_double, made.numel())
        return found


@pytest.fixture
def steps(monkeypatch):
    """What was waited for in each step, and its largest float64 tensor."""
    seen, original = [], Run._optimise

    def watched(run, batches):
        batch, before = next(batches), len(waits)
        with Watching() as watching:
            values = original(run, iter([batch]))
        seen.append((waits[before:], watching.largest_double))
        return values

    with pretended_gpu(monkeypatch) as waits:
        monkeypatch.setattr(Run, "_optimise", watched)
        yield seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
@pytest.mark.parametrize("objective", ["mae", "native", "performer", "mocov3", "divided", *KINDS])
def test_no_step_waits_for_the_device_or_computes_in_float64(objective, steps, tmp_path, run_pretraining):
    own = {"attention": objective, "options": KINDS[objective]} if objective in KINDS else {}
    run_pretraining(tmp_path, "performer" if own else objective, accelerator="cuda", **own)
    assert steps == 9 * [([], 0)]


def test_views_are_made_on_a_device_without_a_float64_tensor_larger_than_the_batch():
    random = np.random.default_rng(0)
    chosen = [torch.from_numpy(random.integers(0, 256, (50, 40), dtype=np.uint8)) for _ in range(8)]
    jitter = {"jitter_brightness": 0.4, "jitter_contrast": 0.4, "jitter_probability": 1.0}
    blur = {"blur_sigma_min": 0.1, "blur_sigma_max": 2.0, "blur_probability": 1.0, "solarise_probability": 0.5}
    draws = [draw_moco_view(50, 40, 0.2, random, **jitter, **blur) for _ in chosen]
    with Watching() as watching:
        render_batch(chosen, 16, draws)
    assert watching.largest_double <= len(chosen)
