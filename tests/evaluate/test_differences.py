from pathlib import Path

import pytest

from miram import params
from miram.evaluate.differences import differs_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("miram-nystrom", "mae", "side (224 against 112), batch (256 against 1024), optimiser steps (4 to 1)"),
        ("miram-nystrom", "mae-224", ""),
        ("miram-nystrom-112", "mae", ""),
        ("miram-nystrom", "from-scratch", "side (224 against 112)"),
        ("mae", "trivial-size", ""),
    ],
)
def test_the_rows_of_the_paper_differ_in_side_and_batch_and_those_that_settle_it_do_not(first, second, told):
    values = params.stage_values(params.load(ROOT / "params.yaml", "paper"), "evaluate")
    assert differs_in(first, second, values["conditions"]) == told
    assert values["further"] == ["miram-nystrom-112"]


@pytest.mark.parametrize("preset", ["paper-448", "paper-896"])
def test_the_presets_beyond_the_paper_have_no_rows_to_settle(preset):
    assert not {"miram-nystrom-112", "mae-224"} & set(params.load(ROOT / "params.yaml", preset).methods)
