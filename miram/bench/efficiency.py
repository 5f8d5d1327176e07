"""What attention, pre-training, input and fine-tuning cost on this machine: tables, exponents, crossovers, figures.

Shapes: N tokens. Times are medians of interleaved calls of one run; kept memory is what autograd saves; peak memory is
the maximum that the allocator gave in addition to the memory in use before. Compare ratios, not absolute times.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from miram.bench.device_page import section
from miram.bench.figures import draw_attention, draw_steps
from miram.bench.finetuning import measure_finetuning
from miram.bench.growth import crossovers, exponents
from miram.bench.memory import MIB, peak_of
from miram.bench.models import attention_layer, forms_of, forward_and_backward
from miram.bench.output import add, write_results
from miram.bench.pipeline import measure_pipeline
from miram.bench.step import autocast, check_device, mixed, pretraining_step
from miram.bench.timing import clock, device_slug, interleaved, machine, medians, timed
from miram.bench.training import crops_of_cbis_ddsm, measure_training
from miram.errors import MiramError
from miram.files import write_csv
from miram.kinds import NAIVE
from miram.planning.kept import kept_bytes
from miram.planning.memory import USABLE, least_images, memory_of
from miram.recipe import Recipe
from miram.train.device import memory_left

TOKENS = (197, 785, 1601, 3137, 6401, 12_545, 16_385)  # squares of 14, 28, 40, 56, 80, 112, 128, and the class token
NAIVE_BYTES = 8e9  # naive attention is measured if its matrices, about three at a time, take no more and are there
SIDES = (112, 224, 448, 896)  # px
TRAINING_SIDES = SIDES[:2]  # those of the paper
GIGABYTES = (4, 8, 12, 24)


class Scope(NamedTuple):
    """The extent of the measurements."""

    tokens: tuple[int, ...]
    sides: tuple[int, ...]
    patches: dict[str, int]  # of all images of a measured step together, by device
    rounds: int  # calls
    layer_seconds: float  # after which a layer is called no more
    step_seconds: float  # after which a step is called no more
    training_steps: int


COMPLETE = Scope(TOKENS, SIDES, {"cpu": 784, "cuda": 12_544}, 7, 20.0, 10.0, 200)


def bench(methods: Mapping[str, Recipe], out_dir: Path, device: str, command: str, scope: Scope = COMPLETE) -> Path:
    """Measure all parts for `methods`; write <machine>.json and its tables, after each measurement anew.

    `device` is cpu or cuda. Where memory runs out, a row of `faults` says so. Returns the path of the JSON. Raises
    MiramError if `device` is not there or no method has an attention to measure.
    """
    check_device(device)
    if not any(recipe.attention for recipe in methods.values()):
        raise MiramError("No method has an attention to measure.", "Add one of objective miram to params.yaml.")
    start, precision, host = clock(), mixed(device), machine(device)
    torch.manual_seed(0)
    methods = {name: replace(recipe, precision=precision, recompute=False) for name, recipe in methods.items()}
    encoder = asdict(next(iter(methods.values())).encoder)
    results: dict[str, Any] = {"command": command, "machine": host, "encoder": encoder, "precision": precision}
    results |= {"attention": [], "exponents": [], "crossovers": [], "steps": [], "pipeline": [], "finetuning": []}
    results |= {"training": [], "faults": []}
    name = f"efficiency-{device_slug(host)}"
    path = Path(out_dir) / f"{name}.json"
    for part, what, measure in _parts(methods, device, scope):
        add(results, part, what, measure)
        if results["attention"]:
            growth = exponents(results["attention"]), crossovers(results["attention"])
            results["exponents"], results["crossovers"] = growth
        results["minutes"] = (clock() - start) / 60
        write_results(path, results, as_markdown(results))
    for part, draw in {"attention": draw_attention, "steps": draw_steps}.items():
        if results[part]:
            draw(results, path.with_name(f"{name}_{part}.png"))
            write_csv(pd.DataFrame(results[part]), path.with_name(f"{name}_{part}.csv"))
    return path


def _parts(
    methods: Mapping[str, Recipe], device: str, scope: Scope
) -> Iterator[tuple[str, str, Callable[[], list[dict[str, Any]]]]]:
    """The key of the results, what is measured in words, and how."""
    rounds, seconds = scope.rounds, scope.step_seconds
    for tokens in scope.tokens:
        layers = partial(measure_attention, methods, tokens, rounds, scope.layer_seconds, device)
        yield "attention", f"attention layers of {tokens} tokens", layers
    for side in scope.sides:
        for name, own in methods.items():
            step = partial(measure_step, name, replace(own, side=side), scope.patches[device], rounds, seconds, device)
            yield "steps", f"a step of {name} at side {side}", step
    yield "pipeline", "the input pipeline", partial(measure_pipeline, rounds)
    for side in scope.sides[:-1]:
        tuning = partial(measure_finetuning, methods, (side,), rounds, seconds, device)
        yield "finetuning", f"a step of fine-tuning at side {side}", tuning
    if device == "cuda":  # a CPU is always busy
        for side in TRAINING_SIDES:
            trained = methods, (side,), scope.training_steps, crops_of_cbis_ddsm(), device
            yield "training", f"pre-training at side {side}", partial(measure_training, *trained)


def measure_attention(
    methods: Mapping[str, Recipe], tokens: int, rounds: int, budget_seconds: float, device: str
) -> list[dict[str, Any]]:
    """One attention layer, batch 1, of each kind and form: seconds and memory of both passes."""
    own = [(own, own.attention, own.decoder) for own in methods.values() if own.attention and own.decoder]
    most = min(NAIVE_BYTES, USABLE * memory_left(torch.device(device)))
    layers = {
        (kind, form): autocast(device, recipe.precision)(attention_layer(recipe, form, tokens, device).forward)
        for recipe, kind, decoder in own
        for form in forms_of(recipe)
        if form != NAIVE or 3 * 4 * decoder.heads * tokens**2 <= most
    }
    x = torch.randn(1, tokens, own[0][2].width, device=device, requires_grad=True)
    calls = {key: partial(forward_and_backward, layer, x) for key, layer in layers.items()}
    measured = interleaved(calls, rounds, budget_seconds)
    rows = []
    for (kind, form), layer in layers.items():
        times = medians(measured[kind, form])
        rows.append(
            {
                **{"kind": kind, "form": form, "tokens": tokens, **times},
                "kept_mib": kept_bytes(partial(layer, x)) / MIB,
                "peak_mib": peak_of(calls[kind, form], device) / MIB,
                "seconds": times["forward"] + times["backward"],
            }
        )
    return rows


def measure_step(
    name: str, recipe: Recipe, patches: int, rounds: int, budget_seconds: float, device: str
) -> list[dict[str, Any]]:
    """A whole step of pre-training of a method, and the batch that the memory model allows; none if no image fits."""
    images = max(least_images(recipe), patches // recipe.patches)
    if device == "cuda":
        images = min(images, largest_batch(recipe, memory_left(torch.device(device)) / 1e9))
        if not images:
            return []
    step = pretraining_step(recipe, images, device)
    calls = medians(interleaved({name: timed(step)}, rounds, budget_seconds)[name])
    memory = memory_of(recipe, images)
    return [
        {
            "method": name,
            "kind": recipe.attention or recipe.objective,
            "side": recipe.side,
            "images": images,
            **calls,
            "images_per_second": images / calls["seconds"],
            "kept_mib": kept_bytes(step.forward) / MIB,
            "predicted_kept_mib": memory.kept / MIB,
            "peak_mib": (memory.weights + memory.moments + peak_of(step, device)) / MIB,
            "predicted_peak_mib": memory.peak / MIB,
            **{f"batch_in_{size}_gb": largest_batch(recipe, size) for size in GIGABYTES},
        }
    ]


def largest_batch(recipe: Recipe, gigabytes: float) -> int:
    """Images at once, a power of 2, that fit by the memory model; 0: not one."""
    sizes = [2**power for power in range(12, -1, -1) if 2**power >= least_images(recipe)]
    return next((n for n in sizes if memory_of(recipe, n).peak <= USABLE * gigabytes * 1e9), 0)


def as_markdown(results: Mapping[str, Any]) -> str:
    """The results so far as tables; attention layers are in the CSV and the figure."""
    host = results["machine"]
    names = {"seconds": "faster than full: tokens", "kept_mib": "keeps less than full: tokens"}
    steps = pd.DataFrame(results["steps"]).drop(columns=["calls", "kind"], errors="ignore")
    steps = steps.round({name: 0 for name in map(str, steps) if name.endswith("_mib")}).round(2)
    pipeline = [
        {"side": row["side"], **row["images_per_second"], "times_faster": row["times_faster"]}
        for row in results["pipeline"]
    ]
    parts = [
        "# What attention, pre-training, input and fine-tuning cost",
        f"`{results['command']}` on {host['gpu'] or host['processor']}, {host['threads']} CPU threads, "
        f"{results['precision']}, torch {host['torch']}, in {results['minutes']:.1f} minutes. Medians of interleaved "
        "calls; spread: (largest - smallest) / median. Compare ratios between machines, not absolute times.",
        *section(
            "Growth with the number of tokens: cost ~ tokens^p", "", pd.DataFrame(results["exponents"]).round(2), "g"
        ),
        *section(
            "Tokens from which a linear kind costs less than full attention, both fused",
            "",
            pd.DataFrame(results["crossovers"]).rename(columns=names),
        ),
        *section(
            "A step of pre-training",
            "The last columns: images at once that fit into that many GB (1e9 bytes), by the memory model.",
            steps,
            "g",
        ),
        *section(
            "Pre-training with its input pipeline",
            f"On {crops_of_cbis_ddsm():,} synthetic crops, as many as CBIS-DDSM has. utilisation: the share of the "
            "time in which the network computes, from the same steps without input.",
            pd.DataFrame(results["training"]).round({"peak_mib": 0, "images_per_second": 1}),
            ".3g",
        ),
        *section("A step of fine-tuning", "", pd.DataFrame(results["finetuning"]).round(3), "g"),
        *section("The input pipeline: images/s", "", pd.DataFrame(pipeline).round(1), "g"),
        *section("Not measured", "", pd.DataFrame(results["faults"])),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
