"""DVC above the workflow makes the numbers of the workflow; what it stores and runs again: tests/test_dvc.py."""

import pytest
from real_tools import assert_same_numbers
from test_pipeline import BIN, finished

pytestmark = pytest.mark.container


def test_its_numbers_are_plain_snakemakes(project, plain):
    finished(project, [BIN / "dvc", "repro"])
    assert_same_numbers(project, plain)
