"""The bench of a device within some minutes: one run of all of it at toy size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretend_gpu import pretended_gpu

from miram import params
from miram.bench import device as module
from miram.bench.device import agreement, bound_of, measure_device
from miram.bench.models import shrunk
from miram.bench.step import pretraining_step
from miram.errors import MiramError
from miram.planning.hours import hours, pretraining_job, totals

DEMO = params.load(Path(__file__).parents[2] / "params.yaml", "demo")
METHODS = {name: replace(shrunk(params.recipe_of(DEMO, name)), batch=4) for name in ("mae", "mocov3", "miram-nystrom")}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """measured(minutes, device) gives the results and the page, with few and small steps, and nothing is compiled."""

    def run(minutes, device="cpu", compiled=lambda model: model):
        for name, small in {"ROUNDS": 1, "STEPS": 2, "CPU_PATCHES": 144, "CROP_SIDE": 60}.items():
            monkeypatch.setattr(module, name, small)
        monkeypatch.setattr(torch, "compile", compiled)
        jobs = [pretraining_job("mae", METHODS["mae"], 64, 1, tmp_path / "none.json", "mae")]
        of_file = lambda path: totals(hours(jobs, METHODS["mae"].encoder, [path]))  # noqa: E731
        path = measure_device(METHODS, of_file, tmp_path / "out", device, minutes, "the command")
        return json.loads(path.read_text()), path.with_suffix(".md").read_text()

    return run


def test_all_parts_are_measured_and_give_the_hours(measured):
    results, page = measured(10)
    assert results["command"] == "the command" and not results["left_out"] and not results["faults"]
    assert [row["agree"] for row in results["agreement"]] == [True] * 3
    assert [row["method"] for row in results["steps"]] == list(METHODS)
    for row in results["steps"]:
        assert set(row["parts"]) == {"forward", "backward", "optimiser", "host", "views"}
        assert 0.3 < row["peak_mib"] / row["predicted_peak_mib"] < 3
    assert [row["method"] for row in results["compiled"]] == list(METHODS)
    assert len(results["hours"]) == 1 and "Hours of the headline" in page and "too short for: nothing" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_on_a_gpu_every_precision_is_measured_and_the_file_has_its_name(measured, tmp_path, monkeypatch):
    with pretended_gpu(monkeypatch):
        results, _ = measured(10, "cuda")
        assert measured(0)[0]["machine"]["gpu"] is None  # of the CPU beside it
    assert (tmp_path / "out" / "device-pretended.json").exists() and not results["faults"]
    found = [(row["precision"], row["agree"]) for row in results["agreement"]]
    assert found == [("32-true", True), ("bf16-mixed", True)] * len(METHODS)
    assert all(row["loss"] > 0 for row in results["agreement"] if row["precision"] == "bf16-mixed")
    assert set(results["steps"][0]["seconds"]) == {"32-true", "tf32", "bf16-mixed"}


def test_what_there_is_no_time_for_is_named(measured):
    results, page = measured(0)
    assert len(results["left_out"]) == 3 * len(METHODS) + 1 and not results["steps"]
    assert "a step of mae; a step of mocov3" in page


def test_memory_that_runs_out_in_one_part_is_a_row_and_the_others_are_measured(measured, monkeypatch):
    measure = module.measure_step

    def short(name, *given):
        if name == "mae":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return measure(name, *given)

    monkeypatch.setattr(module, "measure_step", short)
    results, page = measured(10)
    assert [row["method"] for row in results["steps"]] == ["mocov3", "miram-nystrom"]
    (fault,) = results["faults"]
    assert fault["part"] == "a step of mae" and "Memory ran out" in fault["fault"] and "Tried to allocate" in page


def test_a_bench_that_is_killed_leaves_what_was_measured(measured, monkeypatch, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_compiled", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(10)
    (path,) = (tmp_path / "out").glob("device-*.json")
    assert len(json.loads(path.read_text())["steps"]) == len(METHODS)


def test_a_device_that_computes_something_else_does_not_agree(monkeypatch):
    losses = iter([(torch.ones(4), torch.ones(9)), (torch.ones(4), torch.full((9,), 1.002))])
    monkeypatch.setattr(module, "_trained", lambda *_: next(losses))
    (row,) = agreement("mae", METHODS["mae"], "cpu")
    assert row["weights"] == pytest.approx(0.002, rel=1e-3) and not row["agree"]


def test_a_step_is_taken_by_the_compiled_model_that_it_is_given():
    step = pretraining_step(METHODS["mae"], 2, "cpu")
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    replace(step, model=torch.compile(step.model, backend=backend))()
    assert graphs


def test_products_of_tf32_are_rounded_in_both_passes():
    step, seen = replace(pretraining_step(METHODS["mae"], 2, "cpu"), precision="tf32"), set()
    for parameter in step.model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda _: seen.add(torch.get_float32_matmul_precision()))
    for take in (step, step.parts, step.started):
        take()
        assert (seen, torch.get_float32_matmul_precision()) == ({"high"}, "highest")
        seen.clear()


def test_a_model_that_does_not_compile_is_a_row(measured, monkeypatch):
    def failing(model):
        def call(*_):
            raise RuntimeError("InductorError: no such compiler\nand more")

        return call

    monkeypatch.setattr(module, "prepare_compiler", lambda: None)
    results, page = measured(10, compiled=failing)
    assert [row["part"] for row in results["faults"]] == [f"{name}, compiled" for name in METHODS]
    assert "torch.compile fails: InductorError: no such compiler |" in page and len(results["steps"]) == len(METHODS)


def test_memory_is_predicted_for_the_step_that_is_measured():
    recipe = replace(METHODS["mae"], recompute=True)
    (row,) = module.measure_step("mae", recipe, "cpu", 0.0)
    assert row["predicted_peak_mib"] == module.memory_of(recipe, row["images"]).peak / 2**20


def test_compiling_is_not_timed(monkeypatch):
    compiled, untimed = [], []
    monkeypatch.setattr(torch, "compile", lambda model: lambda *inputs: compiled.append(1) or model(*inputs))
    monkeypatch.setattr(module, "_medians", lambda calls, budget: untimed.extend(compiled) or dict.fromkeys(calls, 1.0))
    module.measure_compiled("mae", METHODS["mae"], "cpu", 0.0)
    assert untimed


def test_what_bounds_a_step_is_its_slowest_part():
    parts = {"forward": 1.0, "backward": 2.0, "optimiser": 0.5, "host": 3.4, "views": 0.1}
    assert bound_of(3.5, parts, "cpu") == "backward" and bound_of(3.5, {**parts, "views": 4.0}, "cpu") == "views"
    assert bound_of(3.5, parts, "cuda") == "host" and bound_of(4.0, parts, "cuda") == "backward"


def test_a_gpu_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MiramError, match="no CUDA device"):
        measure_device(METHODS, dict, tmp_path, "cuda", 1, "")
