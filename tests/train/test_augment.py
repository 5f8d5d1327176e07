import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from miram.train.augment import (
    crop_box,
    draw_moco_view,
    draw_view,
    finetune_view,
    render,
    resize,
    stream,
    to_grey,
    to_images,
)

NO_MOCO = {
    "jitter_brightness": 0.4,
    "jitter_contrast": 0.4,
    "jitter_probability": 0.0,
    "blur_sigma_min": 1.0,
    "blur_sigma_max": 1.0,
    "blur_probability": 0.0,
    "solarise_probability": 0.0,
}
STILL = {"rotation_degrees": 0.0, "zoom_min": 1.0, "zoom_max": 1.0, "intensity_shift": 0.0}


def noise(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)


def random_resized_crop(crop, side, scale_min, random):
    return render(crop, side, draw_view(*crop.shape, scale_min, random)._replace(flipped=False))


def moco_view(crop, side, scale_min, random, **values):
    return render(crop, side, draw_moco_view(*crop.shape, scale_min, random, **values))


def flips(view):
    return [view, view[:, ::-1], view[::-1], view[::-1, ::-1]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 64), st.integers(0, 99))
def test_a_cropped_view_is_what_pil_makes_of_the_same_box(rows, columns, side, seed):
    crop = noise(rows, columns, seed)
    top, left, height, width = crop_box(rows, columns, 0.2, np.random.default_rng(seed))
    box = (left, top, left + width, top + height)
    reference = Image.fromarray(crop).crop(box).resize((side, side), Image.Resampling.BICUBIC)
    view = random_resized_crop(crop, side, 0.2, np.random.default_rng(seed))
    assert view.dtype == np.uint8 and np.array_equal(view, reference)


def test_shrinking_is_antialiased():
    checkered = np.indices((256, 256)).sum(0).astype(np.uint8) % 2 * 255
    assert np.abs(resize(checkered, 32).astype(int) - 127).max() <= 2


def test_resizing_takes_parts_of_a_read_only_crop():
    crop = noise(40, 40)
    crop.setflags(write=False)
    assert np.array_equal(resize(crop[3:33, 5:20], 16), resize(crop[3:33, 5:20].copy(), 16))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.01, 1.0), st.integers(0, 999))
def test_a_box_lies_in_the_crop(rows, columns, scale_min, seed):
    top, left, height, width = crop_box(rows, columns, scale_min, np.random.default_rng(seed))
    assert 0 <= top <= rows - height and 0 <= left <= columns - width and height >= 1 and width >= 1


def test_boxes_have_the_areas_and_ratios_of_a_random_resized_crop():
    boxes = np.array([crop_box(300, 300, 0.2, np.random.default_rng(seed)) for seed in range(2000)])
    areas = boxes[:, 2] * boxes[:, 3] / 300**2
    ratios = boxes[:, 3] / boxes[:, 2]
    assert areas.min() > 0.195 and 0.5 < areas.mean() < 0.62 and areas.max() > 0.97
    assert ratios.min() > 0.74 and ratios.max() < 1.35 and abs(np.log(ratios).mean()) < 0.02
    assert boxes[:, 0].std() > 30 and boxes[:, 1].std() > 30


def test_a_crop_too_long_for_any_box_gives_its_middle():
    assert crop_box(30, 3000, 1.0, np.random.default_rng(0)) == (0, 1480, 30, 40)
    assert crop_box(3000, 30, 1.0, np.random.default_rng(0)) == (1480, 0, 40, 30)


def test_half_of_the_views_are_flipped():
    flipped = sum(draw_view(20, 20, 0.5, np.random.default_rng(seed)).flipped for seed in range(400))
    assert 160 < flipped < 240


def test_streams_differ_by_purpose_seed_epoch_and_sample():
    keys = [("view", 0, 0, 0), ("order", 0, 0, 0), ("view", 1, 0, 0), ("view", 0, 1, 0), ("view", 0, 0, 1)]
    assert len({stream(*key).random() for key in keys}) == len(keys)
    assert stream("view", 5, 6, 7).random() == stream("view", 5, 6, 7).random()


def test_moco_without_its_colour_steps_is_a_crop_and_a_flip():
    crop = noise(30, 30)
    for seed in range(10):
        plain = random_resized_crop(crop, 16, 0.5, np.random.default_rng(seed))
        view = moco_view(crop, 16, 0.5, np.random.default_rng(seed), **NO_MOCO)
        assert any(np.array_equal(view, flipped) for flipped in flips(plain)[:2])


def test_solarisation_inverts_the_bright_half():
    crop = np.array([[0, 127], [128, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
    view = moco_view(crop, 16, 1.0, np.random.default_rng(0), **{**NO_MOCO, "solarise_probability": 1.0})
    assert view.max() <= 127


def test_blur_removes_detail_and_keeps_the_mean():
    crop = noise(32, 32)
    plain, blurred = (
        moco_view(crop, 32, 1.0, np.random.default_rng(0), **{**NO_MOCO, "blur_probability": p}).astype(float)
        for p in (0.0, 1.0)
    )
    assert blurred.std() < 0.5 * plain.std() and abs(blurred.mean() - plain.mean()) < 3


def test_jitter_changes_brightness_within_its_strength():
    crop = np.full((16, 16), 100, np.uint8)
    jitter = {**NO_MOCO, "jitter_probability": 1.0}
    levels = [moco_view(crop, 16, 1.0, np.random.default_rng(seed), **jitter).mean() for seed in range(200)]
    assert 59 <= min(levels) < 65 and 135 < max(levels) <= 141


def test_fine_tuning_without_strength_only_flips():
    view = noise(24, 24)
    seen = {finetune_view(view, np.random.default_rng(seed), **STILL).tobytes() for seed in range(60)}
    assert seen == {flipped.tobytes() for flipped in flips(view)}


def test_fine_tuning_shifts_grey_levels_up_to_its_strength_and_clips():
    shift = {**STILL, "intensity_shift": 20.0}
    views = [finetune_view(np.full((4, 4), 100, np.uint8), np.random.default_rng(s), **shift) for s in range(200)]
    assert {int(np.ptp(view)) for view in views} == {0}
    assert 80 <= min(v.min() for v in views) < 84 and 116 < max(v.max() for v in views) <= 120
    white = [finetune_view(np.full((4, 4), 255, np.uint8), np.random.default_rng(s), **shift).max() for s in range(50)]
    assert max(white) == 255 and min(white) >= 235


@pytest.mark.parametrize("zoom", [0.8, 1.2])
def test_zoom_enlarges_about_the_centre(zoom):
    disc = ((np.mgrid[:101, :101] - 50) ** 2).sum(0) < 30**2
    view = finetune_view(
        disc.astype(np.uint8) * 200, np.random.default_rng(0), **{**STILL, "zoom_min": zoom, "zoom_max": zoom}
    )
    assert (view > 100).sum() == pytest.approx(disc.sum() * zoom**2, rel=0.03)
    rows, columns = np.nonzero(view > 100)
    assert rows.mean() == pytest.approx(50, abs=0.5) and columns.mean() == pytest.approx(50, abs=0.5)


def test_rotation_turns_up_to_its_angle_and_fills_corners_with_zero():
    bar = np.zeros((101, 101), np.uint8)
    bar[48:53] = 200
    angles = []
    for seed in range(60):
        view = finetune_view(bar, np.random.default_rng(seed), **{**STILL, "rotation_degrees": 25.0})
        rows, columns = np.nonzero(view > 100)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert -26 < min(angles) < -15 and 15 < max(angles) < 26
    turned = [
        finetune_view(np.full((41, 41), 200, np.uint8), np.random.default_rng(s), **{**STILL, "rotation_degrees": 25.0})
        for s in range(20)
    ]
    assert min(view[0, 0] for view in turned) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_and_come_back(channels):
    views = torch.from_numpy(np.stack([noise(8, 8, seed) for seed in range(3)]))
    images = to_images(views, channels)
    assert images.shape == (3, channels, 8, 8) and images.dtype == torch.float32
    assert torch.equal(to_grey(images), views)
    expected = (views[0, 2, 5] / 255 - (0.485, 0.449)[channels == 1]) / (0.229, 0.226)[channels == 1]
    assert images[0, 0, 2, 5].item() == pytest.approx(expected.item(), abs=1e-6)
