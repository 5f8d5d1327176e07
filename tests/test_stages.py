"""A stage is one row: what a row names exists, and whatever acts as a stage has a row."""

import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import yaml

from miram import layout, params
from miram.cli import COMMANDS, _parser, results, training
from miram.cli import data as data_commands
from miram.params.schema import Finetune
from miram.provenance import record
from miram.stages import STAGES

ROOT = Path(__file__).parent.parent
PLACE = {"protocol": "strict", "task": "pathology_4class", "method": "mae", "seed": 0}
ROWS = pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
OWN = {name for name, row in STAGES.items() if not row.within}  # that have a rule and a sub-command


def place(stage):
    own = PLACE | {"mode": stage.modes[-1] if stage.modes else None}
    return [own[name] for name in stage.place]


@ROWS
def test_a_row_has_its_module_its_record_its_values_and_its_sub_command(stage):
    assert record.ROOT.parent.joinpath(*stage.module.split(".")).with_suffix(".py").is_file()
    chosen = params.load(ROOT / "params.yaml")
    assert isinstance(params.stage_values(chosen, stage.name, *place(stage)), dict)
    assert not re.search("[{}]", str(layout.record(stage.name, "demo", *place(stage))))
    assert not re.search("[{}]", str(layout.log(stage.name, "demo", *place(stage))))
    if stage.within:
        assert layout.log(stage.name, "demo", *place(stage)) == layout.log(
            stage.within, "demo", *place(STAGES[stage.within])
        )
        return
    options = [word for name in stage.place for word in (f"--{name}", str(PLACE[name]))]
    arguments = _parser().parse_args([stage.name, *options])
    assert arguments.run is COMMANDS[stage.name] and arguments.run.__name__ == stage.name
    assert [getattr(arguments, name) for name in stage.place] == place(stage)


def test_every_rule_has_a_row_and_every_row_a_rule_or_a_job_that_it_is_done_in():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    _, *parts = re.split(r"^ *rule (\w+):\n", rules, flags=re.MULTILINE)
    bodies = {rule: body for rule, body in zip(parts[::2], parts[1::2], strict=True) if rule != "headline"}  # a target
    assert len(parts[::2]) == len(bodies) + 1 and bodies.keys() == OWN
    for rule, body in bodies.items():
        helpers = re.findall(r' (RECORD|LOG|DOES|\*\*TRIGGERS|COMMAND)\("(\w+)"\)', body.partition("output:")[2])
        assert helpers == [(name, rule) for name in ("RECORD", "LOG", "DOES", "**TRIGGERS", "COMMAND")]


def test_every_sub_command_that_writes_a_record_has_a_row():
    code = "".join(Path(module.__file__).read_text() for module in (data_commands, training, results))
    assert Counter(re.findall(r'do_stage\(\s*chosen,\s*"(\w+)"', code)) == Counter(OWN)


def test_every_mode_is_made_by_one_stage():
    modes = [mode for stage in STAGES.values() for mode in stage.modes]
    assert sorted(modes) == sorted(get_args(get_args(get_args(Finetune.__annotations__["modes"])[0])[0]))


def test_only_images_of_ones_own_stand_in_for_another_record(tmp_path):
    chosen = params.load(ROOT / "params.yaml")
    paths = Counter(layout.record(stage.name, "demo", *at) for stage, at in params.jobs(chosen))
    assert set(paths.values()) == {1}
    assert layout.record("images", "demo") == layout.record("crops", "demo")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["source"] = "images"
    for name in ("demo", "paper"):
        document["presets"][name]["finetune"]["tasks"] = ["label"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    own, all_rows = params.load(tmp_path / "params.yaml"), set(STAGES)
    assert {stage.name for stage in params.stages_of(own)} == all_rows - {
        *("archive", "catalogue", "crops", "audit", "claims")
    }
    assert {stage.name for stage in params.stages_of(chosen)} == all_rows - {"images"}
