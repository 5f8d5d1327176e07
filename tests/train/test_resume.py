"""What a kill, a SIGTERM or another training in the same process must not change: the predictions, to the bit."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from plain_values import of_values
from test_finetune import FILES, VALUES
from test_probe import KINDS, MODES
from test_probe import VALUES as PROBED
from tiny_classifier import SEEN

from miram.errors import MiramError
from miram.recipe import Tuning
from miram.train import finetune as module
from miram.train import trial
from miram.train.classifiers import Lesions, resized_to
from miram.train.finetune import finetune
from miram.train.probe import probe
from miram.train.seen import Seen
from miram.train.trial import Trial

DROPPED = {"drop_path": 0.5, "mixup": 0.4}  # draws from torch's generator, and from one of the step
RATES = pytest.mark.parametrize("lr", [[0.02], [1e-6, 0.02], [0.02, 1e-6]], ids=["one", "last", "first"])


def lesions_of(folder: Path, store_paths) -> Lesions:
    return Lesions(*store_paths, folder / "lesions.csv", folder / "splits.csv", VALUES["task"], resized_to(32))


@pytest.fixture
def tune(lesions, store_paths, tmp_path):
    """tune(name, **changes): the files that a fine-tuning leaves in the folder of that name."""
    shared = lesions_of(lesions, store_paths)

    def run(name, **changes):
        tuning = of_values(Tuning, {**VALUES, **DROPPED, **changes})
        facts = finetune(tmp_path / name, shared, None, tuning, seen=Seen(**SEEN))
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == FILES
        return {file: (tmp_path / name / file).read_bytes() for file in FILES} | {"tried": facts["tried"]}

    return run


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(steps, act): after this many steps from now on `act` is called, once."""
    optimise = Trial._optimise

    def arm(steps, act):
        left = [steps]

        def step(self):
            left[0] -= 1
            loss = optimise(self)
            if left[0] == 0:
                act()
            return loss

        monkeypatch.setattr(Trial, "_optimise", step)

    return arm


class KilledError(BaseException):
    """Stands for SIGKILL: nothing is written after it."""


def kill():
    raise KilledError


@RATES
def test_killed_again_and_again_a_fine_tuning_ends_with_the_same_bytes(tune, interrupt, monkeypatch, tmp_path, lr):
    whole = tune("whole", lr=lr)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", 0.0)
    random, kills = np.random.default_rng(len(lr)), 0
    for _ in range(40):
        interrupt(int(random.integers(1, 6)), kill)  # an epoch has two steps
        try:
            resumed = tune("killed", lr=lr)
        except KilledError:
            kills += 1
        else:
            break
    assert kills > len(lr)
    assert resumed == whole


@RATES
def test_a_fine_tuning_stops_at_sigterm_after_any_step_and_goes_on_from_there(tune, interrupt, tmp_path, capsys, lr):
    whole = tune("whole", lr=lr)
    steps = 6 * len(lr)  # 2 of each of 3 epochs
    for step in sorted({1, 4, 6, steps - 3, steps}):
        interrupt(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            tune(f"stopped-{step}", lr=lr)
        assert stopped.value.code == 143
        assert [path.name for path in (tmp_path / f"stopped-{step}").iterdir()] == ["checkpoint.pt"]
        interrupt(0, kill)  # never
        assert tune(f"stopped-{step}", lr=lr) == whole
        assert f"resumes after step {(step - 1) % 6 + 1}\n" in capsys.readouterr().err


def test_a_checkpoint_of_other_values_lesions_or_code_is_not_resumed(tune, interrupt, monkeypatch, capsys, lesions):
    changes = {"values": {"weight_decay": 0.5}, "lesions": {}, "code": {}}
    digest = Lesions.digest.fget
    for name, changed in changes.items():
        interrupt(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            tune(name)
        with monkeypatch.context() as other:
            if name == "lesions":
                other.setattr(Lesions, "digest", property(lambda self: digest(self)[::-1]))
            if name == "code":
                other.setattr(module, "code_digest", lambda stage: "of another")
            made = tune(name, **changed)
        assert (
            "belongs to other parameters, lesions, code or device: fine-tuning starts over" in capsys.readouterr().err
        )
        assert made == tune("fresh", **changed)


def test_a_file_that_is_no_checkpoint_is_named(tune, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(MiramError, match=r"run/checkpoint\.pt is truncated or not a checkpoint"):
        tune("run")


def test_the_scale_of_float16_is_of_one_training_and_is_resumed(tune, interrupt, monkeypatch):
    """On a CPU, with the plugin that a GPU would have."""

    def halved(asked):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)  # changes within these few steps
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        torch.use_deterministic_algorithms(True)
        scales.append(scaler)
        return fabric

    scales = []
    monkeypatch.setattr(trial, "device_of", halved)
    alone, several = tune("alone", lr=[0.02]), tune("several", lr=[1e-6, 0.02])
    assert several["predictions.parquet"] == alone["predictions.parquet"]
    assert scales[0].get_scale() != 2.0**20
    interrupt(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        tune("stopped", lr=[0.02])
    assert tune("stopped", lr=[0.02]) == alone


def made_by_seed(folder: Path, lesions: Lesions, seed: int, modes: Sequence[str]) -> dict[str, bytes]:
    """The predictions of one seed, of a fresh encoder: fine-tuned, and probed."""
    for mode in modes:
        if mode == "finetune":
            tuning = of_values(Tuning, {**VALUES, **DROPPED, "seed": seed})
            finetune(folder / mode, lesions, None, tuning, seen=Seen(**SEEN))
        else:
            probing = of_values(KINDS[mode], {**PROBED, **MODES[mode], "seed": seed, "pool": "class"})
            probe(folder / mode, lesions, None, probing)
    return {mode: (folder / mode / "predictions.parquet").read_bytes() for mode in modes}


def in_a_process_of_its_own(folder: Path, tables: Path, store_paths, seed: int) -> dict[str, bytes]:
    return made_by_seed(folder, lesions_of(tables, store_paths), seed, ("knn", "linear", "finetune"))


def test_five_seeds_in_one_process_equal_five_processes(lesions, store_paths, tmp_path):
    shared = lesions_of(lesions, store_paths)
    together = [
        made_by_seed(tmp_path / f"together-{seed}", shared, seed, ("finetune", "linear", "knn")) for seed in range(5)
    ]
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        places = [(tmp_path / f"alone-{seed}", lesions, store_paths, seed) for seed in range(5)]
        alone = pool.starmap(in_a_process_of_its_own, places, chunksize=1)
    assert together == alone
    assert len({pd.read_parquet(path).to_csv() for path in tmp_path.glob("together-*/finetune/*.parquet")}) == 5
