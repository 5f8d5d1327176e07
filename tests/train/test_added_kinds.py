"""An attention kind and an objective, each added by one file and its entry, work everywhere."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import pandas as pd
import pytest

from miram import kinds, params
from miram.bench import efficiency
from miram.errors import ParameterError
from miram.looks import looks
from miram.planning.doctor import check_memory
from miram.planning.memory import as_table, parts_that_fit
from miram.report import charts
from miram.train.pretrain import pretrain

SHIPPED = Path(__file__).parents[2] / "params.yaml"
METHODS = """methods:
  averaged: {objective: miram, attention: average, options: {rank: 4}}
  by-absolute-errors: {objective: absolute}
"""


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """The demo's parameters, with a method of each."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "added")
    for name, registry in (("average", kinds.ATTENTION), ("absolute", kinds.OBJECTIVES)):
        monkeypatch.setitem(registry, name, importlib.import_module(name).ENTRY)
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.read_text().replace("methods: #", METHODS + "  #", 1))
    return params.load(file)


@pytest.fixture
def methods(chosen):
    """Their recipes."""
    names = ("averaged", "by-absolute-errors")
    return {name: params.recipe_of(chosen, name) for name in names}


def test_they_are_read_with_their_own_options(chosen, methods, tmp_path):
    assert methods["averaged"].options == {"rank": 4} and methods["averaged"].highres
    values = params.stage_values(chosen, "pretrain", "strict", "by-absolute-errors", 0)
    assert "attention" not in values and methods["by-absolute-errors"].mask_ratio == 0.75
    file = tmp_path / "params.yaml"
    for old, new, named in (
        ("{rank: 4}", "{ranks: 4}", "averaged.options.ranks"),
        ("options: {rank: 4}", "backend: fused, options: {rank: 4}", "attention average has no choice"),
        ("attention: average", "attention: mean", "'average'"),
    ):
        file.write_text(SHIPPED.read_text().replace("methods: #", METHODS.replace(old, new) + "  #", 1))
        with pytest.raises(ParameterError, match=named):
            params.load(file)


def test_their_memory_is_predicted_and_the_doctor_looks_at_it(methods):
    table = as_table(methods, 24e9, devices=1, crops_bytes=0)
    assert table.count("averaged") == table.count("by-absolute-errors") == 2 and "does not fit" not in table
    assert check_memory(methods, 1, 24 * 10**9, crops_bytes=0).level == "ok"
    assert check_memory(methods, 1, 10**6, crops_bytes=0).level == "stop"


def test_they_are_measured_and_drawn_in_the_colours_of_their_entries(chosen, methods, tmp_path, monkeypatch):
    scope = efficiency.Scope((10, 37), (16, 32), {"cpu": 16}, 1, 0.0, 0.0, 2)
    monkeypatch.setattr(efficiency, "measure_pipeline", lambda rounds: [])
    monkeypatch.setattr(efficiency, "as_markdown", lambda results: "")
    results = json.loads(efficiency.bench(methods, tmp_path, "cpu", "", scope).read_text())
    layers, steps = pd.DataFrame(results["attention"]), pd.DataFrame(results["steps"])
    assert set(layers["kind"]) == {"average"} and set(layers["form"]) == {"fused"}
    assert set(steps["kind"]) == {"average", "absolute"}
    assert (steps["predicted_kept_mib"] / steps["kept_mib"] - 1).abs().max() < 0.1
    (line,) = charts.growth("", layers, "kept_mib").axes[0].lines
    assert matplotlib.colors.same_color(line.get_color(), "#332288") and line.get_marker() == "p"
    look = looks(params.kinds_of(chosen))
    assert (look["averaged"].colour, look["by-absolute-errors"].colour) == ("#332288", "#117733")


@pytest.mark.parametrize("name", ["averaged", "by-absolute-errors"])
def test_they_are_pretrained(methods, name, tmp_path, store_paths, lesion_ids):
    few = {"side": 16, "batch": 4, "epochs": 1, "warmup_epochs": 0, "precision": "32-true"}
    machine = {"checkpoint_every_epochs": 1, "accelerator": "cpu", "threads": 1, "devices": 1, "divide": parts_that_fit}
    facts = pretrain(tmp_path, *store_paths, lesion_ids, lesion_ids[:2], replace(methods[name], **few), **machine)
    assert facts["loss"] > 0 and (tmp_path / "encoder.safetensors").exists()
    assert (tmp_path / "reconstructions.npz").exists()
