import multiprocessing
import os
import re
import signal
import zlib
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.distributed import TCPStore

from miram.errors import MiramError
from miram.models._timm import resample_abs_pos_embed
from miram.models.build import build_pretrainer
from miram.models.export import save_encoder
from miram.train import checkpoint, loop, pretrain
from miram.train.loop import Run, parameter_groups
from miram.train.processes import fabric_of
from miram.train.recipe import fingerprint

KILLED = ["mae", "performer", "mocov3", "divided"]
CONTRASTIVE = ("mocov3", "divided")


def state_of(folder) -> dict:
    return checkpoint.load(folder / "checkpoint.pt")


def assert_same_end(first, second):
    """Model, optimiser and exported encoder, bit by bit, and the log but for the speed."""
    states = [state_of(folder) for folder in (first, second)]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    for index, moments in states[0]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, states[1]["optimizer"]["state"][index][name]), (index, name)
    assert (first / "encoder.safetensors").read_bytes() == (second / "encoder.safetensors").read_bytes()
    logs = [pd.read_csv(folder / "log.csv").drop(columns="images_per_second") for folder in (first, second)]
    pd.testing.assert_frame_equal(*logs)


def out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def before_step(monkeypatch, step, action):
    """Have `action()` done before optimiser step `step` (counted from 0 over all epochs)."""
    optimise = Run._optimise

    def stopped(run, batches):
        if run.step == step:
            action()
        return optimise(run, batches)

    monkeypatch.setattr(Run, "_optimise", stopped)


def interrupt():
    raise KeyboardInterrupt


def in_two_processes(monkeypatch, function, *args, **names) -> list[int]:
    """Call a function in two processes, as torchrun would: the parent has the store where they meet, on a free port."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    processes = []
    for rank in "01":
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        with monkeypatch.context() as patch:
            for name, value in (shared | ranks).items():
                patch.setenv(name, value)
            processes.append(multiprocessing.get_context("fork").Process(target=function, args=args, kwargs=names))
            processes[-1].start()
    for process in processes:
        process.join(300)
    codes = [process.exitcode for process in processes]  # None: hangs
    for process in processes:
        process.kill()
    return codes


def losses_of(folder) -> np.ndarray:
    return pd.read_csv(folder / "log.csv")["loss"].to_numpy()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run_pretraining):
    folders = {}

    def run(objective):
        if objective not in folders:
            folders[objective] = tmp_path_factory.mktemp(objective)
            run_pretraining(folders[objective], objective)
        return folders[objective]

    return run


@pytest.mark.parametrize("objective", [*KILLED, "native"])
def test_weights_move_and_the_facts_and_files_are_there(objective, tmp_path, run_pretraining, recipe_of):
    facts = run_pretraining(tmp_path, objective)
    torch.manual_seed(recipe_of(objective).seed)
    start = build_pretrainer(recipe_of(objective)).encoder.state_dict()
    encoder = load_file(tmp_path / "encoder.safetensors")
    assert any(not torch.equal(value, start[name]) for name, value in encoder.items())
    assert {"device", "cpu_capability", "threads"} <= facts.keys()
    assert facts["steps"] == 9 and facts["images"] == 12 and facts["epochs"] == 3
    assert facts["seconds"] > 0 and facts["peak_memory_bytes"] > 10**7 and facts["peak_memory_kind"] == "resident set"
    log = pd.read_csv(tmp_path / "log.csv")
    spread = ["feature_std"] if objective in CONTRASTIVE else []
    assert list(log.columns) == ["epoch", "loss", "lr", "grad_norm", *spread, "images_per_second"]
    assert log["epoch"].tolist() == [1, 2, 3] and facts["loss"] == log["loss"].iloc[-1]
    assert (tmp_path / "reconstructions.npz").exists() == (objective not in CONTRASTIVE)


@pytest.mark.parametrize("objective", KILLED)
def test_a_run_killed_at_random_steps_ends_with_the_weights_of_an_uninterrupted_one(
    objective, tmp_path, monkeypatch, run_pretraining, uninterrupted
):
    process = multiprocessing.get_context("fork").Process
    seed = zlib.crc32(objective.encode())
    steps = sorted(np.random.default_rng(seed).choice(9, 2, replace=False).tolist())
    print(f"seed {seed}: killed before steps {steps}")
    for step in steps:
        with monkeypatch.context() as patch:
            before_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
            run = process(target=run_pretraining, args=(tmp_path, objective))
            run.start()
            run.join(300)
        assert run.exitcode == -signal.SIGKILL and not (tmp_path / "encoder.safetensors").exists()
    run_pretraining(tmp_path, objective)
    assert_same_end(uninterrupted(objective), tmp_path)


@pytest.mark.parametrize(("objective", "step"), [*[(objective, 4) for objective in KILLED], ("mae", 5), ("mae", 8)])
def test_sigterm_stops_at_once_keeps_the_step_and_goes_on_from_it(
    objective, step, tmp_path, monkeypatch, capfd, run_pretraining, uninterrupted
):
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            run_pretraining(tmp_path, objective, checkpoint_every_epochs=100)
    assert stop.value.code == 143 and "run again to resume" in capfd.readouterr().err
    assert state_of(tmp_path)["step"] == step + 1
    run_pretraining(tmp_path, objective)
    assert f"resumes after step {step + 1} of 9" in capfd.readouterr().err
    assert_same_end(uninterrupted(objective), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_tensorboard_has_one_point_an_epoch_however_often_the_run_is_stopped(tmp_path, monkeypatch, run_pretraining):
    for step in (5, 7):
        with monkeypatch.context() as patch:
            before_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(SystemExit):
                run_pretraining(tmp_path, "mocov3", checkpoint_every_epochs=100)
    run_pretraining(tmp_path, "mocov3")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    log = pd.read_csv(tmp_path / "log.csv", index_col="epoch")
    assert set(events.Tags()["scalars"]) == set(log.columns)
    for name, column in log.items():
        points = events.Scalars(name)
        assert [point.step for point in points] == [1, 2, 3]
        assert [point.value for point in points] == pytest.approx(column.tolist(), rel=1e-6)


def test_the_one_task_of_a_slurm_job_starts_a_process_for_each_device(monkeypatch):
    for name, value in {"NTASKS": "1", "JOB_NAME": "pretrain", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = fabric_of("cpu", devices=2, precision="32-true")
    assert not fabric.strategy.cluster_environment.creates_processes_externally


def test_fewer_gpus_than_devices_are_named_with_the_parameter(tmp_path, monkeypatch, run_pretraining):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MiramError, match=r"4 processes need a GPU each, and torch finds 1\.\nSet compute\.devices: 1"):
        run_pretraining(tmp_path, "mae", accelerator="cuda", devices=4)


def test_a_finished_run_takes_no_further_step(tmp_path, monkeypatch, run_pretraining, uninterrupted):
    (tmp_path / "checkpoint.pt").write_bytes((uninterrupted("mae") / "checkpoint.pt").read_bytes())
    before_step(monkeypatch, 9, lambda: pytest.fail("a step was taken"))
    run_pretraining(tmp_path, "mae")
    assert_same_end(uninterrupted("mae"), tmp_path)


@pytest.mark.parametrize("change", [{"lr_per_256": 0.2}, {"encoder": {"width": 24}}])
def test_a_checkpoint_of_another_recipe_is_not_taken_up(tmp_path, capfd, change, run_pretraining, recipe_of):
    run_pretraining(tmp_path / "run", "mae")
    changed = {
        name: {**asdict(recipe_of("mae").encoder), **value} if isinstance(value, dict) else value
        for name, value in change.items()
    }
    run_pretraining(tmp_path / "run", "mae", **changed)
    assert "starts over" in capfd.readouterr().err
    run_pretraining(tmp_path / "fresh", "mae", **changed)
    assert_same_end(tmp_path / "run", tmp_path / "fresh")


def test_a_checkpoint_that_is_cut_short_is_named(tmp_path, run_pretraining):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(MiramError, match=r"checkpoint\.pt is truncated"):
        run_pretraining(tmp_path, "mae")


def assert_same_but_for_rounding(objective, folder, other):
    assert losses_of(other) == pytest.approx(losses_of(folder), rel=1e-5)
    weights = [load_file(path / "encoder.safetensors") for path in (folder, other)]
    for name, value in weights[0].items():
        # no loss depends on the keys' bias, and BatchNorm removes that of the last norm: AdamW steps by rounding errors
        if not name.endswith("qkv.bias") and (objective, name) != ("mocov3", "norm.bias"):
            assert torch.allclose(value, weights[1][name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("objective", ["mae", "native", "performer", "mocov3"])
def test_accumulation_equals_the_big_batch(objective, tmp_path, run_pretraining):
    """The Performer draws new projections before the third step."""
    for accumulate in (1, 4):
        facts = run_pretraining(tmp_path / str(accumulate), objective, accumulate=accumulate, batch=8)
        assert facts["accumulate"] == accumulate
    assert_same_but_for_rounding(objective, tmp_path / "1", tmp_path / "4")


def test_a_batch_is_divided_by_itself_as_the_free_memory_of_the_device_asks(tmp_path, capfd, run_pretraining):
    asked = []

    def divide(recipe, free_bytes, devices, crops_bytes):
        asked.append((recipe.accumulate, free_bytes > 1e8, devices, crops_bytes))
        return 2

    facts = run_pretraining(tmp_path / "auto", "mae", accumulate="auto", divide=divide)
    assert asked == [("auto", True, 1, 0)] and facts["accumulate"] == 2
    assert "accumulate auto: 2, so 2 images at once on a device\n" in capfd.readouterr().err
    run_pretraining(tmp_path / "two", "mae", accumulate=2)
    assert_same_end(tmp_path / "two", tmp_path / "auto")


@pytest.mark.parametrize("objective", ["mae", "mocov3"])
def test_out_of_memory_halves_the_images_at_once_and_goes_on_from_the_checkpoint(
    objective, tmp_path, capfd, monkeypatch, run_pretraining
):
    """Whatever the failed step changed is gone: MoCo-v3 moves its keys and statistics in the forward pass.

    The end is that of a run which was killed, and went on from the same checkpoint with half as many images.
    """
    forward, failures = Run._forward, []

    def failing(run, batch):
        output = forward(run, batch)
        if run.step == 4 and len(failures) < 1:
            failures.append(run.recipe.accumulate)
            out_of_gpu_memory()
        return output

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_forward", failing)
        facts = run_pretraining(tmp_path / "auto", objective, accumulate="auto", divide=lambda *_: 1)
    assert failures == [1] and facts["accumulate"] == 2
    said = capfd.readouterr().err
    assert "4 images at once per device: CUDA out of memory" in said and "resumes after step 3 of 9" in said
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        before_step(patched, 4, interrupt)
        run_pretraining(tmp_path / "killed", objective, accumulate="auto", divide=lambda *_: 1)
    run_pretraining(tmp_path / "killed", objective, accumulate="auto", divide=lambda *_: 2)
    assert_same_end(tmp_path / "killed", tmp_path / "auto")


def test_after_memory_ran_out_nothing_of_the_failed_attempt_is_left(tmp_path, monkeypatch, run_pretraining):
    """On a CPU, with the plugin of float16 that a GPU would have; no checkpoint was written before."""

    def scaled(accelerator, devices, precision):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=2)  # changes within these few steps
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    def failing(run, batches):
        values = optimise(run, batches)
        if run.step == 2 and run.recipe.accumulate == 1:
            run.fabric.strategy.precision.unscale_gradients(run.optimizer)
            out_of_gpu_memory()
        return values

    optimise = Run._optimise
    monkeypatch.setattr(pretrain, "fabric_of", scaled)
    monkeypatch.setattr(pretrain, "usable_precision", lambda *_: "16-mixed")
    monkeypatch.setattr(Run, "_optimise", failing)
    run_pretraining(tmp_path / "auto", "mae", accumulate="auto", divide=lambda *_: 1)
    run_pretraining(tmp_path / "two", "mae", accumulate="auto", divide=lambda *_: 2)
    assert_same_end(tmp_path / "two", tmp_path / "auto")
    assert state_of(tmp_path / "auto")["precision"] == state_of(tmp_path / "two")["precision"]


def test_memory_that_runs_out_with_one_image_at_once_stops_the_run(tmp_path, monkeypatch, run_pretraining):
    before_step(monkeypatch, 4, out_of_gpu_memory)
    with pytest.raises(MiramError, match="1 images at once per device"):
        run_pretraining(tmp_path, "mae", accumulate="auto", divide=lambda *_: 2)


@pytest.mark.slow
def test_a_fault_in_a_spawned_process_has_its_own_message(tmp_path, run_pretraining):
    with pytest.raises(MiramError, match="batch 3 does not divide into 1 micro-batches on 2 devices") as fault:
        run_pretraining(tmp_path, "mae", devices=2, batch=3)
    assert "multiple of 2" in fault.value.remedy


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (out_of_gpu_memory, "CUDA out of memory"),
        (lambda: torch.empty(10**15), "can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_told_with_the_sizes_and_the_remedy(
    action, reason, tmp_path, monkeypatch, run_pretraining
):
    before_step(monkeypatch, 4, action)
    with pytest.raises(MiramError, match=reason) as fault:
        run_pretraining(tmp_path, "performer", accumulate=2)
    assert "miram-performer at side 32, batch 4, 2 images at once per device" in fault.value.message
    assert "Raise accumulate (now 2)" in fault.value.remedy
    assert state_of(tmp_path)["step"] == 3


def test_another_fault_of_torch_is_left_as_it_is(tmp_path, monkeypatch, run_pretraining):
    before_step(monkeypatch, 4, lambda: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run_pretraining(tmp_path, "mae")


def test_the_line_of_progress_tells_the_speed_and_the_time_that_remains(tmp_path, capfd, monkeypatch, run_pretraining):
    monkeypatch.setattr("miram.progress.SECONDS_BETWEEN_LINES", 0.0)
    run_pretraining(tmp_path, "performer")
    line = capfd.readouterr().err.splitlines()[1]
    assert re.fullmatch(r"pre-training miram-performer: 2/3 in \d+ s, \d+ s left, \d+ images/s", line)


@pytest.mark.parametrize("highres", [{"scale": 4, "target": "upsampled"}, {"scale": 4, "target": "native"}])
def test_a_second_decoder_of_four_times_the_side_trains(highres, tmp_path, run_pretraining):
    facts = run_pretraining(tmp_path, "native", highres=highres, epochs=2)
    losses = pd.read_csv(tmp_path / "log.csv")["loss"]
    assert facts["steps"] == 6 and np.isfinite(losses).all() and losses[1] != losses[0]
    with np.load(tmp_path / "reconstructions.npz") as figures:
        assert figures["highres"].shape == figures["target_highres"].shape == (2, 128, 128)
        assert figures["input"].shape == (2, 32, 32)
        enlarged = figures["input"].repeat(4, 1).repeat(4, 2)
        assert np.array_equal(figures["target_highres"], enlarged) == (highres["target"] == "upsampled")


def test_an_encoder_goes_on_at_twice_the_side_with_its_positions_resampled(tmp_path, run_pretraining):
    run_pretraining(tmp_path / "small", "mae", epochs=1)
    start = tmp_path / "small" / "encoder.safetensors"
    beyond = {"side": 64, "highres": {"scale": 4, "target": "upsampled"}, "recompute": True}
    frozen = {"epochs": 1, "lr_per_256": 1e-12}
    facts = run_pretraining(tmp_path / "large", "performer", **beyond, **frozen, encoder_init=str(start))
    assert facts["steps"] == 3 and np.isfinite(facts["loss"])
    small, large = load_file(start), load_file(tmp_path / "large" / "encoder.safetensors")
    assert torch.equal(large["pos_embed"], resample_abs_pos_embed(small["pos_embed"], [8, 8]))
    assert torch.allclose(large["blocks.0.attn.qkv.weight"], small["blocks.0.attn.qkv.weight"], atol=1e-6)
    with np.load(tmp_path / "large" / "reconstructions.npz") as figures:
        assert figures["highres"].shape == (2, 256, 256)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_model_is_compiled_where_the_parameter_says_so(wanted, tmp_path, monkeypatch, run_pretraining):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    run_pretraining(tmp_path, "mae", compile=wanted, epochs=1)
    assert compiled == ["MAE"] * wanted


@pytest.mark.slow
@pytest.mark.parametrize("objective", KILLED)
def test_compiled_training_gives_the_loss_curve_and_the_names_of_uncompiled(objective, tmp_path, run_pretraining):
    options = (
        {"options": {"redraw_interval": 0}} if objective == "performer" else {}
    )  # compiled, it draws other numbers
    folders = [tmp_path / "plain", tmp_path / "compiled"]
    for folder, compiled in zip(folders, (False, True), strict=True):
        run_pretraining(folder, objective, compile=compiled, **options)
    losses = [losses_of(folder) for folder in folders]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert state_of(folders[0])["model"].keys() == state_of(folders[1])["model"].keys()
    assert load_file(folders[0] / "encoder.safetensors").keys() == load_file(folders[1] / "encoder.safetensors").keys()


@pytest.mark.parametrize(
    ("objective", "accumulate"), [("mae", 1), ("native", 2), ("performer", 1), ("mocov3", 1), ("mocov3", 2)]
)
def test_two_processes_give_the_loss_curve_of_one(objective, accumulate, tmp_path, monkeypatch, run_pretraining):
    """MoCo-v3, with each query among the keys of both, once BatchNorm takes no statistics of a batch."""
    batch_norm = torch.nn.BatchNorm1d
    monkeypatch.setattr(batch_norm, "train", lambda module, mode=True: super(batch_norm, module).train(False))
    run_pretraining(tmp_path / "one", objective)
    assert in_two_processes(monkeypatch, run_pretraining, tmp_path / "two", objective, accumulate=accumulate) == [0, 0]
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)


@pytest.mark.parametrize("objective", ["mae", "mocov3", "divided"])
def test_sigterm_to_one_of_two_processes_stops_both_after_the_same_step(
    objective, tmp_path, monkeypatch, run_pretraining
):
    with monkeypatch.context() as patch:
        second = lambda: os.environ["RANK"] == "1" and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        before_step(patch, 4, second)
        assert in_two_processes(monkeypatch, run_pretraining, tmp_path / "stopped", objective) == [143, 143]
    assert state_of(tmp_path / "stopped")["step"] == 5
    for folder in ("stopped", "whole"):
        assert in_two_processes(monkeypatch, run_pretraining, tmp_path / folder, objective) == [0, 0]
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_processes_that_are_started_here_give_the_loss_curve_of_one_and_get_the_sigterm_of_their_parent(
    tmp_path, run_pretraining, uninterrupted, wait_until
):
    run = multiprocessing.get_context("fork").Process(
        target=run_pretraining, args=(tmp_path, "mae"), kwargs={"devices": 2, "checkpoint_every_epochs": 100}
    )
    run.start()
    wait_until((tmp_path / "log.csv").exists)
    os.kill(run.pid, signal.SIGTERM)
    run.join(300)
    assert run.exitcode == 143 and 3 <= state_of(tmp_path)["step"] < 9
    run_pretraining(tmp_path, "mae", devices=2)
    assert losses_of(tmp_path) == pytest.approx(losses_of(uninterrupted("mae")), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch, run_pretraining
):
    inputs = loop.masked_inputs

    def spoilt(views, noise, recipe):
        images, noise = inputs(views, noise, recipe)
        return [images * float("nan") if torch.is_grad_enabled() and poisoned else images, noise]

    poisoned = []
    monkeypatch.setattr(loop, "masked_inputs", spoilt)
    before_step(monkeypatch, 5, lambda: poisoned.append(True))
    with pytest.raises(MiramError, match=r"epoch 2, step 6: loss nan.*learning rate .*\n.*Lower.*last good state"):
        run_pretraining(tmp_path, "mae")
    state = state_of(tmp_path)
    assert state["step"] == 3 and all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "encoder.safetensors").exists()


def test_gradients_that_are_not_finite_stop_the_run_before_the_weights_take_them(
    tmp_path, monkeypatch, run_pretraining
):
    forward = Run._forward

    def steep(run, batch):
        loss, spread = forward(run, batch)
        return loss + (next(run.module.parameters()).sum() * 0).sqrt() if run.step == 4 else loss, spread

    monkeypatch.setattr(Run, "_forward", steep)
    with pytest.raises(MiramError, match=r"epoch 2, step 5: loss [\d.]+, gradient norm nan"):
        run_pretraining(tmp_path, "mae")


@pytest.mark.parametrize("objective", ["mae", "performer"])
def test_bf16_trains_near_to_float32(objective, tmp_path, run_pretraining, uninterrupted):
    run_pretraining(tmp_path, objective, precision="bf16-mixed")
    losses = [losses_of(folder) for folder in (tmp_path, uninterrupted(objective))]
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and not np.array_equal(*losses)


def test_checkpoints_are_written_every_so_many_epochs_and_at_the_end(tmp_path, monkeypatch, run_pretraining):
    steps = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state: steps.append(state["step"]))
    run_pretraining(tmp_path, "mae", epochs=5, checkpoint_every_epochs=2)
    assert steps == [6, 12, 15]


def test_collapsed_features_raise_an_alarm(tmp_path, capfd, monkeypatch, run_pretraining):
    forward = Run._forward
    monkeypatch.setattr(Run, "_forward", lambda *args, **names: (forward(*args, **names)[0], torch.tensor(1e-4)))
    run_pretraining(tmp_path, "mocov3", epochs=1)
    assert "the features have collapsed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 16}, "batch 16 exceeds the 12 images"),
        ({"accumulate": 3}, "batch 4 does not divide into 3 micro-batches"),
        ({"side": 30}, "side 30 px is not a multiple of the patch"),
    ],
)
def test_values_that_do_not_fit_are_named(changes, message, tmp_path, run_pretraining):
    with pytest.raises(MiramError, match=message):
        run_pretraining(tmp_path, "mae", **changes)


def test_weight_decay_is_for_matrices_and_frozen_weights_are_left_out(recipe_of):
    model = build_pretrainer(recipe_of("mocov3"))
    decayed, plain = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain_names = [names[id(parameter)] for parameter in plain["params"]]
    assert decayed["weight_decay"] == 0.1 and plain["weight_decay"] == 0.0
    assert all(name.endswith("bias") or "norm" in name or name.startswith("p") for name in plain_names)
    assert not any("bias" in names[id(parameter)] for parameter in decayed["params"])
    taken = {id(parameter) for parameter in decayed["params"] + plain["params"]}
    assert taken == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert id(model.encoder.patch_embed.proj.weight) not in taken


@pytest.mark.parametrize("objective", ["mae", "performer", "native"])
def test_reconstructions_show_visible_patches_as_they_are(objective, uninterrupted):
    with np.load(uninterrupted(objective) / "reconstructions.npz") as figures:
        images = {name: figures[name] for name in figures}
    names = {"input", "masked", "lowres"} | ({"highres", "target_highres"} if objective != "mae" else set())
    assert set(images) == names and {image.dtype for image in images.values()} == {np.dtype(np.uint8)}
    assert images["input"].shape == images["masked"].shape == images["lowres"].shape == (2, 32, 32)
    visible = (images["masked"] == images["input"]).reshape(2, 4, 8, 4, 8).all((2, 4))
    assert visible.sum((1, 2)).tolist() == [4, 4]
    shown = visible.repeat(8, 1).repeat(8, 2)
    assert np.array_equal(images["lowres"][shown], images["input"][shown])
    if objective != "mae":
        assert images["highres"].shape == images["target_highres"].shape == (2, 64, 64)
    if objective == "performer":
        assert np.array_equal(images["target_highres"][:, ::2, ::2], images["input"])


def test_a_checkpoint_of_other_code_or_another_device_is_not_gone_on_from(recipe_of, monkeypatch):
    before = fingerprint(recipe_of("mae"), "crops", "cpu")
    assert fingerprint(recipe_of("mae"), "crops", "cpu") == before
    assert fingerprint(recipe_of("mae"), "crops", "cuda") != before
    monkeypatch.setattr("miram.train.recipe.code_digest", lambda stage: f"other code of {stage}")
    assert fingerprint(recipe_of("mae"), "crops", "cpu") != before


@pytest.mark.parametrize("objective", ["mae", "mocov3"])
def test_an_encoder_may_start_from_a_file(objective, tmp_path, recipe_of):
    torch.manual_seed(7)
    save_encoder(build_pretrainer(recipe_of("mae")).encoder, tmp_path / "vit.safetensors")
    recipe = recipe_of(objective, encoder_init=str(tmp_path / "vit.safetensors"))
    torch.manual_seed(3)
    model = build_pretrainer(recipe)
    given = load_file(tmp_path / "vit.safetensors")
    for encoder in [model.encoder, *([model.key_encoder] if objective == "mocov3" else [])]:
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, given[name]), name
    before = fingerprint(recipe, "", "cpu")
    save_encoder(build_pretrainer(recipe_of("mae")).encoder, tmp_path / "vit.safetensors")
    assert fingerprint(recipe, "", "cpu") != before
