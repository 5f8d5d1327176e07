"""What decides on a device, within some minutes: does it compute as the CPU, how fast, in what memory, bound by what.

The parts come in the order of their importance. Each result is written when there is it, so that a bench that is killed
leaves what was measured; what time was too short for is named. Times are medians of interleaved calls in seconds.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from miram.bench.device_page import as_markdown
from miram.bench.finetuning import measure_finetuning
from miram.bench.memory import MIB, peak_of
from miram.bench.models import shrunk
from miram.bench.output import add, write_results
from miram.bench.step import TF32, Step, check_device, loss_of, mixed, pretraining_step
from miram.bench.timing import Phases, clock, device_slug, interleaved, machine, medians, timed
from miram.errors import MiramError
from miram.kinds import OURS
from miram.models.build import build_pretrainer
from miram.planning.memory import fit, least_images, memory_of
from miram.recipe import Recipe
from miram.train.augment import draw_moco_view, draw_view
from miram.train.device import memory_left, prepare_compiler
from miram.train.device_views import render_batch
from miram.train.recipe import random_inputs

STEPS, IMAGES, RATE = 4, 16, 1e-2  # of the training on both devices
BOUNDS = {"32-true": 1e-3, "bf16-mixed": 5e-2}  # of the relative differences from the CPU in float32
ROUNDS = 7
CPU_PATCHES = 784  # of all images of a step together on a CPU, which is slow
CROP_SIDE = 600  # px, as the median of CBIS-DDSM
HOST_BOUND = 0.9  # share of a step's time that starting its operations takes
Hours = Callable[[Path], dict[str, str]]  # of a file of this bench: the hours of a scope, in words


def measure_device(
    methods: Mapping[str, Recipe], hours: Hours, out_dir: Path, device: str, minutes: float, command: str
) -> Path:
    """Measure what `minutes` allow of `methods`; write device-<name>.json and .md, after each result anew.

    Returns the path of the JSON. Raises MiramError if `device` is cuda and there is none.
    """
    check_device(device)
    start = clock()
    host, precision = machine(device), mixed(device)
    encoder = asdict(next(iter(methods.values())).encoder)
    results: dict[str, Any] = {"command": command, "machine": host, "encoder": encoder, "precision": precision}
    results |= {"agreement": [], "steps": [], "finetuning": [], "compiled": [], "faults": [], "left_out": []}
    path = Path(out_dir) / f"device-{device_slug(host)}.json"
    for part, what, measured in _parts(methods, device, lambda: 60 * minutes - (clock() - start)):
        if clock() - start >= 60 * minutes:
            results["left_out"].append(what)
        else:
            add(results, part, what, measured)
        results["minutes"] = (clock() - start) / 60
        write_results(path, results, as_markdown(results))
        if results["steps"]:
            results["hours"] = hours(path)
            write_results(path, results, as_markdown(results))
    return path


def _parts(
    methods: Mapping[str, Recipe], device: str, left: Callable[[], float]
) -> Iterator[tuple[str, str, Callable[[], list[dict[str, Any]]]]]:
    """The key of the results, what is measured in words, and how."""
    for name, recipe in methods.items():
        yield "agreement", f"agreement of {name}", partial(agreement, name, shrunk(recipe), device)
    sides = sorted({recipe.side for recipe in methods.values()})
    recipes = {name: replace(recipe, precision=mixed(device)) for name, recipe in methods.items()}
    tuning = partial(measure_finetuning, recipes, tuple(sides), ROUNDS, left() / 20, device)
    yield "finetuning", "a step of fine-tuning", tuning
    for count, (name, recipe) in enumerate(methods.items()):
        share = left() / (len(methods) - count + 1)
        yield "steps", f"a step of {name}", partial(measure_step, name, recipe, device, share)
    for name, recipe in methods.items():
        yield "compiled", f"{name}, compiled", partial(measure_compiled, name, recipe, device, left())


def agreement(name: str, recipe: Recipe, device: str) -> list[dict[str, Any]]:
    """The same small training on the CPU and on `device`: relative differences of losses and of the weights' change."""
    images = max(IMAGES, least_images(recipe))
    loss, weights = _trained(recipe, images, "cpu", "32-true")
    rows = []
    for precision in {"32-true": 0, mixed(device): 0}:
        own_loss, own_weights = _trained(recipe, images, device, precision)
        found = {
            "loss": float((own_loss - loss).norm() / loss.norm()),
            "weights": float((own_weights - weights).norm() / weights.norm()),
        }
        bound = BOUNDS[precision]
        judged = [found["loss"]]
        if recipe.masked or precision == "32-true":  # BatchNorm of the features of noise, all alike, enlarges rounding
            judged.append(found["weights"])
        agree = max(judged) <= bound
        rows.append({"method": name, "precision": precision, **found, "bound": bound, "agree": agree})
    return rows


def _trained(recipe: Recipe, images: int, device: str, precision: str) -> tuple[Tensor, Tensor]:
    """The losses of a few steps from the same weights, images and masks, and the change of the weights."""
    torch.manual_seed(0)
    model = build_pretrainer(recipe).to(device)
    inputs = [x.to(device) if isinstance(x, Tensor) else x for x in random_inputs(recipe, images, "cpu")]
    trained = [p for p in model.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten() for p in trained])
    optimizer = torch.optim.SGD(trained, lr=RATE)  # Adam makes large steps of gradients that are rounding errors
    losses: list[Tensor] = []

    def loss(own: nn.Module) -> Tensor:
        found = loss_of(own, *inputs)
        losses.append(found.detach())
        return found

    step = Step(model, loss, optimizer, device, precision)
    for _ in range(STEPS):
        step()
    change = torch.cat([p.detach().flatten() for p in trained]) - before
    return torch.stack(losses).float().cpu(), change.cpu()


def measure_step(name: str, recipe: Recipe, device: str, budget_seconds: float) -> list[dict[str, Any]]:
    """A step of pre-training of the method's size in each precision; its parts and memory in that of a training."""
    precision = mixed(device)
    recipe = replace(recipe, precision=precision)
    images = images_at_once(recipe, device)
    step = pretraining_step(recipe, images, device)
    precisions = dict.fromkeys(["32-true"] if device == "cpu" else ["32-true", TF32, precision])
    seconds = _medians({own: timed(replace(step, precision=own)) for own in precisions}, budget_seconds / 2)
    found = interleaved({"parts": step.parts, "host": step.started}, ROUNDS, budget_seconds / 4)
    parts = {part: medians(own)[part] for own in found.values() for part in own[0]}
    parts["views"] = _views_seconds(recipe, images, device)
    memory = memory_of(recipe, images)
    peak = memory.weights + memory.moments + peak_of(step, device)
    return [
        {
            **{"method": name, "form": OURS, "side": recipe.side, "images": images, "seconds": seconds},
            **{"images_per_second": images / (seconds[precision] + parts["views"]), "parts": parts},
            **{"bound": bound_of(seconds[precision], parts, device)},
            **{"peak_mib": peak / MIB, "predicted_peak_mib": memory.peak / MIB},
        }
    ]


def measure_compiled(name: str, recipe: Recipe, device: str, budget_seconds: float) -> list[dict[str, Any]]:
    """How many times faster torch.compile makes that step. Raises MiramError if it does not compile."""
    prepare_compiler()
    recipe = replace(recipe, precision=mixed(device))
    images = images_at_once(recipe, device)
    step = pretraining_step(recipe, images, device)
    compiled = replace(step, model=cast(nn.Module, torch.compile(step.model)))
    forms = {"eager": timed(step), "compiled": timed(compiled)}
    try:
        compiled()  # compiles, which no short budget may take for the time of a step
        seconds = _medians(forms, budget_seconds)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise MiramError(f"torch.compile fails: {reason}", "Leave compute.compile false.") from error
    times_faster = seconds["eager"] / seconds["compiled"]
    return [{"method": name, "side": recipe.side, "images": images, "seconds": seconds, "times_faster": times_faster}]


def _medians(calls: Mapping[str, Callable[[], Phases]], budget_seconds: float) -> dict[str, float]:
    found = interleaved(calls, ROUNDS, budget_seconds / len(calls))
    return {name: medians(own)["seconds"] for name, own in found.items()}


def images_at_once(recipe: Recipe, device: str) -> int:
    """Images of a measured step: on a GPU those of a micro-batch of the preset, or the most that fit by the model."""
    if device == "cpu":
        return max(least_images(recipe), CPU_PATCHES // recipe.patches)
    most = fit(recipe, memory_left(torch.device(device)), devices=1, crops_bytes=0).images
    return most if recipe.accumulate == "auto" else min(recipe.batch // recipe.parts, most)


def _views_seconds(recipe: Recipe, images: int, device: str) -> float:
    """Seconds in which the device makes the views of a step from crops that it holds."""
    random = np.random.default_rng(0)
    crops = torch.from_numpy(random.integers(0, 256, (2, CROP_SIDE, CROP_SIDE), dtype=np.uint8)).to(device)
    chosen = [crops[number % 2] for number in range(images)]
    if recipe.masked:
        draws = [[draw_view(CROP_SIDE, CROP_SIDE, recipe.crop_scale_min, random) for _ in chosen]]
    else:
        of_view = partial(draw_moco_view, CROP_SIDE, CROP_SIDE, recipe.crop_scale_min, random)
        draws = [[of_view(**view) for _ in chosen] for view in recipe.moco_views]

    def make() -> None:
        for of_batch in draws:
            render_batch(chosen, recipe.view_side, of_batch)

    return medians([timed(make)() for _ in range(3)][1:])["seconds"]


def bound_of(seconds: float, parts: Mapping[str, float], device: str) -> str:
    """What takes longest: the views, a part of the step, or on a GPU the host, which starts its operations."""
    if device == "cuda" and parts["host"] > HOST_BOUND * seconds:
        return "host"
    return max(("views", "forward", "backward", "optimiser"), key=lambda part: parts[part])
