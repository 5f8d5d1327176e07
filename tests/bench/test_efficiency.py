"""The bench: what is derived from measurements, and one small run of all of it."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from pretend_gpu import pretended_gpu

from miram import params
from miram.bench import efficiency as module
from miram.bench.efficiency import Scope, bench
from miram.bench.growth import crossing, crossovers, exponents
from miram.bench.timing import interleaved
from miram.errors import MiramError
from miram.planning.hours import hours, pretraining_job

SMALL = Scope((50, 197), (48, 96), {"cpu": 144}, 1, 0.1, 0.1, 2)
DEMO = params.load(Path(__file__).parents[2] / "params.yaml", "demo")


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ({100: 2.0, 400: 0.5}, "200"),
        ({100: 0.9, 400: 0.5}, "below 100"),
        ({100: 3.0, 400: 2.0}, "above 400"),
        ({100: 0.9, 200: 1.1, 800: 1 / 1.1}, "400"),
    ],
)
def test_the_crossover_lies_between_the_measured_tokens(ratios, found):
    assert crossing(ratios) == found


def test_exponents_are_those_of_the_growth_where_constant_parts_weigh_little():
    rows = [
        {"kind": "full", "form": form, "tokens": n, "seconds": 1e-9 * n**2 + (n < 3137), "kept_mib": n**power / 1e3}
        for form, power in (("fused", 1), ("naive", 2))
        for n in (197, 785, 3137, 12_545)
    ]
    fused, naive = exponents(rows)
    assert fused["from_tokens"] == naive["from_tokens"] == 3137
    assert fused["time"] == pytest.approx(2) and fused["kept"] == pytest.approx(1) and naive["kept"] == pytest.approx(2)


def test_without_full_attention_nothing_is_said_to_cost_less():
    rows = [{"kind": "nystrom", "form": "fused", "tokens": n, "seconds": n, "kept_mib": n} for n in (197, 785)]
    assert crossovers(rows) == []
    full = [{"kind": "full", "form": "fused", "tokens": n, "seconds": 1.0, "kept_mib": n**2} for n in (197, 785)]
    assert crossovers(rows + full) == [
        {"kind": "nystrom", "form": "fused", "seconds": "above 785", "kept_mib": "below 197"}
    ]


def test_without_a_method_whose_attention_is_measured_the_bench_stops_before_it_begins(tmp_path):
    mae = params.recipe_of(DEMO, "mae")
    with pytest.raises(MiramError, match="No method has an attention to measure"):
        bench({"mae": mae}, tmp_path, "cpu", "")


def test_calls_take_turns_and_a_dear_one_stops_at_its_budget():
    order = []
    functions = {name: lambda name=name: order.append(name) or {"seconds": 1.0} for name in ("a", "b")}
    assert {name: len(calls) for name, calls in interleaved(functions, 2, 60.0).items()} == {"a": 2, "b": 2}
    assert order == ["a", "b"] * 3
    assert {name: len(calls) for name, calls in interleaved(functions, 2, 0.0).items()} == {"a": 1, "b": 1}


def test_a_small_bench_leaves_every_file_and_its_rates_make_a_plan(tmp_path):
    names = ("mae", "mocov3", "miram-full", "miram-nystrom")
    methods = {name: params.recipe_of(DEMO, name) for name in names}
    path = bench(methods, tmp_path, "cpu", "the command", SMALL)
    results = json.loads(path.read_text())
    assert results["command"] == "the command" and results["machine"]["torch"]
    ends = [".json", ".md", "_attention.csv", "_attention.png", "_steps.csv", "_steps.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"efficiency-cpu{end}" for end in ends]
    attention = pd.DataFrame(results["attention"])
    assert set(zip(attention["kind"], attention["form"], strict=True)) == {
        *(("full", form) for form in ("fused", "naive")),
        *(("nystrom", form) for form in ("fused", "package")),
    }
    assert (attention[["forward", "backward", "kept_mib", "peak_mib"]] > 0).all(axis=None)
    steps = pd.DataFrame(results["steps"])
    assert len(steps) == len(names) * 2 and (steps["batch_in_24_gb"] >= steps["batch_in_8_gb"]).all()
    assert (steps["predicted_kept_mib"] / steps["kept_mib"] - 1).abs().max() < 0.1
    job = pretraining_job("mae", methods["mae"], 64, 1, tmp_path / "none.json", "mae")
    (plan,) = hours([job], methods["mae"].encoder, [path]).values()
    assert plan["hours"].notna().all()


def test_memory_that_runs_out_in_one_measurement_is_a_row_and_a_kill_leaves_the_others(tmp_path, monkeypatch):
    measure = module.measure_step

    def short(name, recipe, *given):
        if recipe.side == 48:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return measure(name, recipe, *given)

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_step", short)
    monkeypatch.setattr(module, "measure_pipeline", killed)
    methods = {"miram-nystrom": params.recipe_of(DEMO, "miram-nystrom")}
    with pytest.raises(KeyboardInterrupt):
        bench(methods, tmp_path, "cpu", "", SMALL)
    results = json.loads((tmp_path / "efficiency-cpu.json").read_text())
    assert len(results["attention"]) == 4 and [row["side"] for row in results["steps"]] == [96]
    assert [row["part"] for row in results["faults"]] == ["a step of miram-nystrom at side 48"]
    assert "Tried to allocate 2 GiB" in (tmp_path / "efficiency-cpu.md").read_text()


def test_naive_attention_is_measured_only_where_its_matrices_have_room(monkeypatch):
    methods = {"miram-full": params.recipe_of(DEMO, "miram-full")}
    matrices = 3 * 4 * methods["miram-full"].decoder.heads * 50**2
    for factor, forms in {0.99: ["fused"], 1.01: ["fused", "naive"]}.items():
        monkeypatch.setattr(module, "memory_left", lambda _, free=factor * matrices / module.USABLE: free)
        assert [row["form"] for row in module.measure_attention(methods, 50, 1, 0.0, "cpu")] == forms


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
@pytest.mark.parametrize(("bfloat", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_without_bfloat16_is_not_measured_in_it(bfloat, precision, monkeypatch, tmp_path):
    def killed(methods, *_):
        taken.append(methods["miram-full"].precision)
        raise KeyboardInterrupt

    taken = []
    monkeypatch.setattr(module, "measure_attention", killed)
    with pretended_gpu(monkeypatch), pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat or including_emulation)
        bench({"miram-full": params.recipe_of(DEMO, "miram-full")}, tmp_path, "cuda", "", SMALL)
    assert taken == [precision]


def test_a_gpu_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MiramError, match="no CUDA device"):
        bench({}, tmp_path, "cuda", "")
