"""The commands of the networks: pre-training, fine-tuning, probes, and explanations."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miram import layout, params
from miram.cli.stage import (
    check_known,
    do_stage,
    finished_of,
    first_pretrainings,
    given_encoders,
    given_file,
    store_of,
)
from miram.errors import MiramError
from miram.provenance import record
from miram.stages import STAGES

if TYPE_CHECKING:
    from miram.train.seen import Seen

Files = tuple[Path, Path, Path, Path, Path, Path | None]  # out_dir, crops, index, lesions, splits, encoder or none


def pretrain(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Pre-train a method on the crops of the training and validation lesions, and on additional images."""
    from miram.data.splits import pretraining_backgrounds, pretraining_lesions
    from miram.planning.memory import parts_that_fit
    from miram.train.pretrain import pretrain as train
    from miram.train.store import extra_ids

    place = protocol, method, seed = arguments.protocol, arguments.method, arguments.seed
    check_known("protocol", protocol, chosen.splits.protocols)
    check_known("method", method, chosen.methods)
    check_known("seed", seed, chosen.pretrain.seeds)
    _require_accelerator(chosen)
    inputs = [layout.record(stage, chosen.name) for stage in ("crops", "pack")]
    inputs.append(layout.record("splits", chosen.name, protocol))
    for path in inputs:
        record.read(path)
    lesions_csv, backgrounds_csv = (layout.data(chosen.name) / f"{name}.csv" for name in ("lesions", "backgrounds"))
    splits_csv = layout.splits(chosen.name, protocol)
    store = _, index_csv = store_of(chosen)
    seen, pictured = pretraining_lesions(splits_csv)
    seen += [*pretraining_backgrounds(lesions_csv, splits_csv, backgrounds_csv), *extra_ids(index_csv)]
    recipe = params.recipe_of(chosen, method, seed)
    if recipe.encoder_init:
        inputs.append(given_file("encoder_init", recipe.encoder_init))
    out = layout.pretrain(chosen.name, *place)
    outputs = [out / "encoder.safetensors", out / "log.csv"]
    if recipe.masked:
        outputs.append(out / "reconstructions.npz")

    def work() -> dict[str, Any]:
        return train(
            out,
            *store,
            seen,
            pictured,
            recipe,
            checkpoint_every_epochs=chosen.methods[method].pretrain.checkpoint_every_epochs,
            accelerator=chosen.compute.accelerator,
            threads=chosen.compute.threads,
            devices=chosen.compute.devices,
            divide=parts_that_fit,
        )

    do_stage(chosen, "pretrain", inputs, outputs, work, *place)


def finetune(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Fine-tune a method with one seed."""
    from miram.train.finetune import finetune as train

    def work(cell: layout.Cell, files: Files) -> dict[str, Any]:
        tuning, first = params.tuning_of(chosen, cell), params.chooser(chosen, cell)
        if first:
            lr = record.read(layout.record("finetune", chosen.name, *first))["facts"]["lr"]
            tuning = dataclasses.replace(tuning, lr=[lr])
        return train(*files, tuning, seen=_seen(chosen))

    _classify(chosen, "finetune", arguments, work)


def _seen(chosen: params.Params) -> "Seen":
    """How training pictures are read and cut; for own images according to their record."""
    from miram.data.crop_rules import WINDOW
    from miram.data.pictures.picture import Range
    from miram.data.pictures.survey import FILMS
    from miram.train.seen import Seen

    if chosen.source != params.IMAGES:
        rule = {name: getattr(chosen.crops, name) for name in WINDOW}
        return Seen(levels=FILMS.levels, ranges=FILMS.ranges, films=True, **rule)
    made = record.read(layout.record("images", chosen.name))
    values = made["values"]["images"]
    if not {"levels", *WINDOW} <= values.keys():
        raise MiramError("The images were read by an older version.", "Run the stage `images` again.")
    ranges = {kind: Range(*levels) for kind, levels in made["facts"]["ranges"].items()}
    return Seen(levels=values["levels"], ranges=ranges, films=False, **{name: values[name] for name in WINDOW})


def probe(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Classify the features of a method's frozen encoder."""
    from miram.train.probe import probe as fit

    def work(cell: layout.Cell, files: Files) -> dict[str, Any]:
        return fit(*files, params.probe_of(chosen, cell))

    _classify(chosen, "probe", arguments, work)


def _classify(
    chosen: params.Params,
    stage: str,
    arguments: argparse.Namespace,
    work: Callable[[layout.Cell, Files], dict[str, Any]],
) -> None:
    """A classifier on the encoder that a cell starts from; `work` writes into the cell's folder."""
    cell = layout.Cell(*(getattr(arguments, name) for name in layout.Cell._fields))
    own = [other for other in params.cells(chosen) if other.mode in STAGES[stage].modes]
    for name, value in cell._asdict().items():
        check_known(name, value, dict.fromkeys(getattr(other, name) for other in own))
    _require_accelerator(chosen)
    run = chosen.name
    inputs = [layout.record(name, run) for name in ("crops", "pack")]
    inputs.append(layout.record("splits", run, cell.protocol))
    encoder_file = None
    pretrain_seed = params.pretrain_seed(chosen, cell)
    if pretrain_seed is not None:
        inputs.append(layout.record("pretrain", run, cell.protocol, cell.method, pretrain_seed))
        encoder_file = inputs[-1].parent / "encoder.safetensors"
    if first := params.chooser(chosen, cell):
        inputs.append(layout.record(stage, run, *first))
    for path in inputs:
        record.read(path)
    if given := given_encoders(chosen, [cell.method]):
        encoder_file = given[cell.method]
        inputs.append(encoder_file)
    tables = layout.data(run) / "lesions.csv", layout.splits(run, cell.protocol)
    out = layout.classifier(run, cell)
    outputs = [out / layout.PREDICTIONS, out / "log.csv"]
    if cell in params.kept(chosen):
        outputs.append(out / "model.safetensors")
    files = out, *store_of(chosen), *tables, encoder_file
    do_stage(chosen, stage, inputs, outputs, lambda: work(cell, files), *cell)


def trivial(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Classify by the size and by the grey values of the crops."""
    from miram.train.trivial import classify_trivially

    run, (protocol, task) = chosen.name, (arguments.protocol, arguments.task)
    check_known("protocol", protocol, chosen.splits.protocols)
    check_known("task", task, chosen.finetune.tasks)
    inputs = [*(layout.record(name, run) for name in ("crops", "pack")), layout.record("splits", run, protocol)]
    for path in inputs:
        record.read(path)
    out = layout.record("trivial", run, protocol, task).parent
    outputs = [out / "log.csv", *(layout.trivial_predictions(out, method) for method in layout.TRIVIAL)]
    tables = layout.data(run) / "lesions.csv", layout.splits(run, protocol)
    own = params.trivial_of(chosen, task)
    do_stage(
        chosen,
        "trivial",
        inputs,
        outputs,
        lambda: classify_trivially(out, *store_of(chosen), *tables, own),
        protocol,
        task,
    )


def explain(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Explain the fine-tuned networks of the first seed, and the pre-trained ones that they started from."""
    from miram.train.explain import explain as examine

    _require_accelerator(chosen)
    run, (protocol, task, _) = chosen.name, params.headline(chosen)
    finished = {cell.method: path for cell, path in finished_of(chosen, params.explained(chosen)).items()}
    if not finished:
        raise MiramError(
            f"No fine-tuning of task {task}, protocol {protocol}, has finished.", "Run the fine-tuning first."
        )
    pretrained = {m: path for m, path in first_pretrainings(chosen, protocol).items() if m in finished}
    given = given_encoders(chosen, finished)
    inputs = [layout.record("pack", run), layout.record("splits", run, protocol)]
    inputs += [*finished.values(), *pretrained.values()]
    for path in inputs:
        record.read(path)
    inputs += given.values()
    classifiers = {method: path.parent / "model.safetensors" for method, path in finished.items()}
    encoders = given | {method: path.parent / "encoder.safetensors" for method, path in pretrained.items()}
    out, tables = layout.explain(run), (layout.data(run) / "lesions.csv", layout.splits(run, protocol))
    do_stage(
        chosen,
        "explain",
        inputs,
        [out / "relevance.npz", out / "embedding.csv"],
        lambda: examine(out, *store_of(chosen), *tables, classifiers, encoders, params.explaining_of(chosen)),
    )


def _require_accelerator(chosen: params.Params) -> None:
    """Stop a training of a preset that needs a GPU if there is none: a cluster's preflight runs elsewhere."""
    from miram.planning.gpu import require_accelerator

    require_accelerator(chosen.compute.accelerator, chosen.preset)
