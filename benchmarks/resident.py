"""Whether a step beyond the paper's resolution fits into 8 GB, and full attention's: `python -m benchmarks.resident`.

Writes results/bench/resident.{json,md}: input 448 px, reconstructed at 896, one image, ViT-B/16, each form in a process
of its own, by the largest memory that was resident in it. The next size, 896 to 1,792 px, is predicted alone.
"""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pandas as pd
import torch

from benchmarks import parser_of
from miram import params
from miram.bench.output import write_results
from miram.bench.step import pretraining_step
from miram.bench.timing import clock, machine
from miram.planning.memory import FULL, memory_of
from miram.recipe import Recipe
from miram.train.device import peak_memory

MEASURED_SIDE, PREDICTED_SIDE = 448, 896  # px
FORMS = (("miram-nystrom", "fused"), ("miram-full", "fused"), ("miram-full", "naive"))
GB = 1e9


def main() -> None:
    """Measure and write the two files."""
    arguments = parser_of(__doc__, "paper-896").parse_args()
    preset = params.load(arguments.params, "paper-896")
    rows = []
    for side in (MEASURED_SIDE, PREDICTED_SIDE):
        for method, form in FORMS:
            for recompute in (False, True):
                own = replace(params.recipe_of(preset, method), side=side, recompute=recompute)
                row = {"method": method, "form": form, "side": side, "recompute": recompute}
                rows.append(row | predicted(own, form) | (in_a_process(own, form) if side == MEASURED_SIDE else {}))
    results = {"command": "python -m benchmarks.resident", "machine": machine("cpu"), "resident": rows}
    text = as_markdown(results)
    write_results(arguments.out / "resident.json", results, text)
    print(text)


def predicted(recipe: Recipe, form: str) -> dict[str, float]:
    """GB of tensors at the peak by the memory model.

    With `form` naive each block keeps a matrix of all pairs of tokens for each head; the backward pass makes two more.
    """
    tokens = 1 + recipe.highres.scale**2 * recipe.patches
    blocks = 1 if recipe.recompute else recipe.decoder.depth
    matrix = FULL * recipe.decoder.heads * tokens**2
    extra = (blocks + 2) * matrix if form == "naive" else 0
    return {"predicted_gb": (memory_of(recipe, 1).peak + extra) / GB}


def in_a_process(recipe: Recipe, form: str) -> dict[str, float]:
    """`measure` in a fresh process, so that no other step's memory counts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, recipe, form).result()


def measure(recipe: Recipe, form: str) -> dict[str, float]:
    """Seconds of the second step with one image, and the largest resident memory so far; before it, of torch alone."""
    torch.manual_seed(0)
    before = peak_memory(torch.device("cpu"))[0]
    step = pretraining_step(recipe, 1, "cpu", naive=form == "naive")
    step()
    start = clock()
    step()
    return {
        "seconds": clock() - start,
        "before_gb": before / GB,
        "resident_gb": peak_memory(torch.device("cpu"))[0] / GB,
    }


def as_markdown(results: Mapping[str, Any]) -> str:
    """The table; what is predicted alone has no measured columns."""
    host, table = results["machine"], pd.DataFrame(results["resident"])
    table["recompute"] = table["recompute"].map({False: "no", True: "yes"})
    parts = [
        "# A step of pre-training beyond the paper's resolution",
        f"`{results['command']}` on {host['processor']}, {host['threads']} threads, torch {host['torch']}, float32, "
        "one image, reconstructed at twice the side. resident_gb: the most that the process held, before_gb of it with "
        "the code alone; predicted_gb: tensors by the memory model of `miram fit`, for `naive` with the matrices of "
        "all pairs of tokens. GB are 1e9 bytes. Rows without resident_gb are predicted, not measured.",
        table.astype(object).where(table.notna(), None).to_markdown(index=False, floatfmt=".2f", missingval="-"),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
