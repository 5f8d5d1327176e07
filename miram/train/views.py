"""The input of a step of pre-training: the order of the crops, their augmented views and masking noise, in batches.

A sample of a masked method is a view (side, side) uint8 and noise (patches,) float32; of another, two views.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from miram.recipe import Recipe
from miram.train.augment import Draw, draw_moco_view, draw_view, render, stream
from miram.train.device_views import render_batch
from miram.train.store import Store

Key = tuple[int, int]  # epoch, sample
CROPS_SHARE = 0.1  # of a device's free memory that crops may take


class PretrainViews(Dataset):
    """`views[epoch, place]` is the sample of crop `place` of the store in an epoch."""

    def __init__(self, store: Store, recipe: Recipe) -> None:
        self.store, self.recipe = store, recipe

    def __getitem__(self, key: Key) -> tuple[np.ndarray, ...]:
        place, draws, noise = self.drawn(key)
        return *(render(self.store[place], self.recipe.view_side, draw) for draw in draws), *noise

    def drawn(self, key: Key) -> tuple[int, list[Draw], list[np.ndarray]]:
        """The place, what is done for each view, and the masking noise, if any, of a sample."""
        epoch, place = key
        recipe, (rows, columns) = self.recipe, self.store[place].shape
        random = stream("view", recipe.seed, epoch, place)
        if recipe.masked:
            draws = [draw_view(rows, columns, recipe.crop_scale_min, random)]
            return place, draws, [random.random(recipe.patches, dtype=np.float32)]
        views = recipe.moco_views
        return place, [draw_moco_view(rows, columns, recipe.crop_scale_min, random, **view) for view in views], []


def micro_batches(
    places: list[int], recipe: Recipe, first_step: int, rank: int, world_size: int
) -> Iterator[list[Key]]:
    """The (epoch, place) keys of each micro-batch of one process, from optimiser step `first_step` to the end.

    Every epoch has its own order; an incomplete last batch is left out. Micro-batches and processes are slices of the
    same batch, regardless of their number.
    """
    steps = len(places) // recipe.batch
    first_epoch, skipped = divmod(first_step, steps)
    for epoch in range(first_epoch, recipe.epochs):
        order = stream("order", recipe.seed, epoch).permutation(places)[: steps * recipe.batch]
        own = order.reshape(steps, recipe.micro_batches, world_size, -1)[skipped:, :, rank]
        for micro_batch in own.reshape(-1, own.shape[-1]):
            yield [(epoch, int(place)) for place in micro_batch]
        skipped = 0


def load_batches(views: Dataset, keys: Iterable[list[Key]], workers: int) -> Iterator[list[torch.Tensor]]:
    """The samples of each list of keys as stacked tensors, prefetched by `workers` processes, or made on demand (0)."""
    return iter(
        DataLoader(
            views, batch_sampler=keys, num_workers=workers, collate_fn=_stack, pin_memory=torch.cuda.is_available()
        )
    )


def bytes_kept(crops_bytes: float, free_bytes: float) -> float:
    """Bytes of the crops that a device keeps: all, or none, where they would take more than CROPS_SHARE of it."""
    return crops_bytes if crops_bytes <= CROPS_SHARE * free_bytes else 0


def render_batches(
    views: PretrainViews, keys: Iterable[list[Key]], places: Iterable[int], device: torch.device, *, keep: bool
) -> Iterator[list[torch.Tensor]]:
    """As `load_batches`, but made on a device; they differ as `device_views` says.

    The device keeps the crops `places`, or (`keep` false) gets those of a batch from the host's pinned memory. A thread
    works one batch ahead.
    """
    read = ((place, torch.from_numpy(views.store[place].copy())) for place in places)  # one by one: no second copy
    pinned = device.type == "cuda" and not keep
    crops = {place: crop.to(device) if keep else crop.pin_memory() if pinned else crop for place, crop in read}
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for batch in keys:
            ready, coming = coming, thread.submit(_render_batch, views, crops, batch, device)
            if ready:
                yield ready.result()
        if coming:
            yield coming.result()


def _render_batch(
    views: PretrainViews, crops: dict[int, torch.Tensor], keys: list[Key], device: torch.device
) -> list[torch.Tensor]:
    samples = [views.drawn(key) for key in keys]
    chosen = [crops[place].to(device, non_blocking=True) for place, _, _ in samples]
    draws = zip(*(draws for _, draws, _ in samples), strict=True)
    noise = _stack([noise for _, _, noise in samples])
    return [render_batch(chosen, views.recipe.view_side, of_view) for of_view in draws] + noise


def loading_workers(device: torch.device, threads: int) -> int:
    """Loading workers: the threads with a GPU; none on a CPU, whose threads the model needs."""
    return threads if device.type == "cuda" else 0


def _stack(samples: Sequence[Sequence[np.ndarray]]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.stack(values)) for values in zip(*samples, strict=True)]
