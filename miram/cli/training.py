"""The commands of the networks: pre-training, classifiers, and explanations."""

import argparse
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from miram import layout, params
from miram.cli.stage import (
    check_known,
    do_stage,
    drop_outdated,
    finished_of,
    first_pretrainings,
    given_encoders,
    given_file,
    store_of,
)
from miram.errors import MiramError, ParameterError
from miram.provenance import record
from miram.stages import STAGES

if TYPE_CHECKING:
    from miram.train.classifiers import Lesions
    from miram.train.seen import Seen


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


def classify(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Fine-tune and probe a method with every seed."""
    run, place = chosen.name, (arguments.protocol, arguments.task, arguments.method)
    for name, value in zip(STAGES["classify"].place, place, strict=True):
        check_known(name, value, dict.fromkeys(getattr(cell, name) for cell in params.cells(chosen)))
    parts = params.parts(chosen, "classify", *place)
    if not parts:
        raise ParameterError(
            f"There is no classifier of task {place[1]} under protocol {place[0]}.", "See splits.further."
        )
    _require_accelerator(chosen)
    own = [layout.record(stage.name, run, *cell) for stage, cell in parts]
    inputs = dict.fromkeys(path for _, cell in parts for path in params.inputs_of(chosen, cell) if path not in own)
    given = given_encoders(chosen, [arguments.method]).values()
    for path in inputs.keys() - {*given}:
        record.read(path)
    do_stage(chosen, "classify", inputs, own, lambda: _classified(chosen, parts), *place)


def _classified(chosen: params.Params, parts: list[params.Part]) -> dict[str, Any]:
    """Make the classifiers that are not current, see `drop_outdated`; one that fails does not stop the others.

    Raises MiramError that names those that failed.
    """
    from miram.train.classifiers import Lesions, resized_to
    from miram.train.device import release_memory

    left, faults = drop_outdated(chosen, parts), {}
    for _, cell in (part for part in parts if part not in left):
        print(f"{cell} is current: it stays as it is", file=sys.stderr, flush=True)
    lesions = None
    for stage, cell in left:
        if lesions is None:  # the same for all
            tables = layout.data(chosen.name) / "lesions.csv", layout.splits(chosen.name, cell.protocol)
            view = resized_to(params.side_of(chosen, cell.method))
            lesions = Lesions(*store_of(chosen), *tables, cell.task, view)
        release_memory()
        try:
            _classifier(chosen, stage.name, cell, lesions)
        except MiramError as fault:
            faults[cell] = MiramError(fault.message, fault.remedy)  # its traceback would hold network and activations
            print(f"{cell}: {fault}", file=sys.stderr, flush=True)
    if faults:
        raise MiramError(
            "\n".join(f"{cell}: {fault.message}" for cell, fault in faults.items()),
            " ".join(dict.fromkeys(fault.remedy for fault in faults.values())),
        )
    return {"classifiers": len(parts), "kept": len(parts) - len(left)}


def _classifier(chosen: params.Params, stage: str, cell: layout.Cell, lesions: "Lesions") -> None:
    """One classifier on the encoder that its cell starts from, and its record."""
    run, out = chosen.name, layout.classifier(chosen.name, cell)
    encoder_file = given_encoders(chosen, [cell.method]).get(cell.method)
    if (seed := params.pretrain_seed(chosen, cell)) is not None:
        encoder_file = layout.pretrain(run, cell.protocol, cell.method, seed) / "encoder.safetensors"
    outputs = [out / layout.PREDICTIONS, out / "log.csv"]
    if stage == "probe":
        from miram.train.probe import probe  # with scikit-learn, which fine-tuning does not need

        work = partial(probe, out, lesions, encoder_file, params.probe_of(chosen, cell))
    else:
        from miram.train.finetune import finetune

        tuning = params.tuning_of(chosen, cell)
        if first := params.chooser(chosen, cell):
            tuning = replace(tuning, lr=[record.read(layout.record(stage, run, *first))["facts"]["lr"]])
        if tuning.keep_network:
            outputs.append(out / "model.safetensors")
        work = partial(finetune, out, lesions, encoder_file, tuning, seen=_seen(chosen))
    do_stage(chosen, stage, params.inputs_of(chosen, cell), outputs, work, *cell)


def _seen(chosen: params.Params) -> "Seen":
    """How training pictures are read and cut; for own images according to their record."""
    from miram.data.crop_rules import WINDOW
    from miram.data.pictures.picture import Range
    from miram.data.pictures.survey import AS_STORED, FILMS
    from miram.train.seen import WHOLE, Seen

    if chosen.crops.from_ == params.ARCHIVE:
        levels, ranges = AS_STORED
        return Seen(levels=levels, ranges=ranges, films=False, component="union", shape=WHOLE, margin=0.0, side_min=1)
    if chosen.source != params.IMAGES:
        rule = {name: getattr(chosen.crops, name) for name in WINDOW}
        return Seen(levels=FILMS.levels, ranges=FILMS.ranges, films=True, **rule)
    made = record.read(layout.record("images", chosen.name))
    values = made["values"]["images"]
    if not {"levels", *WINDOW} <= values.keys():
        raise MiramError("The images were read by an older version.", "Run the stage `images` again.")
    ranges = {kind: Range(*levels) for kind, levels in made["facts"]["ranges"].items()}
    return Seen(levels=values["levels"], ranges=ranges, films=False, **{name: values[name] for name in WINDOW})


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
    pretrained = {m: path for m, path in first_pretrainings(chosen, arguments, protocol).items() if m in finished}
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

    require_accelerator(chosen.compute.accelerator, chosen.encoder)
