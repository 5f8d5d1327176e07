"""What the commands share: a stage done as the sole writer of its record, and what its jobs are told of."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from miram import layout, params
from miram.errors import ParameterError
from miram.files import sole_writer
from miram.provenance import record


def do_stage(
    chosen: params.Params,
    stage: str,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    work: Callable[[], dict[str, Any]],
    *place: int | str,
) -> None:
    """Do a stage's work as the sole writer of its record, and write that."""
    path = layout.record(stage, chosen.name, *place)
    values = params.stage_values(chosen, stage, *place)
    if _helps():
        if stage == "pretrain":
            work()
        return
    with sole_writer(path.parent, path.stem):
        begun = record.begin(path, stage=stage, values=values, inputs=inputs)
        record.finish(path, begun, facts=work(), outputs=outputs)


def _helps() -> bool:
    """Whether torchrun started this process beside a first one, which alone locks and writes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"


def pretrainings(chosen: params.Params) -> dict[str, dict[str, Any]]:
    """The values of each method's pre-training; they are the same under every protocol."""
    protocol = chosen.splits.protocols[0]
    return {name: params.stage_values(chosen, "pretrain", protocol, name) for name in chosen.methods}


def classifiers(chosen: params.Params) -> dict[layout.Cell, Path]:
    """The record of every cell, in the order of the table's rows."""
    return {cell: layout.record("finetune", chosen.name, *cell) for cell in params.cells(chosen)}


def unfinished_logs(chosen: params.Params) -> dict[Path, Path]:
    """What was said by the trainings that the workflow began and that have no record: that record -> the log."""
    run, jobs = chosen.name, [(stage.name, place) for stage, place in params.jobs(chosen) if "method" in stage.place]
    logs = {layout.record(stage, run, *place): layout.log(stage, run, *place) for stage, place in jobs}
    return {path: log for path, log in logs.items() if log.exists() and not path.exists()}


def finished_of(chosen: params.Params, cells: Iterable[layout.Cell]) -> dict[layout.Cell, Path]:
    """The records of those cells that have one."""
    paths = {cell: layout.record("finetune", chosen.name, *cell) for cell in cells}
    return {cell: path for cell, path in paths.items() if path.exists()}


def store_of(chosen: params.Params) -> tuple[Path, Path]:
    """The packed crops and their index."""
    data = layout.data(chosen.name)
    return data / "crops.u8", data / "crops_index.csv"


def given_file(name: str, file: str | None) -> Path:
    """The file that a parameter names; raises ParameterError when there is none."""
    if file is None or not Path(file).is_file():
        raise ParameterError(f"{name}: there is no file {file}", "Mend the path, or write null.")
    return Path(file)


def check_known(name: str, value: int | str, allowed: Iterable[int | str]) -> None:
    """Raise ParameterError, with what is allowed, for a value that is not."""
    if value not in allowed:
        raise ParameterError(f"There is no {name} {value!r}.", f"Allowed: {', '.join(map(str, allowed))}.")
