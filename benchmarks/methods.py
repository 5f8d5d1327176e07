"""What our methods cost beside their references: `python -m benchmarks.methods`, on an idle machine.

Writes results/bench/methods.{json,md}: (a) a whole step of pre-training, (b) one attention layer against the number of
tokens, (c) the input pipeline, and which targets hold. Ratios of interleaved calls in one run, medians; kept memory is
what autograd saves.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch

from benchmarks import parser_of
from benchmarks.mocov3_plain import straightforward_loss
from miram import params
from miram.bench.growth import crossovers
from miram.bench.models import attention_layer, forward_and_backward, in_form
from miram.bench.output import write_results
from miram.bench.pipeline import CROP_SIDE, CROPS, measure_pipeline
from miram.bench.step import loss_of, pretraining_step
from miram.bench.timing import interleaved, machine, medians, timed
from miram.planning.kept import kept_bytes
from miram.recipe import Recipe

TOKENS = (197, 785, 3137, 12_545)
STEP_SIDE, STEP_IMAGES = 112, 16
STEP_ROUNDS, LAYER_ROUNDS, LAYER_BUDGET = 9, 11, 25.0  # calls; seconds after which a layer is called no more
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
MIB = 2**20
TARGETS = {  # of the project's plan: quantity -> (what, at most or at least)
    "step, kept: miram-nystrom / package": ("at most", 0.48),
    "step, kept: miram-performer / package": ("at most", 0.72),
    "step, kept: miram-linformer / package": ("at most", 0.78),
    "step, time: miram-nystrom / package": ("at most", 0.80),
    "step, time: miram-performer / package": ("at most", 0.86),
    "step, time: mocov3 / straightforward": ("at most", 0.88),
    "layer of 12545 tokens, kept: linformer / full": ("at most", 0.52),
    "layer of 12545 tokens, kept: performer / full": ("at most", 1.25),
    "layer of 12545 tokens, kept: nystrom / full": ("at most", 1.25),
    "layer of 12545 tokens, time: full / linformer": ("at least", 20.0),
    "layer of 12545 tokens, time: full / performer": ("at least", 9.0),
    "layer of 12545 tokens, time: full / nystrom": ("at least", 12.0),
    "3137 -> 12545 tokens, time: linformer": ("at most", 4.3),
    "3137 -> 12545 tokens, time: performer": ("at most", 4.3),
    "3137 -> 12545 tokens, time: nystrom": ("at most", 4.3),
    "3137 -> 12545 tokens, kept: linformer": ("at most", 4.3),
    "3137 -> 12545 tokens, kept: performer": ("at most", 4.3),
    "3137 -> 12545 tokens, kept: nystrom": ("at most", 4.3),
    "input at side 112: store / PNG": ("at least", 6.0),
    "input at side 224: store / PNG": ("at least", 5.0),
}


def main() -> None:
    """Run all three parts and write the two files."""
    arguments = parser_of(__doc__).parse_args()
    torch.manual_seed(0)
    paper = params.load(arguments.params, "paper")
    methods = {name: replace(params.recipe_of(paper, name), side=STEP_SIDE) for name in paper.methods}
    layers = measure_layers(methods)
    results = {
        "command": "python -m benchmarks.methods",
        "machine": machine("cpu"),
        "steps": measure_steps(methods),
        "layers": layers,
        "crossovers": crossovers(layers),
        "pipeline": measure_pipeline(LAYER_ROUNDS),
    }
    results["targets"] = judged(results)
    text = as_markdown(results)
    write_results(arguments.out / "methods.json", results, text)
    print(text)


def measure_steps(methods: Mapping[str, Recipe]) -> list[dict[str, Any]]:
    """Forward, backward and optimiser in two forms each: ours, and the reference recipe with an AdamW not fused."""
    rows = []
    for method, recipe in methods.items():
        if method == "mae" or recipe.attention == "full":
            continue
        reference = "straightforward" if method == "mocov3" else "package"
        forms = {
            "ours": pretraining_step(recipe, STEP_IMAGES, "cpu"),
            reference: pretraining_step(
                in_form(recipe, reference),
                STEP_IMAGES,
                "cpu",
                loss=straightforward_loss if method == "mocov3" else loss_of,
                fused_adamw=False,
            ),
        }
        kept = {form: kept_bytes(step.forward) / MIB for form, step in forms.items()}
        calls = interleaved({form: timed(step) for form, step in forms.items()}, STEP_ROUNDS, float("inf"))
        seconds = {form: medians(own)["seconds"] for form, own in calls.items()}
        products = products_share(forms["ours"]) * seconds["ours"]
        rows.append(
            {
                "method": method,
                "reference": reference,
                "seconds": seconds["ours"],
                "reference_seconds": seconds[reference],
                "time_ratio": seconds["ours"] / seconds[reference],
                "products_ratio": products / seconds[reference],
                "kept_mib": kept["ours"],
                "reference_kept_mib": kept[reference],
                "kept_ratio": kept["ours"] / kept[reference],
            }
        )
    return rows


def products_share(step: Callable[[], None]) -> float:
    """The share of a step's time that goes into products of matrices, which every form of a method has to do."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        step()
    own = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(own.get(name, 0.0) for name in PRODUCTS) / sum(own.values())


def measure_layers(methods: Mapping[str, Recipe]) -> list[dict[str, Any]]:
    """One attention of the second decoder, forward and backward, batch 1: all kinds and numbers of tokens in turn."""
    layers, calls = {}, {}
    for recipe in (recipe for recipe in methods.values() if recipe.objective == "miram"):
        for tokens in TOKENS:
            x = torch.randn(1, tokens, recipe.decoder.width, requires_grad=True)
            key = recipe.attention, tokens
            layers[key] = partial(attention_layer(recipe, "fused", tokens, "cpu"), x)
            calls[key] = partial(forward_and_backward, layers[key].func, x)
    measured = {key: medians(own) for key, own in interleaved(calls, LAYER_ROUNDS, LAYER_BUDGET).items()}
    seconds = {key: own["forward"] + own["backward"] for key, own in measured.items()}
    return [
        {
            "kind": kind,
            "form": "fused",
            "tokens": tokens,
            "seconds": seconds[kind, tokens],
            "spread": measured[kind, tokens]["spread"],
            "calls": measured[kind, tokens]["calls"],
            "times_faster_than_full": seconds["full", tokens] / seconds[kind, tokens],
            "kept_mib": kept_bytes(layer) / MIB,
        }
        for (kind, tokens), layer in layers.items()
    ]


def judged(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target beside what was measured."""
    measured = {}
    for row in results["steps"]:
        for part in ("kept", "time"):
            measured[f"step, {part}: {row['method']} / {row['reference']}"] = row[f"{part}_ratio"]
    layers = {(row["kind"], row["tokens"]): row for row in results["layers"]}
    middle, largest = TOKENS[-2:]
    for kind in dict.fromkeys(kind for kind, _ in layers):
        small, large, full = layers[kind, middle], layers[kind, largest], layers["full", largest]
        measured[f"layer of {largest} tokens, kept: {kind} / full"] = large["kept_mib"] / full["kept_mib"]
        measured[f"layer of {largest} tokens, time: full / {kind}"] = full["seconds"] / large["seconds"]
        for part, name in (("time", "seconds"), ("kept", "kept_mib")):
            measured[f"{middle} -> {largest} tokens, {part}: {kind}"] = large[name] / small[name]
    for row in results["pipeline"]:
        measured[f"input at side {row['side']}: store / PNG"] = row["times_faster"]
    return [
        {
            "quantity": quantity,
            "target": f"{bound} {limit}",
            "measured": measured[quantity],
            "holds": measured[quantity] <= limit if bound == "at most" else measured[quantity] >= limit,
        }
        for quantity, (bound, limit) in TARGETS.items()
    ]


def as_markdown(results: dict[str, Any]) -> str:
    """The tables, with what was measured and where."""
    host = results["machine"]
    targets = pd.DataFrame(results["targets"]).replace({True: "yes", False: "NO"}).round({"measured": 2})
    steps = pd.DataFrame(results["steps"]).round({"seconds": 2, "reference_seconds": 2, "time_ratio": 2})
    steps = steps.round({"products_ratio": 2})
    steps = steps.round({"kept_mib": 0, "reference_kept_mib": 0, "kept_ratio": 2})
    layers = pd.DataFrame(results["layers"]).drop(columns="form")
    layers = layers.round({"seconds": 4, "spread": 2, "times_faster_than_full": 2, "kept_mib": 1})
    crossings = pd.DataFrame(results["crossovers"]).drop(columns="form")
    crossings.columns = ["kind", "faster than full: tokens", "keeps less than full: tokens"]
    pipeline = pd.DataFrame(
        [{"side": r["side"], **r["images_per_second"], "times_faster": r["times_faster"]} for r in results["pipeline"]]
    ).round(1)
    parts = [
        "# What the methods cost beside their references",
        f"`{results['command']}` on {host['processor']}, {host['threads']} threads, torch {host['torch']}; medians of "
        "interleaved calls. Ratios travel, absolute times do not.",
        "## Targets",
        targets.to_markdown(index=False),
        f"## A step of pre-training: ViT-B/16, side {STEP_SIDE}, batch {STEP_IMAGES}",
        "Reference: the libraries' own attention (MoCo-v3: its straightforward form) with AdamW that is not fused. "
        "products_ratio: what our step's products of matrices take of the reference's whole time; no form does without "
        "them, so that no time_ratio can fall below it.",
        steps.to_markdown(index=False),
        "## One attention layer of the second decoder, batch 1, forward and backward",
        "`full` is scaled_dot_product_attention; the others are ours (`fused`). spread: (largest - smallest) / median.",
        layers.to_markdown(index=False),
        "From how many tokens on a kind costs less, between the measured numbers by a line through the logarithms:",
        crossings.to_markdown(index=False),
        f"## The input pipeline: images/s, {CROPS} crops of {CROP_SIDE} px",
        pipeline.to_markdown(index=False),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
