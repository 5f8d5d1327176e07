"""Errors of every attention kind in mixed precision and under TF32: `python -m benchmarks.precision`.

Writes results/bench/precision.{json,md}: one layer at the sizes of preset paper, against float64.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from benchmarks import parser_of
from miram import kinds, params
from miram.bench.models import attention_layer
from miram.bench.output import write_results
from miram.bench.rounding import PRECISIONS, SHARPENED, errors, sharpened
from miram.bench.timing import machine
from miram.recipe import Recipe

TOKENS = (197, 785)  # of the second decoder at side 112 and 224
IMAGES = 1


def main() -> None:
    """Measure and write the two files."""
    arguments = parser_of(__doc__).parse_args()
    paper = params.load(arguments.params, "paper")
    recipes = {method.attention: params.recipe_of(paper, name) for name, method in paper.methods.items()}
    results = {
        "command": "python -m benchmarks.precision",
        "machine": machine("cpu"),
        "errors": [row for kind, recipe in recipes.items() if kind for row in compare(kind, recipe)],
    }
    text = as_markdown(results)
    write_results(arguments.out / "precision.json", results, text)
    print(text)


def compare(kind: str, recipe: Recipe) -> list[dict[str, Any]]:
    """The errors of one kind at each of TOKENS, with weights as initialised and with sharp attention."""
    rows = []
    assert recipe.decoder is not None
    for tokens in TOKENS:
        for factor in (1.0, SHARPENED):
            torch.manual_seed(0)
            layer = sharpened(attention_layer(recipe, kinds.OURS, tokens, "cpu"), factor)
            x, weights = torch.randn(2, IMAGES, tokens, recipe.decoder.width)
            place = {"kind": kind, "tokens": tokens, "attention": "as drawn" if factor == 1 else "sharp"}
            rows += [place | row for row in errors(layer, x, weights, PRECISIONS)]
    return rows


def as_markdown(results: Mapping[str, Any]) -> str:
    """One row per kind, length and sharpness; the worst of output and gradients by precision, and all in the JSON."""
    table = pd.DataFrame(results["errors"])
    place = ["kind", "tokens", "attention"]
    wide = {
        part: table.pivot_table(index=place, columns="precision", values=part, sort=False)[list(PRECISIONS)]
        for part in ("output", "input", "parameters")
    }
    titles = {
        "output": "Output",
        "input": "Gradient of the input",
        "parameters": "Gradient of all parameters together",
    }
    parts = [
        "# Attention in mixed precision and under TF32: errors against float64",
        f"`{results['command']}`, torch {results['machine']['torch']}, CPU: one layer of the second decoder of preset "
        f"paper (width 512, 16 heads), {IMAGES} image; relative errors |a - b| / |b|. bf16, fp16: autocast; tf32: "
        "emulated, the inputs of float32 products rounded to 10 bits of mantissa wherever the layer allows it. Sharp: "
        f"the weights of queries and keys times {SHARPENED:g}. Pseudo-inverse and random features are in full float32.",
    ]
    for part, title in titles.items():
        parts += [f"## {title}", wide[part].reset_index().to_markdown(index=False, floatfmt=".1e")]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
