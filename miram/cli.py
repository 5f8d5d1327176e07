"""The command line, one sub-command a stage: each reads params.yaml, does its work, and writes its record last."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miram import __version__, layout, params, record
from miram.errors import MiramError, ParameterError
from miram.files import sole_writer

PAPER = Path("workflow", "resources", "paper.csv")
CLAIMS = PAPER.with_name("claims.yaml")
NO_DEVICE = "research software, not a medical device"


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns the exit code: 0, 1 for a fault that the message explains, 2 for a wrong parameter."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(params.load(arguments.params, arguments.preset), arguments)
    except MiramError as error:
        print(f"miram {arguments.stage}: {error.message}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"miram {arguments.stage}: interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="miram", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"), help="parameter file (default: %(default)s)"
    )
    parser.add_argument("--preset", choices=params.PRESETS, help="in place of the preset that the file names")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    def add(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        stage = stages.add_parser(name, help=text, description=text)
        stage.set_defaults(run=run)
        return stage

    def place(stage: argparse.ArgumentParser, *names: str) -> None:
        """What tells the jobs of a stage apart; params.yaml lists the values."""
        for name in names:
            stage.add_argument(f"--{name}", type=int if name == "seed" else str, required=True)

    add("archive", archive, "write the embedded archive: a phantom CBIS-DDSM, as DICOM (preset demo)")
    serve = add("serve", serve_archive, "serve the embedded archive on loopback, as TCIA would, until interrupted")
    serve.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    add("doctor", doctor, "check this machine against what the preset needs (first stage of preset paper)")
    add("catalogue", catalogue, "fetch the case lists; list the series that their lesions need")
    cut = add("crops", crops, "film by film: fetch, verify, cut the lesions; write lesions.csv and set_aside.csv")
    cut.add_argument(
        "--dry-run", action="store_true", help="print what would be done, as `data plan`, and touch nothing"
    )
    about = add("data", lambda *_: None, "plan the transfer, or check the data against another's")
    about = about.add_subparsers(dest="question", required=True, metavar="QUESTION")
    text = "print series, bytes, disk at the peak and time; fail when the disk is too small; touch nothing"
    about.add_parser("plan", help=text, description=text).set_defaults(run=data_plan)
    text = "compare the SHA-256 of every verified instance with a list of them"
    check = about.add_parser("check", help=text, description=text)
    check.set_defaults(run=data_check)
    check.add_argument("file", type=Path, help="an instances.csv, such as that of results/<preset>/")
    add("images", images, "read images of one's own in place of crops (source images)")
    add("pack", pack, "decode all crops into one file for training")
    place(add("splits", splits, "divide the lesions into training, validation and test"), "protocol")
    add("audit", audit, "write what the splits share, and what was repaired, set aside or lies at a border")
    place(add("pretrain", pretrain, "pre-train one method"), "protocol", "method")
    tune = add("finetune", finetune, "fine-tune one method and predict validation and test")
    tune.set_defaults(mode=layout.FULL)
    place(tune, "protocol", "task", "method", "seed")
    frozen = add("probe", probe, "classify the frozen features of one method and predict validation and test")
    place(frozen, "protocol", "task", "mode", "method", "seed")
    size = add("fit", fit_memory, "predict the memory of pre-training, and the accumulation that keeps the batch")
    size.add_argument("--vram", type=float, required=True, metavar="GB", help="memory of one device, in 1e9 bytes")
    add("plan", plan_hours, "hours of all trainings by measured rates, beside what finished ones took")
    cost = add("bench", measure, "measure time and memory of attention, steps and input on this machine")
    cost.add_argument("--quick", action="store_true", help="few sizes: two minutes on a CPU")
    cost.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: in bf16 (default: %(default)s)")
    cost.add_argument("--out", type=Path, default=layout.BENCH, help="folder (default: %(default)s)")
    add("evaluate", evaluate, "compute the metrics of all predictions")
    add("claims", claims, "judge the paper's claims by the metrics, the differences and the bench")
    add("table", table, "write the comparison table and the figures")
    add("explain", explain, "map what fine-tuned networks rest on, and the features of pre-trained ones")
    add("report", report, "write the report: one HTML page that opens without a network")
    ask = add("predict", predict, f"ask a fine-tuned network about one picture; {NO_DEVICE}")
    ask.add_argument("picture", type=Path, metavar="IMAGE|DICOM", help="the crop of a lesion, or a film")
    ask.add_argument(
        "--box", type=int, nargs=3, metavar=("X0", "Y0", "SIDE"), help="square around the lesion in a film, px"
    )
    for name in ("protocol", "task", "method"):
        ask.add_argument(f"--{name}", help="default: the first of params.yaml; of methods the best on validation")
    ask.add_argument("--out", type=Path, default=Path("prediction.png"), help="the picture (default: %(default)s)")
    add("crate", crate, "describe the results folder as an RO-Crate: its files and what made them")
    check = add("verify", verify, "check a results folder against its records, name every mismatch")
    check.add_argument("folder", type=Path, nargs="?", help="default: the results of the preset")
    check.add_argument("--films", action="store_true", help="also read every DICOM file that is kept")
    return parser


def _stage(
    chosen: params.Params,
    stage: str,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    work: Callable[[], dict[str, Any]],
    *place: int | str,
) -> None:
    """Do a stage's work as the sole writer of its record, and write that."""
    path = layout.record(stage, chosen.preset, *place)
    values = params.stage_values(chosen, stage, *place)
    if _helps():
        if stage == "pretrain":
            work()
        return
    with sole_writer(path.parent, path.stem):
        begun = record.begin(path, stage=stage, values=values, inputs=inputs)
        record.finish(path, begun, facts=work(), outputs=outputs)


def fit_memory(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print what each method's pre-training takes, and how its batch fits."""
    from miram.fit import as_table

    print(as_table(_pretrainings(chosen), arguments.vram * 1e9, devices=chosen.compute.devices))


def plan_hours(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the hours of every training of the preset."""
    from miram.budget import as_table

    protocols, names = chosen.splits.protocols, chosen.methods
    cells = [cell for cell in params.cells(chosen) if cell.mode == layout.FULL]
    started = {
        name: [layout.record("pretrain", chosen.preset, protocol, name) for protocol in protocols] for name in names
    }
    tuned = [layout.record("finetune", chosen.preset, *cell) for cell in cells]
    print(as_table(_pretrainings(chosen), started, tuned, epochs=chosen.finetune.epochs, benches=layout.benches()))


def measure(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Run the bench at the sizes of the preset."""
    from miram.bench.efficiency import bench

    flags = [f"--device {arguments.device}"] + ["--quick"] * arguments.quick
    command = " ".join([f"miram --preset {chosen.preset} bench", *flags])
    print(f"written: {bench(_pretrainings(chosen), arguments.out, arguments.device, arguments.quick, command)}")


def _pretrainings(chosen: params.Params) -> dict[str, dict[str, Any]]:
    """The values of each method's pre-training; they are the same under every protocol."""
    protocol = chosen.splits.protocols[0]
    return {name: params.stage_values(chosen, "pretrain", protocol, name) for name in chosen.methods}


def _helps() -> bool:
    """Whether torchrun started this process beside a first one, which alone locks and writes."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"


def archive(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the embedded archive; what came from an older one goes."""
    from shutil import rmtree

    from miram.data.phantom.archive import write_archive

    if chosen.archive is None:
        raise ParameterError(f"Preset {chosen.preset} has no embedded archive.", "Allowed: --preset demo.")
    data = layout.data(chosen.preset)

    def work() -> dict[str, Any]:
        rmtree(data / "dicom", ignore_errors=True)
        layout.ledger(chosen.preset).unlink(missing_ok=True)
        return write_archive(data / "archive", **params.stage_values(chosen, "archive")["archive"])

    _stage(chosen, "archive", [], [data / "archive" / "archive.json"], work)


def serve_archive(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Serve the embedded archive until interrupted."""
    from miram.data.phantom.server import serve

    record.read(layout.record("archive", chosen.preset))
    serve(layout.data(chosen.preset) / "archive", arguments.port)


def doctor(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Examine this machine before anything large starts."""
    from miram.doctor import examine

    values = params.stage_values(chosen, "doctor")
    places = {name: value for name, value in values["settings"].items() if name.endswith(("_url", "folder"))}
    facts = {
        "addresses": {f"sources.{chosen.source}.{n}": v for n, v in places.items() if v != params.EMBEDDED},
        "methods": values["methods"],
        "accelerator": chosen.compute.accelerator,
        "preset": chosen.preset,
        "keep_dicom": chosen.transfer.keep_dicom,
        "timeout_seconds": chosen.transfer.timeout_seconds,
    }

    def work() -> dict[str, Any]:
        return examine(layout.data(chosen.preset), **facts)

    _stage(chosen, "doctor", [], [], work)


def catalogue(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Fetch the case lists and list the series that they need."""
    from miram.data.listing import list_archive

    data = layout.data(chosen.preset)
    inputs = [layout.record("archive", chosen.preset)] if params.is_embedded(chosen) else []
    for path in inputs:
        record.read(path)
    outputs = [*(data / "csv" / name for name in layout.CASE_CSVS), data / "series.csv"]

    def work() -> dict[str, Any]:
        with _source(chosen, "catalogue") as values:
            tries = {
                name: getattr(chosen.transfer, name) for name in ("attempts", "timeout_seconds", "backoff_seconds")
            }
            return list_archive(data / "csv", data / "series.csv", **values, **tries)

    _stage(chosen, "catalogue", inputs, outputs, work)


def crops(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Fetch the films and cut the crops."""
    from dataclasses import asdict

    from miram.data.films import cut_films

    if arguments.dry_run:
        data_plan(chosen, arguments)
        return
    source = layout.record("catalogue", chosen.preset)
    record.read(source)
    places = _places(chosen)

    def work() -> dict[str, Any]:
        with _source(chosen, "crops") as values:
            return cut_films(places, **values, **asdict(chosen.transfer))

    outputs = [places.lesions_csv, places.set_aside_csv, places.backgrounds_csv, places.lock]
    _stage(chosen, "crops", [source], outputs, work)


def data_plan(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print what the stage crops has still to do, touching nothing; before the stage catalogue, all of it."""
    from tempfile import TemporaryDirectory

    from miram.data.films import plan_films
    from miram.data.listing import list_archive

    places = _places(chosen)
    transfer = {name: getattr(chosen.transfer, name) for name in ("workers", "keep_dicom")}
    with _source(chosen, "crops") as values, TemporaryDirectory() as folder:
        if not layout.record("catalogue", chosen.preset).exists():
            places = places._replace(csv_dir=Path(folder, "csv"), series_csv=Path(folder, "series.csv"))
            where = {name: values[name] for name in ("source", "settings")}
            list_archive(places.csv_dir, places.series_csv, **where, **_tries(chosen))
        plan_films(places, **values, **transfer)


def data_check(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compare the data lock with another one."""
    from miram.data.lock import check_lock

    record.read(layout.record("crops", chosen.preset))
    print(f"the same: {check_lock(_places(chosen).lock, arguments.file)} instances")


def images(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Make crops of one's own images."""
    from miram.data.images import image_paths, import_images

    if chosen.source != params.IMAGES:
        raise ParameterError(f"source is {chosen.source}: `miram crops` cuts its films.", "Allowed: source: images.")
    places, values = _places(chosen), params.stage_values(chosen, "images")["images"]
    inputs = [Path(values["table_csv"])]
    image_paths(inputs[0], Path(values["folder"]))  # tells the faults of the table before it is an input
    tables = [places.lesions_csv, places.set_aside_csv, places.backgrounds_csv]
    _stage(chosen, "images", inputs, tables, lambda: import_images(places.crops_dir, *tables, **values))


def pack(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Pack the crops."""
    from miram.train.store import pack as pack_crops

    data = layout.data(chosen.preset)
    source = layout.record("crops", chosen.preset)
    record.read(source)
    values, store = params.stage_values(chosen, "pack")["pack"], _store(chosen)
    images = (data / name for name in ("crops", "lesions.csv", "backgrounds", "backgrounds.csv"))
    inputs = [source, *layout.extra_pngs(values["extra_images"])]
    _stage(chosen, "pack", inputs, store, lambda: pack_crops(*images, *store, **values))


def splits(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Divide the lesions under one protocol."""
    from miram.data.splits import write_splits

    protocol = arguments.protocol
    _known("protocol", protocol, chosen.splits.protocols)
    source, lesions = layout.record("crops", chosen.preset), layout.data(chosen.preset) / "lesions.csv"
    table = layout.splits(chosen.preset, protocol)
    record.read(source)
    values = params.stage_values(chosen, "splits", protocol)
    _stage(chosen, "splits", [source], [table], lambda: write_splits(lesions, table, **values), protocol)


def audit(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Audit the lesions and their splits."""
    from miram.data.audit import audit as examine

    preset, data = chosen.preset, layout.data(chosen.preset)
    protocols = chosen.splits.protocols
    inputs = [layout.record("crops", preset), *(layout.record("splits", preset, name) for name in protocols)]
    for path in inputs:
        record.read(path)
    splits_csvs = {name: layout.splits(preset, name) for name in protocols}
    report = layout.results(preset) / "audit.md"

    def work() -> dict[str, Any]:
        return examine(data / "lesions.csv", data / "set_aside.csv", splits_csvs, report, preset=preset)

    _stage(chosen, "audit", inputs, [report], work)


def pretrain(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Pre-train a method on the crops of the training and validation lesions, and on images beside them."""
    from miram.data.splits import pretraining_backgrounds, pretraining_lesions
    from miram.train.pretrain import pretrain as train
    from miram.train.store import extra_ids

    place = protocol, method = arguments.protocol, arguments.method
    _known("protocol", protocol, chosen.splits.protocols)
    _known("method", method, chosen.methods)
    inputs = [layout.record(stage, chosen.preset) for stage in ("crops", "pack")]
    inputs.append(layout.record("splits", chosen.preset, protocol))
    for path in inputs:
        record.read(path)
    lesions_csv, backgrounds_csv = (layout.data(chosen.preset) / f"{name}.csv" for name in ("lesions", "backgrounds"))
    splits_csv = layout.splits(chosen.preset, protocol)
    store = _, index_csv = _store(chosen)
    seen, pictured = pretraining_lesions(splits_csv)
    seen += [*pretraining_backgrounds(lesions_csv, splits_csv, backgrounds_csv), *extra_ids(index_csv)]
    values = params.stage_values(chosen, "pretrain", *place)
    if values["encoder_init"]:
        inputs.append(_given("encoder_init", values["encoder_init"]))
    out = layout.pretrain(chosen.preset, *place)
    outputs = [out / "encoder.safetensors", out / "log.csv"]
    if values["objective"] != "mocov3":
        outputs.append(out / "reconstructions.npz")
    _stage(chosen, "pretrain", inputs, outputs, lambda: train(out, *store, seen, pictured, **values), *place)


def finetune(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Fine-tune a method with one seed."""
    from miram.train.finetune import finetune as train

    _classify(chosen, "finetune", arguments, train, ["predictions.parquet", "log.csv", "model.safetensors"])


def probe(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Classify the features of a method's frozen encoder."""
    from miram.train.probe import probe as fit

    _classify(chosen, "probe", arguments, fit, ["predictions.parquet", "log.csv"])


def _classify(
    chosen: params.Params, stage: str, arguments: argparse.Namespace, work: Callable[..., dict[str, Any]], names: list
) -> None:
    """A classifier on the encoder that a cell starts from; `work` leaves the files `names` in the cell's folder."""
    cell = layout.Cell(*(getattr(arguments, name) for name in layout.Cell._fields))
    own = [other for other in params.cells(chosen) if (other.mode == layout.FULL) == (stage == "finetune")]
    for name, value in cell._asdict().items():
        _known(name, value, dict.fromkeys(getattr(other, name) for other in own))
    preset = chosen.preset
    inputs = [layout.record(name, preset) for name in ("crops", "pack")]
    inputs.append(layout.record("splits", preset, cell.protocol))
    encoder_file = None
    if cell.method in chosen.methods:
        inputs.append(layout.record("pretrain", preset, cell.protocol, cell.method))
        encoder_file = layout.pretrain(preset, cell.protocol, cell.method) / "encoder.safetensors"
    for path in inputs:
        record.read(path)
    if cell.method == layout.IMAGENET:
        encoder_file = _given("finetune.imagenet_init", chosen.finetune.imagenet_init)
        inputs.append(encoder_file)
    tables = layout.data(preset) / "lesions.csv", layout.splits(preset, cell.protocol)
    values = params.stage_values(chosen, stage, *cell)
    out = layout.finetune(preset, cell)
    outputs = [out / name for name in names]
    _stage(chosen, stage, inputs, outputs, lambda: work(out, *_store(chosen), *tables, encoder_file, **values), *cell)


def evaluate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compute the metrics of every cell that has finished, and the differences between methods."""
    from miram.data.tasks import MULTI_LABEL
    from miram.evaluate.metrics import evaluate as measure

    out, classifiers = layout.results(chosen.preset), _classifiers(chosen)
    finished = [path for path in classifiers.values() if path.exists()]
    for path in finished:
        record.read(path)
    # predictions without a record prove nothing
    predictions = {c: path.parent / "predictions.parquet" if path.exists() else None for c, path in classifiers.items()}
    values = params.stage_values(chosen, "evaluate")["statistics"]
    outputs = [out / "metrics.csv", out / "differences.csv"]

    def work() -> dict[str, Any]:
        return measure(predictions, *outputs, multilabel_tasks=MULTI_LABEL, **values)

    _stage(chosen, "evaluate", finished, outputs, work)


def claims(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Judge the paper's claims."""
    from miram.evaluate.claims import judge

    preset, out = chosen.preset, layout.results(chosen.preset)
    source, benches = layout.record("evaluate", preset), layout.benches()
    record.read(source)
    outputs = [out / "claims.csv", out / "claims.md"]
    values = params.stage_values(chosen, "claims")["statistics"]

    def work() -> dict[str, Any]:
        tables = out / "metrics.csv", out / "differences.csv"
        return judge(CLAIMS, PAPER, *tables, benches, out, preset=preset, **values)

    _stage(chosen, "claims", [source, CLAIMS, PAPER, *benches], outputs, work)


def table(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the comparison table, the figures and the list of lesions set aside."""
    from miram.evaluate.figures import draw_reconstructions
    from miram.evaluate.summary import write_curves, write_summary
    from miram.evaluate.table import comparison, write_set_aside

    preset, name = chosen.preset, params.name_of(chosen)
    out, protocols = layout.results(preset), chosen.splits.protocols
    pretrained = {(p, m): layout.record("pretrain", preset, p, m) for p in protocols for m in chosen.methods}
    finished = {place: path for place, path in pretrained.items() if path.exists()}  # the table names the others
    inputs = [*(layout.record(stage, preset) for stage in ("evaluate", "crops"))]
    inputs += [*(layout.record("splits", preset, protocol) for protocol in protocols), *finished.values()]
    for path in inputs:
        record.read(path)
    figures = {  # of one protocol: what is reconstructed hardly differs
        out / f"reconstructions_{method}.png": path.parent / "reconstructions.npz"
        for (protocol, method), path in finished.items()
        if protocol == protocols[0] and chosen.methods[method].objective != "mocov3"
    }
    outputs = [out / f"comparison.{end}" for end in ("csv", "md", "tex", "png")]
    outputs += [out / file for file in ("set_aside.md", "summary.json", "pretraining.csv")] + [*figures]
    logs = {"/".join(place): path.parent / "log.csv" for place, path in finished.items()}

    def work() -> dict[str, Any]:
        for figure, arrays in figures.items():
            draw_reconstructions(arrays, figure, method=arrays.parent.name, preset=name)
        write_curves(logs, out / "pretraining.csv")
        write_summary(out / "metrics.csv", out / "summary.json")
        tables = [layout.data(preset) / f"{name}.csv" for name in ("set_aside", "lesions")]
        splits_csvs = {protocol: layout.splits(preset, protocol) for protocol in protocols}
        write_set_aside(*tables, splits_csvs, out / "set_aside.md", preset=name)
        values = params.stage_values(chosen, "table")["statistics"]
        return comparison(out / "metrics.csv", PAPER, pretrained, _classifiers(chosen), out, preset=name, **values)

    _stage(chosen, "table", [*inputs, PAPER], outputs, work)


def explain(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Explain the fine-tuned networks of the first seed, and the pre-trained ones that they started from."""
    from miram.train.explain import explain as examine

    preset, (protocol, task, _) = chosen.preset, params.headline(chosen)
    finished = {cell.method: path for cell, path in _finished(chosen, params.explained(chosen)).items()}
    if not finished:
        raise MiramError(
            f"No fine-tuning of task {task}, protocol {protocol}, has finished.", "Run the fine-tuning first."
        )
    pretrained = {m: layout.record("pretrain", preset, protocol, m) for m in finished if m in chosen.methods}
    inputs = [layout.record("pack", preset), layout.record("splits", preset, protocol)]
    inputs += [*finished.values(), *pretrained.values()]
    for path in inputs:
        record.read(path)
    classifiers = {method: path.parent / "model.safetensors" for method, path in finished.items()}
    encoders = {method: path.parent / "encoder.safetensors" for method, path in pretrained.items()}
    out, tables = layout.explain(preset), (layout.data(preset) / "lesions.csv", layout.splits(preset, protocol))
    values = params.stage_values(chosen, "explain")
    _stage(
        chosen,
        "explain",
        inputs,
        [out / "relevance.npz", out / "embedding.csv"],
        lambda: examine(out, *_store(chosen), *tables, classifiers, encoders, **values),
    )


def report(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the report of all that there is, and of what is missing."""
    from dataclasses import asdict

    from miram.data.tasks import MULTI_LABEL
    from miram.evaluate.report import report as write

    preset, headline, results = chosen.preset, params.headline(chosen), layout.results(chosen.preset)
    cells = _classifiers(chosen)
    pretrained = {method: layout.record("pretrain", preset, headline[0], method) for method in chosen.methods}
    own = chosen.source == params.IMAGES
    names = ("images",) if own else ("catalogue", "crops", "audit", "claims")
    stages = {name: layout.record(name, preset) for name in (*names, "pack", "evaluate", "table")}
    stages |= {"explain": layout.record("explain", preset)} if params.explained(chosen) else {}
    stages |= {f"splits, {p}": layout.record("splits", preset, p) for p in chosen.splits.protocols}
    finished = [path for path in (*cells.values(), *pretrained.values(), *stages.values()) if path.exists()]

    def work() -> dict[str, Any]:
        return write(
            results / "report.html",
            preset=params.name_of(chosen),
            headline=headline,
            multilabel_tasks=MULTI_LABEL,
            cells=cells,
            pretrained=pretrained,
            stages=stages,
            results=results,
            explained=layout.explain(preset),
            crops=layout.data(preset) / "crops",
            data_lock=None if own else results / layout.LOCK,
            paper_csv=PAPER,
            parameters=asdict(chosen),
            **params.stage_values(chosen, "report")["statistics"],
        )

    _stage(chosen, "report", [*finished, PAPER], [results / "report.html"], work)


def predict(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Ask one fine-tuned network about one picture."""
    from miram.evaluate.prediction import draw_prediction
    from miram.train.predict import predict as ask

    cell, path = _chosen_network(chosen, arguments)
    facts = ask(
        path.parent / "model.safetensors",
        arguments.picture,
        arguments.box,
        accelerator=chosen.compute.accelerator,
        threads=chosen.compute.threads,
    )
    demo = "It has learnt from phantom lesions only. " if chosen.archive is not None else ""
    warning = f"{demo}{NO_DEVICE.capitalize()}: decide nothing about a patient by it."
    place = (
        "" if arguments.box is None else f", square of {arguments.box[2]} px at {arguments.box[0]}, {arguments.box[1]}"
    )
    title = f"{arguments.picture.name}{place}\n{cell.method}, {cell.task}, protocol {cell.protocol}, seed {cell.seed}"
    draw_prediction(*facts, arguments.out, title=title, warning=warning)
    print(title)
    for name, probability in facts.probabilities.items():
        print(f"{100 * probability:6.1f} %  {name}")
    print(f"picture: {arguments.out}\n{warning}")


def _chosen_network(chosen: params.Params, arguments: argparse.Namespace) -> tuple[layout.Cell, Path]:
    """The finished fine-tuning that `predict` asks, and its record: of several methods the best on validation."""
    protocol, task, _ = params.headline(chosen)
    wanted = arguments.protocol or protocol, arguments.task or task, layout.FULL
    cells = params.cells(chosen)
    for name, value in (("protocol", wanted[0]), ("task", wanted[1]), ("method", arguments.method)):
        if value is not None:
            _known(name, value, dict.fromkeys(getattr(cell, name) for cell in cells))
    own = [cell for cell in cells if cell[:3] == wanted and arguments.method in (None, cell.method)]
    finished = _finished(chosen, [cell for cell in own if cell.seed == own[0].seed])
    if not finished:
        raise MiramError(
            f"No fine-tuning of task {wanted[1]}, protocol {wanted[0]}, has finished"
            + (f" for method {arguments.method}." if arguments.method else "."),
            f"Run the workflow first: snakemake --config preset={chosen.preset}.",
        )
    best = max(finished, key=lambda cell: record.read(finished[cell])["facts"]["val_macro_auc"])
    return best, finished[best]


def _finished(chosen: params.Params, cells: Iterable[layout.Cell]) -> dict[layout.Cell, Path]:
    """The records of those cells that have one."""
    paths = {cell: layout.record("finetune", chosen.preset, *cell) for cell in cells}
    return {cell: path for cell, path in paths.items() if path.exists()}


def crate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Describe the results."""
    from miram.crate import METADATA, write_crate

    inputs, out = (
        [layout.record(stage, chosen.preset) for stage in params.final_stages(chosen)],
        layout.results(chosen.preset),
    )
    _stage(chosen, "crate", inputs, [out / METADATA], lambda: write_crate(inputs, out, preset=params.name_of(chosen)))


def verify(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Check a results folder."""
    from miram.verify import verify as check

    folder = arguments.folder or layout.results(chosen.preset)
    check(folder, _expected(chosen), preset=chosen.preset, films=arguments.films)


def _expected(chosen: params.Params) -> dict[Path, tuple[str, dict[str, Any]]]:
    """The record of each job whose result the parameters decide -> its stage and the values that they give it."""
    idle = {"doctor"} if params.is_embedded(chosen) else {"doctor", "archive"}
    idle |= {"catalogue", "crops", "audit", "claims"} if chosen.source == params.IMAGES else {"images"}
    idle |= set() if params.explained(chosen) else {"explain"}
    jobs = [(stage, ()) for stage in record.STAGE_MODULES if stage not in idle | layout.PLACES.keys()]
    jobs += [("splits", (protocol,)) for protocol in chosen.splits.protocols]
    jobs += [("pretrain", (protocol, method)) for protocol in chosen.splits.protocols for method in chosen.methods]
    jobs += [("finetune" if cell.mode == layout.FULL else "probe", cell) for cell in params.cells(chosen)]
    return {
        layout.record(stage, chosen.preset, *place): (stage, params.stage_values(chosen, stage, *place))
        for stage, place in jobs
    }


def _classifiers(chosen: params.Params) -> dict[layout.Cell, Path]:
    """The record of every cell, in the order of the table's rows."""
    return {cell: layout.record("finetune", chosen.preset, *cell) for cell in params.cells(chosen)}


def _tries(chosen: params.Params) -> dict[str, Any]:
    return {name: getattr(chosen.transfer, name) for name in ("attempts", "timeout_seconds", "backoff_seconds")}


def _places(chosen: params.Params) -> Any:
    """Where the stage crops reads and writes."""
    from miram.data.films import Places

    data = layout.data(chosen.preset)
    return Places(
        csv_dir=data / "csv",
        series_csv=data / "series.csv",
        dicom_dir=data / "dicom",
        crops_dir=data / "crops",
        backgrounds_dir=data / "backgrounds",
        ledger=layout.ledger(chosen.preset),
        lesions_csv=data / "lesions.csv",
        set_aside_csv=data / "set_aside.csv",
        backgrounds_csv=data / "backgrounds.csv",
        lock=data / layout.LOCK,
        lock_copy=layout.results(chosen.preset) / layout.LOCK,
    )


@contextmanager
def _source(chosen: params.Params, stage: str) -> Iterator[dict[str, Any]]:
    """The values of a stage that reads the source; the embedded archive is served as long as the block runs."""
    if chosen.source == params.IMAGES:
        raise ParameterError(
            "source is images: `miram images` reads them.", "Allowed here: source: tcia, idc or local."
        )
    values = params.stage_values(chosen, stage)
    if not params.is_embedded(chosen):
        yield values
        return
    from miram.data.phantom.server import running

    with running(layout.data(chosen.preset) / "archive") as (api_url, csv_url):
        yield {**values, "settings": {**values["settings"], "api_url": api_url, "csv_url": csv_url}}


def _given(name: str, file: str) -> Path:
    if not Path(file).is_file():
        raise ParameterError(f"{name}: there is no file {file}", "Mend the path, or write null.")
    return Path(file)


def _store(chosen: params.Params) -> tuple[Path, Path]:
    data = layout.data(chosen.preset)
    return data / "crops.u8", data / "crops_index.csv"


def _known(name: str, value: int | str, allowed: Iterable[int | str]) -> None:
    if value not in allowed:
        raise ParameterError(f"There is no {name} {value!r}.", f"Allowed: {', '.join(map(str, allowed))}.")


if __name__ == "__main__":
    sys.exit(main())
