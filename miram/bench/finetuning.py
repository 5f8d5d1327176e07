"""What a step of fine-tuning costs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from miram.bench.step import finetuning_step
from miram.bench.timing import interleaved, medians, timed
from miram.recipe import Recipe

FINETUNING_IMAGES = {"cpu": 8, "cuda": 32}  # fewer would not keep a GPU busy


def measure_finetuning(
    methods: Mapping[str, Recipe], sides: tuple[int, ...], rounds: int, budget_seconds: float, device: str
) -> list[dict[str, Any]]:
    """A training step of the classifier: the same for all methods of one encoder."""
    rows = []
    for side in sides:
        recipe = replace(next(iter(methods.values())), side=side)
        images = FINETUNING_IMAGES[device]
        step = finetuning_step(recipe, images, device)
        calls = medians(interleaved({"step": timed(step)}, rounds, budget_seconds)["step"])
        rows.append({"side": side, "images": images, **calls, "images_per_second": images / calls["seconds"]})
    return rows
