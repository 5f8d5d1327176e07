"""The bench of whole pre-trainings, on a CPU and at tiny sizes: on a GPU only the device differs."""

from dataclasses import replace
from pathlib import Path

import pytest

from miram import params
from miram.bench import training
from miram.bench.training import measure_training

DEMO = params.load(Path(__file__).parents[2] / "params.yaml", "demo")


def test_pretraining_is_measured_in_each_form_and_one_that_cannot_run_says_why(monkeypatch):
    monkeypatch.setattr(training, "medians", lambda calls: {"seconds": 0.25})  # of a bare step
    methods = {name: replace(params.recipe_of(DEMO, name), batch=4, accumulate=1) for name in ("mae", "miram-nystrom")}
    nystrom = methods["miram-nystrom"]
    methods["too-coarse"] = replace(nystrom, options={**nystrom.options, "landmarks": 99})
    rows = measure_training(methods, (32,), steps=6, crops=8, device="cpu")
    assert [(row["method"], row["form"]) for row in rows] == [
        ("mae", "fused"),
        *((name, form) for name in ("miram-nystrom", "too-coarse") for form in ("fused", "package")),
    ]
    for row in rows[:3]:
        assert row["steps"] == 6 and row["images"] == 4 and row["peak_mib"] > 0
        assert row["images_per_second"] * 60 / 8 == pytest.approx(row["epochs_per_minute"])
        assert row["utilisation"] == pytest.approx(0.25 * row["images_per_second"] / 4) and row["utilisation"] > 0
    assert rows[3]["images_per_second"] is None and "99" in rows[3]["fault"]
