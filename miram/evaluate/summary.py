"""The results in the two forms that compare runs of the workflow: a tree of numbers, and curves."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from miram.files import atomic_path, write_csv
from miram.predictions import TEST

CURVE_COLUMNS = ["run", "epoch", "loss"]


def write_summary(metrics_csv: Path, path: Path) -> None:
    """Write the mean over seeds of every test metric as JSON, nested by the key columns of `metrics_csv`."""
    metrics = pd.read_csv(metrics_csv)
    names = [*metrics.columns[: metrics.columns.get_loc("seed")], "metric"]  # the fields before the seed, in order
    tested = metrics[(metrics["split"] == TEST) & metrics["seed"].notna()].dropna(subset="value")
    tree: dict = {}
    means = tested.groupby(names)["value"].mean()
    for (*groups, metric), value in zip(means.index.tolist(), means, strict=True):
        node = tree
        for name in groups:
            node = node.setdefault(name, {})
        node[metric] = round(value, 6)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_curves(logs: Mapping[str, Path], path: Path) -> None:
    """Write the loss of every epoch of each pre-training, from its log.csv, as one table; the keys name the runs."""
    curves = [pd.read_csv(log, usecols=["epoch", "loss"]).assign(run=run) for run, log in logs.items()]
    table = pd.concat(curves) if curves else pd.DataFrame(columns=CURVE_COLUMNS)
    write_csv(table[CURVE_COLUMNS], path, float_format="%.6g")
