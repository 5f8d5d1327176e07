"""The commands that apply a finished network: to pictures, and to external cases."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miram import layout, params
from miram.cli.stage import check_known, expected, finished_of
from miram.errors import MiramError, ParameterError
from miram.files import sha256_file
from miram.provenance import record

if TYPE_CHECKING:
    from miram.train.cases import Answered

NO_DEVICE = "research software, not a medical device"
THE_ARCHIVES = "the archive's own crops, as are these pictures."
CHOICE = ("protocol", "task", "method")  # options of `predict` that choose among the networks of the run
DECIDE_NOTHING = f"{NO_DEVICE.capitalize()}: do not use it for decisions about patients."


def predict(chosen: params.Params, arguments: argparse.Namespace) -> int:
    """Apply a fine-tuned network to one picture, or to every picture of a folder."""
    from miram.report.prediction import draw_prediction
    from miram.train.predict import predict as ask
    from miram.train.predict import predict_folder

    model_file, title = _asked(chosen, arguments)
    warning = _warning(chosen, arguments)
    picture, machine = arguments.picture, _machine(chosen)
    if picture.is_dir():
        if arguments.box is not None:
            raise ParameterError("--box is for a single picture, not for a folder.", "Leave it out.")
        out = arguments.out or Path("predictions.csv")
        faults = predict_folder(model_file, picture, out, **machine)
        for name, fault in faults.items():
            print(f"not predicted: {name}: {fault}", file=sys.stderr)
        print(f"{title}\npredictions: {out}; {len(faults)} files could not be used\n{warning}")
        return int(bool(faults))
    out = arguments.out or Path("prediction.png")
    facts = ask(model_file, picture, arguments.box, **machine)
    place = (
        "" if arguments.box is None else f", square of {arguments.box[2]} px at {arguments.box[0]}, {arguments.box[1]}"
    )
    title = f"{picture.name}{place}\n{title}"
    draw_prediction(facts.view, facts.relevance, facts.probabilities, out, title=title, warning=warning)
    print(title)
    if facts.note:
        print(f"check the picture: {facts.note}")
    for name, probability in facts.probabilities.items():
        print(f"{100 * probability:6.1f} %  {name}")
    print(f"picture: {out}\n{warning}")
    return 0


def test(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Apply a fine-tuned network to the cases of a table, and measure its predictions."""
    from miram.data.tasks import JOINT
    from miram.evaluate.cases import measure_cases
    from miram.predictions import Predictions, Question
    from miram.report.cases import About, write_report
    from miram.train.cases import answer_cases, read_cases

    table_csv, out = arguments.table, arguments.out
    cases, for_training = read_cases(table_csv, arguments.folder or table_csv.parent)
    found = answer_cases(arguments.network, cases, out / "predictions.csv", **_machine(chosen))
    values = params.stage_values(chosen, "evaluate")["statistics"]
    positive = _positive(chosen, found.network.classes)
    several = (JOINT, values["threshold"]) if found.network.multi_label else (None, None)
    question = Question("", layout.FINETUNE, 0, found.network.classes, *several)  # not a task of ours
    figures = measure_cases(
        Predictions(question, found.table),
        found.groups,
        out / "metrics.csv",
        options={"specificity": values["specificity"], "threshold": values["threshold"], "bins": values["bins"]},
        positive=positive,
        **{name: values[name] for name in ("resamples", "seed", "confidence", "min_draws_share")},
    )
    about = About(
        title=f"{arguments.network.name} on the cases of {table_csv.name}",
        facts=_told_of_test(arguments.network, table_csv, found, for_training),
        aside=found.aside,
        confidence=values["confidence"],
        positive=positive,
        warning=DECIDE_NOTHING,
    )
    write_report(out, figures, about)
    print((out / "report.md").read_text(encoding="utf-8"), end="")
    print(f"\npredictions, metrics and report: {out}")


def _told_of_test(network: Path, table_csv: Path, found: "Answered", for_training: int) -> list[str]:
    """Sentences on the network, the cases, and how pictures were read."""
    from miram.train.seen import WHOLE

    table, seen, encoder = found.table, found.seen, found.network.model.encoder
    counts = ", ".join(f"{name} {count}" for name, count in table["label"].value_counts().sort_index().items())
    cut = "lesions in films" if seen.films else "whole pictures, or their lesions"
    cut += f"; crops: {seen.shape}, margin {seen.margin}, at least {seen.side_min} px."
    facts = [
        f"Network: {network}, SHA-256 {sha256_file(network)}.",
        f"Table: {table_csv}, SHA-256 {sha256_file(table_csv)}.",
        f"Cases: {len(table)} lesions of {table['patient_id'].nunique()} patients: {counts}.",
        f"As in training, by the network's file: side {encoder.side} px, {encoder.channels} channels, grey levels by "
        f"the rule {seen.levels}; it was trained on {THE_ARCHIVES if seen.shape == WHOLE else cut}",
    ]
    return facts + ([f"Left out: {for_training} rows that are for training."] if for_training else [])


def _positive(chosen: params.Params, classes: Sequence[str]) -> list[str] | None:
    """The class whose sensitivity is measured: that of the parameters, or the malignant ones of CBIS-DDSM."""
    from miram.evaluate.scores import MALIGNANT

    own = chosen.sources.images.positive
    if own is not None and own in classes:
        return [own]
    return None if any(name.startswith(MALIGNANT) for name in classes) else []


def _machine(chosen: params.Params) -> dict[str, Any]:
    return {name: getattr(chosen.compute, name) for name in ("accelerator", "precision", "threads")}


def _asked(chosen: params.Params, arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file of the network that `predict` uses, and its description."""
    if arguments.network is not None:
        beside = [f"--{name}" for name in CHOICE if getattr(arguments, name) is not None]
        if beside:
            raise ParameterError(
                f"{', '.join(beside)}: these choose a network of this run, and --network names another.",
                "Leave one or the other out.",
            )
        return arguments.network, str(arguments.network)
    cell, path = _chosen_network(chosen, arguments)
    what = f"{cell.method}, {cell.task}, protocol {cell.protocol}, seed {cell.seed}"
    return path.parent / "model.safetensors", what


def _warning(chosen: params.Params, arguments: argparse.Namespace) -> str:
    demo = arguments.network is None and params.is_embedded(chosen)
    learnt = "It has learnt from phantom lesions only. " if demo else ""
    return learnt + DECIDE_NOTHING


def _chosen_network(chosen: params.Params, arguments: argparse.Namespace) -> tuple[layout.Cell, Path]:
    """The fine-tuning of the present parameters that `predict` uses, and its record: the best on validation."""
    from miram.provenance.verify import shortfalls

    protocol, task, _ = params.headline(chosen)
    wanted = arguments.protocol or protocol, arguments.task or task, layout.FINETUNE
    cells = params.cells(chosen)
    for name, value in zip(CHOICE, (*wanted[:2], arguments.method), strict=True):
        if value is not None:
            check_known(name, value, dict.fromkeys(getattr(cell, name) for cell in cells))
    own = [cell for cell in params.kept(chosen) if cell[:3] == wanted and arguments.method in (None, cell.method)]
    finished, every = finished_of(chosen, own), expected(chosen)
    made_from = {cell: [path, *params.inputs_of(chosen, cell)] for cell, path in finished.items()}
    there = {cell: [path for path in paths if path in every and path.exists()] for cell, paths in made_from.items()}
    faults = {cell: shortfalls({path: every[path] for path in paths}) for cell, paths in there.items()}
    usable = [cell for cell in finished if not faults[cell]]
    if not usable:
        raise MiramError(
            f"No fine-tuning of task {wanted[1]}, protocol {wanted[0]}, has finished with the present parameters"
            + (f" for method {arguments.method}." if arguments.method else ".")
            + "".join(f" {found[0]}" for found in [*faults.values()][:1]),
            f"Run the workflow first: snakemake --config preset={chosen.preset}; or name a network: --network FILE.",
        )
    best = max(usable, key=lambda cell: record.read(finished[cell])["facts"]["val_macro_auc"])
    return best, finished[best]
