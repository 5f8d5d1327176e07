"""What attention, pre-training, input and fine-tuning cost on this machine: tables, exponents, crossovers, figures.

Shapes: N tokens. Times are medians of interleaved calls of one run; kept memory is what autograd saves; peak memory is
the maximum that the allocator gave in addition to the memory in use before. Compare ratios, not absolute times.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from miram.bench.figures import draw_attention, draw_steps
from miram.bench.finetuning import measure_finetuning
from miram.bench.growth import crossovers, exponents
from miram.bench.memory import peak_of
from miram.bench.models import attention_layer, forms_of, forward_and_backward, pretraining_step
from miram.bench.output import write_results
from miram.bench.pipeline import measure_pipeline
from miram.bench.timing import clock, device_slug, interleaved, machine, medians, timed
from miram.bench.training import crops_of_cbis_ddsm, measure_training
from miram.errors import MiramError
from miram.files import atomic_path
from miram.kinds import NAIVE, Precision
from miram.planning.kept import kept_bytes
from miram.planning.memory import USABLE, least_images, memory_of
from miram.recipe import Recipe

TOKENS = (197, 785, 1601, 3137, 6401, 12_545, 16_385)  # squares of 14, 28, 40, 56, 80, 112, 128, and the class token
NAIVE_BYTES = 8e9  # naive attention is measured if its matrices, about three at a time, take no more
SIDES = (112, 224, 448, 896)  # px
TRAINING_SIDES = SIDES[:2]  # those of the paper
GIGABYTES = (4, 8, 12, 24)
MIB = 2**20


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
    """Measure all parts for `methods`; write <machine>.json and its tables.

    `device` is cpu or cuda; a GPU computes in bf16. Returns the path of the JSON. Raises MiramError if no method has
    an attention to measure.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MiramError("There is no CUDA device.", "Run the bench with --device cpu.")
    if not any(recipe.attention for recipe in methods.values()):
        raise MiramError("No method has an attention to measure.", "Add one of objective miram to params.yaml.")
    start = clock()
    torch.manual_seed(0)
    precision: Precision = "bf16-mixed" if device == "cuda" else "32-true"
    methods = {name: replace(recipe, precision=precision, recompute=False) for name, recipe in methods.items()}
    rounds, seconds, sides = scope.rounds, scope.step_seconds, scope.sides
    attention = measure_attention(methods, scope.tokens, rounds, scope.layer_seconds, device)
    results: dict[str, Any] = {
        "command": command,
        "machine": machine(),
        "encoder": asdict(next(iter(methods.values())).encoder),
        "precision": precision,
        "attention": attention,
        "exponents": exponents(attention),
        "crossovers": crossovers(attention),
        "steps": measure_steps(methods, sides, scope.patches[device], rounds, seconds, device),
        "pipeline": measure_pipeline(rounds),
        "finetuning": measure_finetuning(methods, sides[:-1], rounds, seconds, device),
    }
    if device == "cuda":  # a CPU is always busy
        steps = scope.training_steps
        results["training"] = measure_training(methods, TRAINING_SIDES, steps, crops_of_cbis_ddsm(), device)
    results["minutes"] = (clock() - start) / 60
    name = f"efficiency-{device_slug(results['machine'])}"
    path = Path(out_dir) / f"{name}.json"
    write_results(path, results, as_markdown(results))
    draw_attention(results, path.with_name(f"{name}_attention.png"))
    draw_steps(results, path.with_name(f"{name}_steps.png"))
    for part in ("attention", "steps"):
        with atomic_path(path.with_name(f"{name}_{part}.csv")) as temporary:
            pd.DataFrame(results[part]).to_csv(temporary, index=False, lineterminator="\n")
    return path


def measure_attention(
    methods: Mapping[str, Recipe], tokens: tuple[int, ...], rounds: int, budget_seconds: float, device: str
) -> list[dict[str, Any]]:
    """One attention layer, batch 1, of each kind and form, against N: seconds and memory of both passes."""
    own = [(own, own.attention, own.decoder) for own in methods.values() if own.attention and own.decoder]
    rows: list[dict[str, Any]] = []
    for count in tokens:
        layers = {
            (kind, form): _autocast(attention_layer(recipe, form, count, device), recipe.precision, device)
            for recipe, kind, decoder in own
            for form in forms_of(recipe)
            if form != NAIVE or 3 * 4 * decoder.heads * count**2 <= NAIVE_BYTES
        }
        width = own[0][2].width
        x = torch.randn(1, count, width, device=device, requires_grad=True)
        calls = {key: partial(forward_and_backward, layer, x) for key, layer in layers.items()}
        measured = interleaved(calls, rounds, budget_seconds)
        for (kind, form), layer in layers.items():
            times = medians(measured[kind, form])
            rows.append(
                {
                    **{"kind": kind, "form": form, "tokens": count, **times},
                    "kept_mib": kept_bytes(partial(layer, x)) / MIB,
                    "peak_mib": peak_of(calls[kind, form], device) / MIB,
                    "seconds": times["forward"] + times["backward"],
                }
            )
    return rows


def _autocast(layer: Callable, precision: str, device: str) -> Callable:
    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
            return layer(x)

    return call


def measure_steps(
    methods: Mapping[str, Recipe], sides: tuple[int, ...], patches: int, rounds: int, budget_seconds: float, device: str
) -> list[dict[str, Any]]:
    """A whole step of pre-training of each method at each input side, and the batch that the memory model allows."""
    rows = []
    for side in sides:
        for name, own in methods.items():
            recipe = replace(own, side=side)
            images = max(least_images(recipe), patches // recipe.patches)
            if device == "cuda":
                images = min(images, largest_batch(recipe, torch.cuda.mem_get_info()[1] / 1e9))
                if not images:
                    continue
            forward, step = pretraining_step(recipe, images, device)
            calls = medians(interleaved({name: timed(step)}, rounds, budget_seconds)[name])
            memory = memory_of(recipe, images)
            kept = kept_bytes(forward)
            rows.append(
                {
                    "method": name,
                    "kind": own.attention or own.objective,
                    "side": side,
                    "images": images,
                    **calls,
                    "images_per_second": images / calls["seconds"],
                    "kept_mib": kept / MIB,
                    "predicted_kept_mib": memory.kept / MIB,
                    "peak_mib": (memory.weights + memory.moments + peak_of(step, device)) / MIB,
                    "predicted_peak_mib": memory.peak / MIB,
                    **{f"batch_in_{size}_gb": largest_batch(recipe, size) for size in GIGABYTES},
                }
            )
            del forward, step
    return rows


def largest_batch(recipe: Recipe, gigabytes: float) -> int:
    """Images at once, a power of 2, that fit by the memory model; 0: not one."""
    sizes = [2**power for power in range(12, -1, -1) if 2**power >= least_images(recipe)]
    return next((n for n in sizes if memory_of(recipe, n).peak <= USABLE * gigabytes * 1e9), 0)


def as_markdown(results: Mapping[str, Any]) -> str:
    """The results as tables; attention layers are in the CSV and the figure."""
    host = results["machine"]
    growth = pd.DataFrame(results["exponents"]).round(2)
    names = {"seconds": "faster than full: tokens", "kept_mib": "keeps less than full: tokens"}
    crossings = pd.DataFrame(results["crossovers"]).rename(columns=names)
    steps = pd.DataFrame(results["steps"]).drop(columns=["calls", "kind"])
    steps = steps.round({name: 0 for name in map(str, steps) if name.endswith("_mib")}).round(2)
    pipeline = pd.DataFrame(
        [
            {"side": row["side"], **row["images_per_second"], "times_faster": row["times_faster"]}
            for row in results["pipeline"]
        ]
    ).round(1)
    parts = [
        "# What attention, pre-training, input and fine-tuning cost",
        f"`{results['command']}` on {host['gpu'] or host['processor']}, {host['threads']} CPU threads, "
        f"{results['precision']}, torch {host['torch']}, in {results['minutes']:.1f} minutes. Medians of interleaved "
        "calls; spread: (largest - smallest) / median. Compare ratios between machines, not absolute times.",
        "## Growth with the number of tokens: cost ~ tokens^p",
        growth.to_markdown(index=False),
        "## Tokens from which a linear kind costs less than full attention, both fused",
        "Full attention was not measured." if crossings.empty else crossings.to_markdown(index=False),
        "## A step of pre-training",
        "The last columns: images at once that fit into that many GB (1e9 bytes), by the memory model.",
        steps.to_markdown(index=False),
        *_training_text(results),
        "## A step of fine-tuning",
        pd.DataFrame(results["finetuning"]).round(3).to_markdown(index=False),
        "## The input pipeline: images/s",
        pipeline.to_markdown(index=False),
    ]
    return "\n\n".join(parts) + "\n"


def _training_text(results: Mapping[str, Any]) -> list[str]:
    """For a GPU: pre-training with its input pipeline, and the utilisation of the device."""
    if "training" not in results:
        return []
    table = pd.DataFrame(results["training"]).round({"peak_mib": 0, "images_per_second": 1})
    return [
        "## Pre-training with its input pipeline",
        f"On {crops_of_cbis_ddsm():,} synthetic crops, as many as CBIS-DDSM has. utilisation: the share of the time "
        "in which the network computes, from the same steps without input.",
        table.to_markdown(index=False, floatfmt=".3g"),
    ]
