"""Hours of the complete table: by measured rates before it starts, beside what finished trainings took.

A rate is images/s of a whole training step, from a file of `miram bench` on the device in question.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

PRETRAINED = 2781  # images of CBIS-DDSM that pre-training sees under the strict protocol, backgrounds apart
FINETUNED = 1947  # of which seven in ten are fine-tuned on


def as_table(
    pretrainings: Mapping[str, dict[str, Any]],
    started: Mapping[str, Sequence[Path]],
    tuned: Sequence[Path],
    epochs: int,
    benches: Iterable[Path],
) -> str:
    """Hours by the rates of each device that was measured, and by the records `started` (a method's) and `tuned`."""
    sides = {name: values["side"] for name, values in pretrainings.items()}
    images = {
        name: PRETRAINED // values["batch"] * values["batch"] * values["epochs"]
        for name, values in pretrainings.items()
    }
    rows = []
    for path in benches:
        measured = json.loads(path.read_text())
        if "finetuning" not in measured:
            continue
        device = f"{measured['machine']['gpu'] or measured['machine']['processor']} ({path.stem})"
        speeds = {(row["method"], row["side"]): row["images_per_second"] for row in measured["steps"]}
        tuning = {row["side"]: row["images_per_second"] for row in measured["finetuning"]}
        for name, side in sides.items():
            runs, speed = len(started[name]), speeds.get((name, side))
            rows.append(_row(device, f"pre-training {name}", side, runs, images[name], speed))
        for side in sorted(set(sides.values())):
            rows.append(_row(device, "one fine-tuning", side, 1, FINETUNED * epochs, tuning.get(side)))
    parts = [
        pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f", missingval="not measured")
        if rows
        else "No rates were measured: run `miram bench` on the device.",
        f"Fine-tunings of this preset: {len(tuned)}, each at its method's side.",
        *(_truth(f"pre-training {name}", records) for name, records in started.items()),
        _truth("fine-tuning", tuned),
    ]
    return "\n\n".join(filter(None, parts))


def _row(device: str, what: str, side: int, runs: int, images: int, speed: float | None) -> dict[str, Any]:
    hours = runs * images / speed / 3600 if speed else None
    return {"device": device, "what": what, "side": side, "runs": runs, "images/s": speed, "hours": hours}


def _truth(what: str, records: Sequence[Path]) -> str:
    """What the finished trainings among `records` took; nothing where there is none."""
    facts = [json.loads(path.read_text())["facts"] for path in records if path.exists()]
    if not facts:
        return ""
    hours = [fact["seconds"] / 3600 for fact in facts]
    device = ", ".join(sorted({fact["device"] for fact in facts}))
    done = f"{len(facts)} of {len(records)} finished on {device}"
    return f"Truth, {what}: {done}, {sum(hours):.3f} h, mean {mean(hours):.3f} h."
