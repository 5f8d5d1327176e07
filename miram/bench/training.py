"""Pre-training with its input pipeline, compared with its bare steps: images/s, peak memory, utilisation.

The crops are synthetic, as many as CBIS-DDSM has under protocol strict; utilisation is the share of time that
pre-training spends in steps, estimated from bare steps on images already on the device.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from miram.bench.memory import MIB
from miram.bench.models import forms_of, in_form
from miram.bench.pipeline import write_store
from miram.bench.step import pretraining_step
from miram.bench.timing import interleaved, medians, timed
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.errors import MiramError
from miram.kinds import OURS
from miram.planning.memory import fit, parts_that_fit
from miram.recipe import Recipe
from miram.train.device import memory_left
from miram.train.pretrain import pretrain

BARE_STEPS = 20


def crops_of_cbis_ddsm() -> int:
    """How many crops of CBIS-DDSM pre-training sees under strict, with one background patch per film."""
    lesions = carried_lesions()
    test = lesions.loc[lesions["official_split"] == "test", "patient_id"]
    seen = lesions[~lesions["patient_id"].isin(test)]
    return len(seen) + seen["film_uid"].nunique()


def measure_training(
    methods: Mapping[str, Recipe], sides: tuple[int, ...], steps: int, crops: int, device: str
) -> list[dict[str, Any]]:
    """About `steps` steps of each method at each side, on `crops` crops, linear attention in both of its forms.

    Images at once are the preset's, or on a GPU the most that fit by the memory model. A form that does not fit has a
    `fault` instead of its measurements.
    """
    rows = []
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder), crops)
        for side in sides:
            for name, own in methods.items():
                recipe = dataclasses.replace(own, side=side)
                for form in forms_of(recipe) if recipe.backend else (OURS,):
                    row = {"method": name, "form": form, "side": side}
                    try:
                        images = _at_once(recipe, store[0].stat().st_size, device)
                        row |= {"images": images, **_measured(in_form(recipe, form), images, store, steps, device)}
                    except MiramError as error:
                        row |= {"images_per_second": None, "fault": error.message}
                    rows.append(row)
    return rows


def _at_once(recipe: Recipe, crops_bytes: int, device: str) -> int:
    own = recipe.batch // recipe.fewest_parts
    free = memory_left(torch.device(device))
    return min(own, fit(recipe, free, devices=1, crops_bytes=crops_bytes).images)


def _measured(recipe: Recipe, images: int, store: tuple[Path, Path], steps: int, device: str) -> dict[str, float]:
    ids = pd.read_csv(store[1], dtype=str)["image_id"].tolist()
    epochs = max(2, round(steps / (len(ids) // images)))  # the first warms up
    whole = dataclasses.replace(recipe, batch=images, accumulate=1, epochs=epochs, warmup_epochs=epochs)
    with TemporaryDirectory() as out:
        facts = pretrain(
            Path(out),
            *store,
            ids,
            ids[:1],
            whole,
            checkpoint_every_epochs=epochs,
            accelerator=device,
            threads=torch.get_num_threads(),
            devices=1,
            divide=parts_that_fit,
        )
        speed = median(pd.read_csv(Path(out, "log.csv"))["images_per_second"][1:])
    step = pretraining_step(recipe, images, device)
    bare = medians(interleaved({"step": timed(step)}, min(steps, BARE_STEPS), float("inf"))["step"])["seconds"]
    return {
        "steps": facts["steps"],
        "images_per_second": speed,
        "epochs_per_minute": 60 * speed / len(ids),
        "peak_mib": facts["peak_memory_bytes"] / MIB,
        "utilisation": speed * bare / images,
    }
