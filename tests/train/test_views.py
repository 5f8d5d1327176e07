import itertools
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_gpu import pretended_gpu

from miram.train.store import Store
from miram.train.views import PretrainViews, bytes_kept, load_batches, micro_batches, render_batches


def keys(recipe, places, first_step=0, rank=0, world_size=1):
    return list(micro_batches(places, recipe, first_step, rank, world_size))


def test_each_epoch_uses_every_crop_once_but_the_last_incomplete_batch(recipe_of):
    batches = keys(recipe_of("mae", batch=5, epochs=2), list(range(13)))
    assert [len(batch) for batch in batches] == [5] * 4
    first, second = ([place for batch in half for _, place in batch] for half in (batches[:2], batches[2:]))
    assert len(set(first)) == len(set(second)) == 10 and first != second


@settings(max_examples=40, deadline=None)
@given(accumulate=st.sampled_from([1, 2, 4]), world_size=st.sampled_from([1, 2]), first_step=st.integers(0, 9))
def test_micro_batches_and_processes_share_out_the_same_batches_from_any_step_on(
    recipe_of, accumulate, world_size, first_step
):
    places = list(range(100, 127))
    whole = keys(recipe_of("mae", batch=8), places)
    parts = [
        keys(recipe_of("mae", batch=8, accumulate=accumulate), places, first_step, rank, world_size)
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole[first_step:]):
        own = [part[step * accumulate : (step + 1) * accumulate] for part in parts]
        assert sorted(itertools.chain(*itertools.chain(*own))) == sorted(batch)
    assert len(parts[0]) == accumulate * len(whole[first_step:])


@pytest.mark.parametrize("objective", ["mae", "mocov3", "native"])
def test_a_sample_depends_on_epoch_and_crop_but_not_on_its_batch_or_the_workers(objective, recipe_of, store_paths):
    views = PretrainViews(Store(*store_paths), recipe_of(objective))
    wanted = [[(0, 1), (0, 2), (0, 3)], [(1, 3), (1, 1)]]
    first, second = load_batches(views, wanted, workers=0)
    workers = list(load_batches(views, wanted, workers=2))
    assert all(torch.equal(a, b) for a, b in zip([*first, *second], itertools.chain(*workers), strict=True))
    for values, alone in zip(first, views[0, 3], strict=True):
        assert np.array_equal(values[2].numpy(), alone)
    assert not torch.equal(first[0][2], second[0][0])


@pytest.mark.parametrize("objective", ["mae", "mocov3", "native"])
def test_a_device_makes_the_same_batches_in_their_order_but_for_rounding(objective, recipe_of, store_paths):
    views = PretrainViews(Store(*store_paths), recipe_of(objective))
    wanted = keys(views.recipe, list(range(12)))
    made = list(render_batches(views, wanted, range(12), torch.device("cpu"), keep=False))
    loaded = list(load_batches(views, wanted, workers=0))
    assert len(made) == len(loaded) == 9
    for values, others in zip(itertools.chain(*made), itertools.chain(*loaded), strict=True):
        assert values.dtype == others.dtype and values.shape == others.shape
        if values.dtype == torch.uint8:
            assert (values.int() - others.int()).abs().max() <= 2
        else:
            assert torch.equal(values, others)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_the_host_holds_no_copy_of_the_crops_that_the_device_keeps(recipe_of, store_paths, monkeypatch):
    read, from_numpy = [], torch.from_numpy

    def watched(array):
        made = from_numpy(array)
        if made.dtype == torch.uint8:  # no noise
            read.append(weakref.ref(made))
        return made

    views = PretrainViews(Store(*store_paths), recipe_of("mae"))
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(torch, "from_numpy", watched)
        batches = render_batches(
            views, keys(views.recipe, list(range(12))), range(12), torch.device("cuda", 0), keep=True
        )
        next(batches)
        assert len(read) == 12 and all(crop() is None for crop in read)
        batches.close()


def test_a_device_keeps_the_crops_only_where_they_take_little_of_it():
    assert bytes_kept(0.8e9, 8e9) == 0.8e9 and bytes_kept(0.81e9, 8e9) == 0


def test_a_native_view_has_the_side_of_the_high_resolution_image(recipe_of, store_paths):
    view, noise = PretrainViews(Store(*store_paths), recipe_of("native"))[0, 0]
    assert view.shape == (64, 64) and noise.shape == (16,) and noise.dtype == np.float32
