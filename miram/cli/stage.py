"""What the commands share: running a stage as the only writer of its record, and finding records and files."""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from miram import layout, params
from miram.errors import ParameterError
from miram.files import sole_writer
from miram.provenance import record
from miram.recipe import Recipe


def do_stage(
    chosen: params.Params,
    stage: str,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    work: Callable[[], dict[str, Any]],
    *place: int | str,
) -> None:
    """Run a stage as the only writer of its record, and write the record."""
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
    """Whether torchrun started this process in addition to a first one; only the first locks and writes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"


def recipes(chosen: params.Params) -> dict[str, Recipe]:
    """What decides each method's first pre-training; it is the same under every protocol."""
    return {name: params.recipe_of(chosen, name) for name in chosen.methods}


def distance(chosen: params.Params, arguments: argparse.Namespace) -> list[str]:
    """What differs from preset `paper` of the same file, in words."""
    return params.distance(chosen, params.load(arguments.params, layout.BASE))


def first_pretrainings(chosen: params.Params, arguments: argparse.Namespace, protocol: str) -> dict[str, Path]:
    """The record of each method's pre-training with the first seed: the one that is shown, explained and exported."""
    seed = chosen.pretrain.seeds[0]
    return {name: shown_record(chosen, arguments, "pretrain", protocol, name, seed) for name in chosen.methods}


def classifiers(chosen: params.Params, arguments: argparse.Namespace) -> dict[layout.Cell, Path]:
    """The record of every cell, in the order of the table's rows, as in `shown_record`."""
    return {cell: shown_record(chosen, arguments, "finetune", *cell) for cell in params.cells(chosen)}


def shown_record(chosen: params.Params, arguments: argparse.Namespace, stage: str, *place: int | str) -> Path:
    """The record of a job; where `so_far` hides it, a path without a file, which says why."""
    path = layout.record(stage, chosen.name, *place)
    return path.with_name(f"{path.name} of the present parameters") if path in arguments.hidden else path


def expected(chosen: params.Params) -> dict[Path, tuple[str, dict[str, Any]]]:
    """The record of each job and each classifier of the parameters -> its stage and its values."""
    return {
        layout.record(stage.name, chosen.name, *place): (stage.name, params.stage_values(chosen, stage.name, *place))
        for stage, place in params.jobs(chosen)
    }


def drop_outdated(chosen: params.Params, parts: Iterable[params.Part]) -> list[params.Part]:
    """Delete the record of each of these classifiers that is not current, and return them: they are to be made."""
    left = []
    for stage, cell in parts:  # in their order, as the first chooses the learning rate of others
        path, values = layout.record(stage.name, chosen.name, *cell), params.stage_values(chosen, stage.name, *cell)
        complete = all(before.exists() for before in params.inputs_of(chosen, cell))
        if not (complete and record.is_current(path, stage=stage.name, values=values)):
            path.unlink(missing_ok=True)
            left.append((stage, cell))
    return left


def outdated(chosen: params.Params) -> set[Path]:
    """The records that a run would replace: they, or some that they were made from, are not current."""
    every = expected(chosen)

    @cache
    def current(path: Path) -> bool:
        stage, values = every[path]
        if not record.is_current(path, stage=stage, values=values):
            return False
        return all(current(before) for before in map(Path, record.read(path)["inputs"]) if before in every)

    return {path for path in every if path.exists() and not current(path)}


def trivial_records(chosen: params.Params, arguments: argparse.Namespace) -> dict[layout.Cell, Path]:
    """The record of every trivial classifier, as in `classifiers`; those of a protocol and task share one."""
    return {cell: shown_record(chosen, arguments, "trivial", *cell[:2]) for cell in params.trivial_cells(chosen)}


def unfinished_logs(chosen: params.Params) -> dict[Path, Path]:
    """The logs of trainings that the workflow started and that have no record: record -> log."""
    run, jobs = chosen.name, [(stage.name, place) for stage, place in params.jobs(chosen) if "seed" in stage.place]
    logs = {layout.record(stage, run, *place): layout.log(stage, run, *place) for stage, place in jobs}
    return {path: log for path, log in logs.items() if log.exists() and not path.exists()}


def finished_of(chosen: params.Params, cells: Iterable[layout.Cell]) -> dict[layout.Cell, Path]:
    """The records of the cells that have one."""
    paths = {cell: layout.record("finetune", chosen.name, *cell) for cell in cells}
    return {cell: path for cell, path in paths.items() if path.exists()}


def store_of(chosen: params.Params) -> tuple[Path, Path]:
    """The packed crops and their index."""
    data = layout.data(chosen.name)
    return data / "crops.u8", data / "crops_index.csv"


def given_file(name: str, file: str | None) -> Path:
    """The file that a parameter names; raises ParameterError if it does not exist."""
    if file is None or not Path(file).is_file():
        raise ParameterError(f"{name}: there is no file {file}", "Correct the path or set it to null.")
    return Path(file)


def given_encoders(chosen: params.Params, rows: Iterable[str]) -> dict[str, Path]:
    """The file of each of these rows that `encoders` gives one; raises ParameterError if one does not exist."""
    files = {name: own.weights for name, own in chosen.encoders.items() if name in rows and own.weights is not None}
    return {name: given_file(f"encoders.{name}.weights", file) for name, file in files.items()}


def check_known(name: str, value: int | str, allowed: Iterable[int | str]) -> None:
    """Raise ParameterError, with what is allowed, for other values."""
    if value not in allowed:
        raise ParameterError(f"There is no {name} {value!r}.", f"Allowed: {', '.join(map(str, allowed))}.")
