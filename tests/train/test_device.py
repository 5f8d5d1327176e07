import shutil
from types import SimpleNamespace

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from miram.errors import MiramError
from miram.planning.memory import parts_that_fit
from miram.train.device import (
    device_facts,
    one_device,
    prepare_compiler,
    prepare_torch,
    usable_accelerator,
    usable_precision,
)
from miram.train.pretrain import pretrain


@pytest.mark.parametrize(
    ("asked", "available", "used"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_auto_takes_a_cuda_device_where_there_is_one_and_no_other_kind(monkeypatch, asked, available, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert usable_accelerator(asked) == used


def test_cuda_without_a_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MiramError, match="finds no CUDA device"):
        usable_accelerator("cuda")


def test_float16_without_a_gpu_is_refused_and_not_replaced(recipe_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MiramError, match="16-mixed, which needs a GPU"):
        one_device("auto", "16-mixed", threads=1)
    with pytest.raises(MiramError, match="16-mixed, which needs a GPU"):
        pretrain("out", "crops.u8", "crops_index.csv", [], [], recipe_of("mae", precision="16-mixed"),
                 checkpoint_every_epochs=1, accelerator="auto", threads=1, devices=1,
                 divide=parts_that_fit)  # fmt: skip
    assert one_device("auto", "bf16-mixed", threads=1).device.type == "cpu"


@pytest.fixture
def compiler(monkeypatch):
    """compiler(name): that is the only one on the machine; None: there is none."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # restored at the end, whatever is set meanwhile
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    return lambda own: monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == own else None)


def test_compiling_without_a_compiler_is_refused_with_both_remedies(compiler):
    compiler(None)
    with pytest.raises(MiramError, match=r"compute\.compile is true.*\n?.*Install g\+\+.*false"):
        prepare_compiler()


def test_what_is_compiled_is_kept_for_later_jobs_in_the_folder_of_the_run(compiler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compiler("g++")
    prepare_compiler()
    assert cache_dir() == str(tmp_path / ".cache" / "torch-compile")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    prepare_compiler()
    assert cache_dir() == "/elsewhere"


def test_in_a_slurm_job_of_several_tasks_one_device_is_one_process(monkeypatch):
    for name, value in {"NTASKS": "4", "JOB_NAME": "mine", "JOB_ID": "7", "PROCID": "2", "LOCALID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = one_device("cpu", "32-true", threads=1)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_a_record_tells_the_instructions_and_threads_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    facts = device_facts(one_device("cpu", "bf16-mixed", threads=1))
    assert facts.pop("device").startswith("cpu (")
    assert facts == {"cpu_capability": "AVX512", "threads": 3, "precision": "bf16-mixed", "tf32": False}


@pytest.mark.parametrize(
    ("accelerator", "bfloat", "taken"),
    [("cuda", True, "bf16-mixed"), ("cuda", False, "16-mixed"), ("cpu", True, "32-true")],
)
def test_auto_takes_the_precision_that_the_device_is_good_at(monkeypatch, accelerator, bfloat, taken):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat and not including_emulation)
    assert usable_precision("auto", accelerator) == taken
    assert usable_precision("32-true", accelerator) == "32-true"


@pytest.mark.parametrize(
    ("device", "precision", "matmul"),
    [("cuda", "32-true", "high"), ("cuda", "bf16-mixed", "highest"), ("cpu", "32-true", "highest")],
)
def test_tf32_is_for_full_float32_on_a_gpu_alone_and_its_peak_memory_counts_anew(
    device, precision, matmul, monkeypatch
):
    counted = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda own: counted.append(own.type))
    strategy = SimpleNamespace(precision=SimpleNamespace(precision=precision))
    fabric = SimpleNamespace(device=torch.device(device), strategy=strategy)
    prepare_torch(fabric, threads=1)
    assert torch.get_float32_matmul_precision() == matmul
    assert counted == [device] * (device == "cuda")
