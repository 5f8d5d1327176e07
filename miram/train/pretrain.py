"""Pre-training of a method: the stage, and the work of each process; the loop itself is `Run`."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning_fabric import Fabric

from miram.errors import MiramError
from miram.files import atomic_path
from miram.models.encoder import Encoder
from miram.models.export import save_encoder
from miram.recipe import Recipe
from miram.train.device import (
    MemoryRanOut,
    free_memory,
    out_of_memory_as,
    prepare_torch,
    release_memory,
    taken_precision,
    usable_accelerator,
    usable_precision,
)
from miram.train.journal import journal
from miram.train.loop import Run
from miram.train.processes import fabric_of, launch, sigterm_noted
from miram.train.recipe import fingerprint
from miram.train.reconstruct import reconstruct
from miram.train.store import Store
from miram.train.views import PretrainViews, bytes_kept, load_batches, micro_batches, render_batches

Divide = Callable[[Recipe, float, int, float], int]  # recipe, free bytes, devices, bytes of crops -> parts of a batch


def pretrain(
    out_dir: Path,
    store_u8: Path,
    index_csv: Path,
    lesion_ids: Sequence[str],
    figure_ids: Sequence[str],
    recipe: Recipe,
    *,
    checkpoint_every_epochs: int,
    accelerator: str,
    threads: int,
    devices: int,
    divide: Divide,
) -> dict[str, Any]:
    """Pre-train on the crops of `lesion_ids`; the keywords set the devices and the interval of checkpoints.

    `divide` gives the parts of a batch where the recipe's `accumulate` is auto. If memory runs out all the same, one
    device goes on from the last checkpoint with half as many images at once.

    Writes into `out_dir` checkpoint.pt, log.csv, tensorboard/, encoder.safetensors and, for a masked method,
    reconstructions.npz of the crops `figure_ids`. A checkpoint of the same recipe and crops is resumed. Several devices
    share each batch: under torchrun its processes, regardless of `devices`, otherwise that many are started here.
    SIGTERM to any of them, or to the process that starts them, stops all after the same step. Returns facts for the
    record. Raises MiramError for errors that the user can correct, SystemExit(143) after SIGTERM.
    """
    used = usable_accelerator(accelerator)
    precision = usable_precision(recipe.precision, used)
    fabric, recipe = fabric_of(used, devices, precision), replace(recipe, precision=precision)
    crops = Store(store_u8, index_csv)
    places, figure_places = crops.places(lesion_ids), crops.places(figure_ids)
    job = Job(Path(out_dir), crops, places, figure_places, recipe, checkpoint_every_epochs, threads, divide)
    return launch(fabric, devices, _pretrain, job)


class Job(NamedTuple):
    """The input of each process."""

    out_dir: Path
    crops: Store
    places: list[int]
    figure_places: list[int]
    recipe: Recipe
    checkpoint_every_epochs: int
    threads: int
    divide: Divide


def _pretrain(fabric: Fabric, job: Job) -> dict[str, Any]:
    """The work of each process."""
    asked, processes = job.recipe, fabric.world_size
    prepare_torch(fabric, job.threads)
    _check_batch(asked, len(job.places), processes)
    # of what was asked: results do not depend on the parts
    identity = fingerprint(asked, job.crops.digest(job.places), fabric.device.type)
    free = free_memory(fabric)
    kept = bytes_kept(sum(job.crops[place].size for place in job.places), free) if _on_gpu(fabric) else 0
    recipe = asked
    by_itself = not isinstance(asked.accumulate, int)
    if by_itself:
        recipe = _told(fabric, replace(asked, accumulate=job.divide(asked, free, processes, kept)))
    while True:
        try:
            return _attempt(fabric, job, recipe, identity, keep=kept > 0)
        except MemoryRanOut as fault:
            parts = _more_parts(recipe, processes)
            if not by_itself or processes > 1 or parts is None:
                raise
            if fabric.is_global_zero:
                print(fault.message, file=sys.stderr, flush=True)
        release_memory()
        fabric = fabric_of(fabric.device.type, 1, taken_precision(fabric))  # the failed attempt has changed its scaler
        fabric.launch()
        prepare_torch(fabric, job.threads)
        recipe = _told(fabric, replace(recipe, accumulate=parts))


def _attempt(fabric: Fabric, job: Job, recipe: Recipe, identity: str, *, keep: bool) -> dict[str, Any]:
    """Pre-train from the checkpoint, if there is one, to the end; `keep`: the device keeps the crops."""
    crops, places, out_dir = job.crops, job.places, job.out_dir
    with _memory_fault_told(recipe, fabric.world_size):
        run = Run(fabric, recipe, len(places) // recipe.batch, out_dir, identity)
        keys = micro_batches(places, recipe, run.step, fabric.global_rank, fabric.world_size)
        views = PretrainViews(crops, recipe)
        on_gpu = _on_gpu(fabric)
        batches = (
            render_batches(views, keys, places, fabric.device, keep=keep) if on_gpu else load_batches(views, keys, 0)
        )
        log = journal(out_dir) if fabric.is_global_zero else nullcontext(lambda rows: None)
        with sigterm_noted() as stopped, log as write_log:
            run.train(batches, job.checkpoint_every_epochs, stopped, write_log)
        if fabric.is_global_zero:
            encoder = run.module.encoder
            assert isinstance(encoder, Encoder)
            save_encoder(encoder, out_dir / "encoder.safetensors")
            if recipe.masked:
                with atomic_path(out_dir / "reconstructions.npz") as temporary, open(temporary, "wb") as file:
                    np.savez_compressed(file, **reconstruct(run.module, crops, job.figure_places, recipe))
        return {**run.facts(), "images": len(places)}


def _on_gpu(fabric: Fabric) -> bool:
    return fabric.device.type == "cuda"


def _told(fabric: Fabric, recipe: Recipe) -> Recipe:
    if fabric.is_global_zero:
        at_once = recipe.batch // recipe.parts // fabric.world_size
        print(f"accumulate auto: {recipe.parts}, so {at_once} images at once on a device", file=sys.stderr, flush=True)
    return recipe


def _more_parts(recipe: Recipe, processes: int) -> int | None:
    """The fewest parts of a process's share of a batch that halve the images at once, if there are any."""
    share = recipe.batch // processes
    return next((parts for parts in range(2 * recipe.parts, share + 1) if share % parts == 0), None)


def _memory_fault_told(recipe: Recipe, processes: int) -> AbstractContextManager[None]:
    at_once = recipe.batch // recipe.parts // processes
    return out_of_memory_as(
        f"pre-training {recipe.name} at side {recipe.side}, batch {recipe.batch}, {at_once} images at once per device",
        f"Raise accumulate (now {recipe.accumulate}), or lower side.",
    )


def _check_batch(recipe: Recipe, images: int, processes: int) -> None:
    accumulate = recipe.fewest_parts
    if recipe.batch % (accumulate * processes):
        raise MiramError(
            f"batch {recipe.batch} does not divide into {accumulate} micro-batches on {processes} devices.",
            f"Choose a batch that is a multiple of {accumulate * processes}, or change accumulate or devices.",
        )
    if recipe.batch > images:
        raise MiramError(
            f"batch {recipe.batch} exceeds the {images} images of pre-training.", f"Choose a batch of at most {images}."
        )
