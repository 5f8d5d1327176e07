"""What a stage's process imports before it works: a library that it does not need costs each of its jobs seconds."""

import subprocess
import sys

import pytest

LIBRARIES = {"torch", "timm", "sklearn", "scipy.stats", "pandas", "pydicom", "matplotlib", "requests", "tensorboard"}
NEEDED = {  # what commands import, beside the command line -> the libraries that they need
    "": set(),
    "miram.data.splits, miram.train.store": {"pandas"},
    "miram.data.splits, miram.data.pictures.survey, miram.train.seen, miram.train.pretrain, miram.train.finetune": {
        *("torch", "timm", "pandas", "tensorboard")
    },
    "miram.evaluate.claims": {"pandas"},
    "miram.report.efficiency, miram.report.table": {"pandas", "matplotlib"},
}


@pytest.mark.parametrize("modules", NEEDED)
def test_the_stages_of_many_jobs_import_no_library_that_they_do_not_need(modules: str) -> None:
    code = f"import sys\nimport miram.cli\n{modules and f'import {modules}'}\nprint(*sys.modules)"
    started = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8")
    assert LIBRARIES & {*started.stdout.split()} == NEEDED[modules]
