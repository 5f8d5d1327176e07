"""The model card of shared weights: what they are, what they were made from and how well they did, from the records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miram.evaluate.markdown import aligned, measured, paragraph
from miram.evaluate.pretrainings import extent
from miram.files import atomic_path
from miram.predictions import TEST
from miram.report.about import METRICS, NOTHING

DATA = {  # what was learnt from, and its terms
    "demo": "a phantom archive: synthetic lesions in the tissue of 8 films of CBIS-DDSM (CC BY 3.0). The weights are a "
    "demonstration and of no use otherwise",
    "cbis-ddsm": "lesion crops of CBIS-DDSM (CC BY 3.0, doi 10.7937/k9/tcia.2016.7o02s9cy)",
    "own": "images of the laboratory that trained it, whose terms it knows",
}
LIMITS = (
    "Research software, not a medical device: do not use it to decide anything about a patient.",
    "It has seen crops of lesions of the data above alone; on other machines, populations and views it is unknown.",
    "The intervals tell what other patients of the same data would give, and nothing about other data: measure it on "
    "your own cases first.",
)
LICENCE = (
    "The software that made the weights is Apache-2.0. Whoever shares the weights decides their licence, within the "
    "terms of the data."
)
FRONT = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
license: other
tags: [mammography, vit, miram]
---
"""
USE = """\
```python
import timm  # or, by its file alone: timm.create_model("{base}", num_classes=0, checkpoint_path=..., **model_args)
model = timm.create_model("local-dir:{folder}/timm", pretrained=True)

from transformers import ViTModel
model = ViTModel.from_pretrained("{folder}/transformers", add_pooling_layer=False)
```"""


def write_card(
    path: Path,
    *,
    method: str,
    protocol: str,
    data: str,
    base: str,
    architecture: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    record: Mapping[str, Any],
    metrics: pd.DataFrame | None,
    confidence: float,
) -> None:
    """Write the card; `data` is a key of DATA, `record` that of the pre-training, `metrics` the rows of metrics.csv.

    `metrics` are those of the protocol, of the headline's task and mode; None where they are not measured yet.
    """
    values = {**record["values"]}
    values["accumulate"] = record["facts"].get("accumulate", values["accumulate"])  # what was taken for "auto"
    shown = ("objective", "attention", "epochs", "batch", "accumulate", "seed", "precision")
    recipe = {name: values[name] for name in shown if values.get(name) is not None}
    inputs = (
        f"Grey crops of a lesion, black 0 and white 255, resized to {architecture['side']} px (bicubic), repeated to "
        f"{architecture['channels']} channels, divided by 255, less {list(mean)}, divided by {list(std)}."
    )
    parts = [
        f"{FRONT}\n# {method}: a ViT encoder for lesions in mammograms",
        f"**{LIMITS[0]}**",
        f"## What it is\n\n{_items(architecture)}\n\n{paragraph(inputs)}",
        USE.format(folder=path.parent, base=base),
        f"## What made it\n\n* learnt from: {DATA[data]}\n* protocol: {protocol}, training and validation lesions only",
        _items(recipe),
        _items({"commit": (record.get("git") or {}).get("commit"), "code": record["code"], "lock": record["lock"]}),
        "## How well it did",
        _figures(metrics, method, confidence),
        "## Limits\n\n" + "\n".join(f"* {limit}" for limit in LIMITS),
        f"## Licence\n\n{paragraph(LICENCE)}",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _items(values: Mapping[str, Any]) -> str:
    return "\n".join(f"* {name}: {NOTHING if value is None else value}" for name, value in values.items())


def _figures(metrics: pd.DataFrame | None, method: str, confidence: float) -> str:
    """The test metrics of the method that starts from these weights, mean over its seeds, with intervals."""
    if metrics is None:
        return "Not measured: the results of its run are missing."
    own = metrics[(metrics["method"] == method) & metrics["seed"].isna() & (metrics["split"] == TEST)]
    found = {row["metric"]: row for row in own[own["value"].notna()].to_dict("records")}
    if not found:
        return "Not measured: no classifier that starts from it has finished."
    rows = [
        {"metric": heading, f"%, with {confidence:.0%} interval": measured(found[name])}
        for name, (heading, _) in METRICS.items()
        if name in found
    ]
    reach = extent(metrics)
    task, mode, lesions = (next(iter(found.values()))[name] for name in ("task", "mode", "lesions"))
    told = f"Task {task}, mode {mode}, {lesions:.0f} test lesions, mean over seeds, with intervals. {reach}"
    return f"{paragraph(told)}\n\n{aligned(rows)}"
