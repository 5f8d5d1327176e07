"""Which GPUs will do, and what a training says that finds none."""

import shutil
from pathlib import Path

import pytest

from miram import params
from miram.cli import main
from miram.planning import gpu

ROOT = Path(__file__).parents[2]
H100 = gpu.Gpu("NVIDIA H100", (9, 0))


def check_accelerator(accelerator="auto", **changes):
    """What is found of a machine that will do, but for the changes."""
    facts = {"devices": 1, "large": True, "built": "13.0", "driver": (13, 1), "gpus": [H100]}
    kernels = ["sm_75", "sm_80", "sm_90", "compute_120"]
    return gpu.check_accelerator(accelerator, **{**facts, "kernels": kernels, **changes})


@pytest.mark.parametrize(
    ("built", "driver", "reason"),
    [
        (None, None, "no NVIDIA driver"),
        ("13.0", None, "no NVIDIA driver"),
        (None, (12, 4), "CPU build"),
        ("13.0", (12, 4), "newer than the driver's 12.4"),
        ("12.8", (12, 4), "finds no device"),
    ],
)
def test_a_gpu_that_torch_cannot_use_stops_preset_paper_with_the_reason(built, driver, reason):
    finding = check_accelerator("auto", built=built, driver=driver, gpus=[])
    assert finding.level == "stop" and finding.remedy
    assert reason in finding.text


@pytest.mark.parametrize(("preset", "level"), [("demo", "ok"), ("small", "ok"), ("paper", "warning")])
def test_a_cpu_that_is_asked_for_is_enough_for_small_networks_and_allowed_for_others(preset, level):
    found = gpu.find_accelerator("cpu", 1, params.load(ROOT / "params.yaml", preset).encoder)
    assert found.level == level and ("months" in found.remedy) is (level == "warning")


def test_the_cpu_is_enough_for_the_demo_and_allowed_for_the_paper():
    facts = {"built": None, "driver": None, "gpus": []}
    assert check_accelerator("auto", large=False, **facts).level == "ok"
    assert check_accelerator("cuda", large=False, **facts).level == "stop"
    assert check_accelerator("cpu", **facts).level == "warning"


def test_a_gpu_that_torch_finds_is_named():
    finding = check_accelerator()
    assert finding.level == "ok"
    assert "NVIDIA H100" in finding.text and "CUDA 13.1" in finding.text


def test_fewer_gpus_than_devices_are_stopped():
    assert check_accelerator(devices=4, gpus=[H100] * 4).level == "ok"
    finding = check_accelerator(devices=4)
    assert finding.level == "stop" and "compute.devices: 1" in finding.remedy
    assert "compute.devices is 4, and torch finds 1 GPU(s): NVIDIA H100" in finding.text


def test_a_gpu_for_which_torch_holds_no_kernels_is_stopped():
    volta = gpu.Gpu("Tesla V100", (7, 0))
    finding = check_accelerator(devices=2, gpus=[H100, volta])
    assert finding.level == "stop" and finding.remedy
    assert "Tesla V100 has compute capability 7.0" in finding.text and "sm_75, sm_80" in finding.text
    assert check_accelerator(devices=1, gpus=[H100, volta]).level == "ok"


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((8, 9), ["sm_80"], True),  # a later one of the same generation
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_100"], False),
        ((12, 1), ["sm_75", "compute_120"], True),  # PTX is compiled where it runs
        ((10, 0), ["compute_120"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a", "compute_100a"], False),
        ((12, 0), ["compute_100f", "sm_100f"], False),
        ((10, 3), ["sm_100f"], True),
        ((7, 0), ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"], False),
        ((9, 0), [], False),
    ],
)
def test_kernels_run_on_the_devices_that_they_are_made_for(capability, kernels, runs):
    assert gpu.runs_on(capability, kernels) == runs


def test_the_version_of_the_driver_is_that_of_its_cuda(monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, number):
            number._obj.value = 12040
            return 0

    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: Driver())
    assert gpu.driver_cuda() == (12, 4)


PLACE = ["--protocol", "strict", "--method", "mae"]


@pytest.mark.parametrize(
    "command",
    [["pretrain", *PLACE, "--seed", "0"], ["classify", *PLACE, "--task", "pathology_4class"], ["explain"]],
)
def test_a_training_of_the_paper_that_finds_no_gpu_says_so_and_does_not_take_the_cpu(
    command, tmp_path, monkeypatch, capsys
):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "driver_cuda", lambda: None)
    assert main(["--preset", "paper", *command]) == 1
    assert "There is no NVIDIA driver here, and without a GPU this preset takes months." in capsys.readouterr().err
    assert main(["--preset", "demo", *command]) == 1
    assert "NVIDIA" not in capsys.readouterr().err  # but what it lacks: there is no record yet
