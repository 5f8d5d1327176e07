import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miram.train.augment import draw_moco_view, draw_view, render
from miram.train.device_views import render_batch

MOCO = {
    "jitter_brightness": 0.4,
    "jitter_contrast": 0.4,
    "jitter_probability": 0.8,
    "blur_sigma_min": 0.1,
    "blur_sigma_max": 2.0,
    "blur_probability": 0.5,
    "solarise_probability": 0.3,
}


def crops(random, kind, count):
    for _ in range(count):
        rows, columns = random.integers(5, 300, 2).tolist()
        if kind == "noise":
            yield random.integers(0, 256, (rows, columns), dtype=np.uint8)
        else:
            rough = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8))
            yield np.array(rough.resize((columns, rows), Image.Resampling.BICUBIC))


def differences(crops, side, draws):
    """Grey levels between the batch and PIL's view of each crop."""
    batch = render_batch([torch.from_numpy(crop) for crop in crops], side, draws)
    assert batch.dtype == torch.uint8 and batch.shape == (len(crops), side, side)
    alone = np.stack([render(crop, side, draw) for crop, draw in zip(crops, draws, strict=True)])
    return np.abs(batch.numpy().astype(int) - alone)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["noise", "smooth"]), st.sampled_from([16, 48, 112]), st.integers(0, 99))
def test_views_of_the_masked_methods_are_pils_within_2_grey_levels(kind, side, seed):
    random = np.random.default_rng(seed)
    chosen = list(crops(random, kind, 40))
    draws = [draw_view(*crop.shape, 0.2, random) for crop in chosen]
    apart = differences(chosen, side, draws)
    assert apart.max() <= 2 and (apart > 0).mean() < 0.001


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["noise", "smooth"]), st.sampled_from([16, 48, 112]), st.integers(0, 99))
def test_views_of_moco_are_pils_within_5_grey_levels(kind, side, seed):
    random = np.random.default_rng(seed)
    chosen = list(crops(random, kind, 40))
    draws = [draw_moco_view(*crop.shape, 0.08, random, **MOCO) for crop in chosen]
    apart = differences(chosen, side, draws)
    assert apart.max() <= 5 and (apart > 0).mean() < 0.002


@pytest.mark.gpu
def test_a_gpu_makes_what_the_cpu_makes():
    random = np.random.default_rng(0)
    chosen = [torch.from_numpy(crop) for crop in crops(random, "noise", 40)]
    draws = [draw_moco_view(*crop.shape, 0.2, random, **MOCO) for crop in chosen]
    made = [render_batch([crop.to(device) for crop in chosen], 112, draws).cpu().int() for device in ("cpu", "cuda")]
    assert (made[0] - made[1]).abs().max() <= 2
