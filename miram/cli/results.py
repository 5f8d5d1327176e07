"""The commands of the results: metrics, claims, table, report, their description and their check."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miram import layout, params
from miram.cli.stage import classifiers, do_stage, unfinished_logs
from miram.errors import MiramError
from miram.provenance import record


def evaluate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compute the metrics of every cell that has finished, and the differences between methods."""
    from miram.data.tasks import MULTI_LABEL
    from miram.evaluate.metrics import evaluate as measure

    out, cells = layout.results(chosen.preset), classifiers(chosen)
    finished = [path for path in cells.values() if path.exists()]
    for path in finished:
        record.read(path)
    # predictions without a record prove nothing
    predictions = {c: path.parent / "predictions.parquet" if path.exists() else None for c, path in cells.items()}
    values = params.stage_values(chosen, "evaluate")["statistics"]
    outputs = [out / "metrics.csv", out / "differences.csv"]

    def work() -> dict[str, Any]:
        return measure(predictions, *outputs, multilabel_tasks=MULTI_LABEL, **values)

    do_stage(chosen, "evaluate", finished, outputs, work)


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
        return judge(layout.claims_yaml(), layout.paper_csv(), *tables, benches, out, preset=preset, **values)

    do_stage(chosen, "claims", [source, layout.claims_yaml(), layout.paper_csv(), *benches], outputs, work)


def efficiency(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Set accuracy against memory and time."""
    from miram.report.efficiency import efficiency as weigh

    preset, out = chosen.preset, layout.results(chosen.preset)
    headline = params.headline(chosen)
    pretrained = {method: layout.record("pretrain", preset, headline[0], method) for method in chosen.methods}
    source, benches = layout.record("evaluate", preset), layout.benches()
    record.read(source)
    inputs = [source, layout.claims_yaml(), *benches, *(path for path in pretrained.values() if path.exists())]
    outputs = [out / f"efficiency.{end}" for end in ("csv", "md", "png")]

    def work() -> dict[str, Any]:
        methods = list(dict.fromkeys(cell.method for cell in params.cells(chosen)))
        inside = out / "metrics.csv", methods, pretrained, benches, layout.claims_yaml(), out
        return weigh(*inside, preset=params.name_of(chosen), headline=headline)

    do_stage(chosen, "efficiency", inputs, outputs, work)


def table(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the comparison table, the figures and the list of lesions set aside."""
    from miram.evaluate.summary import write_curves, write_summary
    from miram.report.figures import draw_reconstructions
    from miram.report.table import comparison, write_set_aside

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
        records = pretrained, classifiers(chosen), unfinished_logs(chosen)
        return comparison(out / "metrics.csv", layout.paper_csv(), *records, out, preset=name, **values)

    do_stage(chosen, "table", [*inputs, layout.paper_csv()], outputs, work)


def report(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the report of all that there is, and of what is missing."""
    from miram.data.tasks import MULTI_LABEL
    from miram.report.report import report as write

    preset, headline, results = chosen.preset, params.headline(chosen), layout.results(chosen.preset)
    cells = classifiers(chosen)
    pretrained = {method: layout.record("pretrain", preset, headline[0], method) for method in chosen.methods}
    own = chosen.source == params.IMAGES
    names = ("images",) if own else ("catalogue", "crops", "audit", "claims")
    stages = {name: layout.record(name, preset) for name in (*names, "pack", "evaluate", "efficiency", "table")}
    explained = params.explained(chosen)
    stages |= {"explain": layout.record("explain", preset)} if explained else {}
    stages |= {f"splits, {p}": layout.record("splits", preset, p) for p in chosen.splits.protocols}
    finished = [path for path in (*cells.values(), *pretrained.values(), *stages.values()) if path.exists()]
    benches = layout.benches()

    def work() -> dict[str, Any]:
        return write(
            results / "report.html",
            preset=params.name_of(chosen),
            headline=headline,
            multilabel_tasks=MULTI_LABEL,
            cells=cells,
            pretrained=pretrained,
            stages=stages,
            logs=unfinished_logs(chosen),
            results=results,
            explained=layout.explain(preset),
            explained_cells=explained,
            crops=layout.data(preset) / "crops",
            data_lock=None if own else layout.data(preset) / layout.LOCK,
            paper_csv=layout.paper_csv(),
            claims_yaml=layout.claims_yaml(),
            bench_jsons=benches,
            parameters=asdict(chosen),
            **params.stage_values(chosen, "report")["statistics"],
        )

    do_stage(
        chosen,
        "report",
        [*finished, layout.paper_csv(), layout.claims_yaml(), *benches],
        [results / "report.html"],
        work,
    )


def crate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Describe the results."""
    from miram.provenance.crate import METADATA, write_crate

    preset, out = chosen.preset, layout.results(chosen.preset)
    records = [layout.record(stage, preset) for stage in params.final_stages(chosen)]
    locks = [] if chosen.source == params.IMAGES else [layout.data(preset) / layout.LOCK]
    outputs = [out / METADATA, *(out / lock.name for lock in locks)]
    do_stage(
        chosen,
        "crate",
        [*records, *locks],
        outputs,
        lambda: write_crate(records, locks, out, preset=params.name_of(chosen)),
    )


def verify(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Check a results folder."""
    from miram.provenance.verify import verify as check

    folder = arguments.folder or layout.results(chosen.preset)
    check(folder, _expected(chosen), preset=chosen.preset, films=arguments.films)


def compare(chosen: params.Params, arguments: argparse.Namespace) -> int:
    """Compare two results folders, the second by default as git has the first at HEAD; 1 when they do not agree."""
    from miram.provenance.compare import committed
    from miram.provenance.compare import compare as weigh

    name = str(arguments.first)
    try:
        if arguments.second:
            found = weigh(arguments.first, arguments.second, (name, str(arguments.second)))
        else:
            with committed(arguments.first) as (folder, commit):
                other = "the published results" if arguments.brief else f"{name} of HEAD ({commit})"
                found = weigh(arguments.first, folder, (name, other))
    except MiramError as fault:
        if not arguments.brief:
            raise
        print(f"{name} is not compared with the published results: {fault.message}")
        return MiramError.exit_code
    print(found.verdict if arguments.brief else found.page)
    return 0 if found.agrees else MiramError.exit_code


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
