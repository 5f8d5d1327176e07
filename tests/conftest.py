from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is a fact of the machine and its load, and no fault of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
ROOT = Path(__file__).parent.parent
pytest_plugins = ["study_fixtures"]


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference material in {folder.name}/ beside the project, which this checkout lacks")
    return folder
