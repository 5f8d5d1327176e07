"""The page to read of what was measured of a device."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def as_markdown(results: Mapping[str, Any]) -> str:
    """The results so far as tables."""
    host, steps = results["machine"], results["steps"]
    left_out = "; ".join(results["left_out"]) or "nothing"
    parts = [
        f"# {host['gpu'] or host['processor']}",
        f"`{results['command']}`, {host['threads']} CPU threads, torch {host['torch']}, Python {host['python']}, in "
        f"{results['minutes']:.1f} minutes. Medians of interleaved calls. Time was too short for: {left_out}.",
        *section(
            "The same small training on the CPU in float32 and here",
            "Relative differences of the losses of all steps, and of the change of the weights by them.",
            results["agreement"],
        ),
        *section("A step of pre-training in each precision, ms", "", [_ms(row, "seconds") for row in steps]),
        *section(
            "Peak memory, MiB",
            "",
            [{**_place(row), "predicted": row["predicted_peak_mib"], "here": row["peak_mib"]} for row in steps],
        ),
        *section(
            f"What bounds a step in {results['precision']}, ms",
            "host: until all operations are started. views: made from crops that the device holds.",
            [{**_ms(row, "parts"), "bound": row["bound"]} for row in steps],
        ),
        *section("A step of fine-tuning", "", results["finetuning"]),
        *section(
            "With torch.compile",
            "",
            [{**_place(row), "times faster": row["times_faster"]} for row in results["compiled"]],
        ),
        *section("Not measured", "", results["faults"]),
        *(f"Hours of the headline on {device}: {words}." for device, words in results.get("hours", {}).items()),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _place(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {name: measured[name] for name in ("method", "side", "images")}


def _ms(measured: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {**_place(measured), **{name: 1e3 * value for name, value in measured[part].items()}}


def section(title: str, text: str, rows: list[dict[str, Any]] | pd.DataFrame, digits: str = ".4g") -> list[str]:
    """A table below its title; nothing without rows."""
    table = pd.DataFrame(rows)
    return [] if table.empty else [f"## {title}", text, table.to_markdown(index=False, floatfmt=digits)]
