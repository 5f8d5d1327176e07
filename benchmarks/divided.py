"""What a divided batch costs MoCo-v3: `python -m benchmarks.divided`, on an idle machine.

Writes results/bench/divided.{json,md}: a whole step at the sizes of preset paper, with its batch whole and in parts
that are encoded again in the backward pass. Ratios of interleaved calls in one run, medians.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from benchmarks import parser_of
from miram import params
from miram.bench.memory import peak_of
from miram.bench.output import write_results
from miram.bench.step import pretraining_step
from miram.bench.timing import interleaved, machine, medians, timed
from miram.recipe import Recipe

IMAGES, PARTS, ROUNDS = 8, (1, 2, 4), 5
MIB = 2**20


def main() -> None:
    """Measure and write the two files."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    recipe = params.recipe_of(params.load(arguments.params, "paper"), "mocov3")
    results = {
        "command": f"python -m benchmarks.divided --device {arguments.device} --images {arguments.images}",
        "machine": machine(arguments.device),
        "side": recipe.side,
        "images": arguments.images,
        "steps": measure(recipe, arguments.images, arguments.device),
    }
    name = "divided.json" if arguments.device == "cpu" else f"divided-{arguments.device}.json"
    write_results(arguments.out / name, results, as_markdown(results))
    print(as_markdown(results))


def measure(recipe: Recipe, images: int, device: str) -> list[dict[str, Any]]:
    """One row per number of parts: seconds, and what a step allocates at its peak, each beside the undivided batch."""
    steps = {parts: pretraining_step(recipe, images, device, accumulate=parts) for parts in PARTS}
    calls = interleaved({parts: timed(step) for parts, step in steps.items()}, ROUNDS, float("inf"))
    rows = []
    for parts, step in steps.items():
        own = medians(calls[parts])
        peak = peak_of(step, device) / MIB
        first = rows[0] if rows else {"seconds": own["seconds"], "peak_mib": peak}
        ratios = {"time_ratio": own["seconds"] / first["seconds"], "peak_ratio": peak / first["peak_mib"]}
        rows.append({"parts": parts, "seconds": own["seconds"], "spread": own["spread"], "peak_mib": peak, **ratios})
    return rows


def as_markdown(results: Mapping[str, Any]) -> str:
    """The table, and where it was measured."""
    host = results["machine"]
    parts = [
        "# What a divided batch costs MoCo-v3",
        f"`{results['command']}` on {host['gpu'] or host['processor']}, {host['threads']} threads, torch "
        f"{host['torch']}: a step of preset paper at side {results['side']}, {results['images']} images, in float32; "
        "medians of interleaved calls; spread: (largest - smallest) / median. peak_mib: what a step allocates beside "
        "weights and moments. Ratios travel, absolute times do not.",
        pd.DataFrame(results["steps"]).to_markdown(index=False, floatfmt=("g", ".2f", ".2f", ".0f", ".2f", ".2f")),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
