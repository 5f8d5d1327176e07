"""Pre-training of a method: the stage, and the work of each process; the loop itself is `Run`."""

from collections.abc import Sequence
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
from miram.train.device import out_of_memory_as, prepare_torch, usable_accelerator, usable_precision
from miram.train.journal import journal
from miram.train.loop import Run
from miram.train.processes import fabric_of, launch, sigterm_noted
from miram.train.reconstruct import reconstruct
from miram.train.store import Store
from miram.train.views import PretrainViews, load_batches, micro_batches, render_batches


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
) -> dict[str, Any]:
    """Pre-train on the crops of `lesion_ids`; the keywords set the devices and the interval of checkpoints.

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
    job = Job(Path(out_dir), crops, places, figure_places, recipe, checkpoint_every_epochs, threads)
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


def _pretrain(fabric: Fabric, job: Job) -> dict[str, Any]:
    """The work of each process."""
    recipe, crops, places, out_dir = job.recipe, job.crops, job.places, job.out_dir
    prepare_torch(fabric, job.threads)
    _check_batch(recipe, len(places), fabric.world_size)
    with _memory_fault_told(recipe, fabric.world_size):
        run = Run(fabric, recipe, len(places) // recipe.batch, out_dir, crops.digest(places))
        keys = micro_batches(places, recipe, run.step, fabric.global_rank, fabric.world_size)
        views = PretrainViews(crops, recipe)
        on_gpu = fabric.device.type == "cuda"
        batches = render_batches(views, keys, places, fabric.device) if on_gpu else load_batches(views, keys, 0)
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


def _memory_fault_told(recipe: Recipe, world_size: int) -> AbstractContextManager[None]:
    at_once = recipe.batch // recipe.accumulate // world_size
    return out_of_memory_as(
        f"pre-training {recipe.name} at side {recipe.side}, batch {recipe.batch}, {at_once} images at once per device",
        f"Raise accumulate (now {recipe.accumulate}), or lower side.",
    )


def _check_batch(recipe: Recipe, images: int, world_size: int) -> None:
    parts = recipe.accumulate * world_size
    if recipe.batch % parts:
        raise MiramError(
            f"batch {recipe.batch} does not divide into {recipe.accumulate} micro-batches on {world_size} devices.",
            f"Choose a batch that is a multiple of {parts}, or change accumulate or devices.",
        )
    if recipe.batch > images:
        raise MiramError(
            f"batch {recipe.batch} exceeds the {images} images of pre-training.", f"Choose a batch of at most {images}."
        )
