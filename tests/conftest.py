import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is a fact of the machine and its load, and no fault of the code. Each run has the same ones.
settings.register_profile("unhurried", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
ROOT = Path(__file__).parent.parent
pytest_plugins = ["archive_fixtures", "study_fixtures"]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
LONG_MARKS = {line.partition(":")[0] for line in SETTINGS["markers"]}  # the default suite has none of them
LONG_SECONDS = 7200.0  # limit of a test with such a mark; the others have that of pyproject.toml


@pytest.hookimpl(trylast=True)  # once those that were not asked for are gone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if LONG_MARKS & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference material in {folder.name}/ beside the project, which this checkout lacks")
    return folder


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """wait_until(condition): look again and again; fails after a time that only a hang reaches."""

    def wait(condition: Callable[[], object], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds:.0f} s in vain")
            time.sleep(0.002)

    return wait


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> Iterator[None]:
    """No cluster: Snakemake asks Slurm at each start, and waits for seconds where no controller answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", os.devnull)
        yield


@pytest.fixture(autouse=True)
def _torch_as_it_starts() -> Iterator[None]:
    """Each test finds torch with the same global state, and leaves it so for fixtures that are shared."""
    _reset_torch()
    yield
    _reset_torch()


def _reset_torch() -> None:
    if "torch" not in sys.modules:  # most tests need none, and importing it takes seconds
        return
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")
    torch.manual_seed(0)
