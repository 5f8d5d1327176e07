"""What `miram fit` predicts beside what autograd keeps: `python -m benchmarks.predicted`.

Writes results/bench/predicted.{json,md}: every method of preset paper at three input sides and two numbers of images.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from benchmarks import parser_of
from miram import params
from miram.bench.output import write_results
from miram.bench.step import pretraining_step
from miram.bench.timing import machine
from miram.planning.kept import kept_bytes
from miram.planning.memory import least_images, memory_of
from miram.recipe import Recipe

SIDES = (112, 224, 448)  # px
MIB = 2**20


def main() -> None:
    """Measure and write the two files."""
    arguments = parser_of(__doc__).parse_args()
    paper = params.load(arguments.params, "paper")
    methods = {name: replace(params.recipe_of(paper, name), precision="32-true") for name in paper.methods}
    results = {
        "command": "python -m benchmarks.predicted",
        "machine": machine("cpu"),
        "kept": [row for name, recipe in methods.items() for row in compare(name, recipe)],
    }
    text = as_markdown(results)
    write_results(arguments.out / "predicted.json", results, text)
    print(text)


def compare(method: str, recipe: Recipe) -> list[dict[str, Any]]:
    """Predicted and measured kept activations at each of SIDES, with the fewest images of the method and twice that."""
    rows = []
    for side in SIDES:
        own = replace(recipe, side=side)
        for images in (least_images(own), 2 * least_images(own)):
            step = pretraining_step(own, images, "cpu")
            measured, predicted = kept_bytes(step.forward), memory_of(own, images).kept
            sizes = {"measured_mib": measured / MIB, "predicted_mib": predicted / MIB}
            rows.append(
                {
                    "method": method,
                    "side": side,
                    "images": images,
                    **sizes,
                    "off_percent": 100 * (predicted / measured - 1),
                }
            )
    return rows


def as_markdown(results: Mapping[str, Any]) -> str:
    """The table, and how far the model is off at most."""
    table = pd.DataFrame(results["kept"])
    worst = table["off_percent"].abs().max()
    parts = [
        "# Kept activations: predicted and measured",
        f"`{results['command']}`, torch {results['machine']['torch']}, float32: what autograd keeps from the forward "
        "to the backward pass of a step of pre-training (ViT-B/16, preset paper), counted by saved-tensor hooks, "
        f"beside what `miram fit` predicts. Off by {worst:.1f} % at most.",
        table.to_markdown(index=False, floatfmt=".1f"),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
