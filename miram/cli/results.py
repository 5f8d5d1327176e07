"""The commands of the results: metrics, claims, table, report and crate."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miram import kinds, layout, params
from miram.cli import stage as shared
from miram.cli.effort import efforts
from miram.cli.stage import classifiers, do_stage, first_pretrainings, shown_record, trivial_records, unfinished_logs
from miram.provenance import record


def evaluate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compute the metrics of all finished cells, and the differences between methods."""
    from miram.data.splits import training_labels
    from miram.evaluate.metrics import evaluate as measure
    from miram.evaluate.predictions import most_frequent

    every = _read_by(chosen, arguments, "evaluate")
    finished = {cell: path for cell, path in every.items() if path.exists()}
    divided = {cell.protocol: layout.record("splits", chosen.name, cell.protocol) for cell in finished}
    inputs = [*dict.fromkeys(finished.values()), *divided.values()]
    for path in inputs:
        record.read(path)
    # predictions without a record cannot be trusted
    predictions = {cell: _predictions(cell, path) if cell in finished else None for cell, path in every.items()}
    values, outputs = _values(chosen, "evaluate"), layout.result_files("evaluate", chosen.name)
    lesions_csv, asked = layout.data(chosen.name) / "lesions.csv", dict.fromkeys(cell[:2] for cell in finished)

    def work() -> dict[str, Any]:
        labels = {own: training_labels(lesions_csv, layout.splits(chosen.name, own[0]), own[1]) for own in asked}
        majority = {own: most_frequent(*found) for own, found in labels.items()}
        return measure(predictions, *outputs, majority=majority, **values)

    do_stage(chosen, "evaluate", inputs, outputs, work)


def _predictions(cell: layout.Cell, path: Path) -> Path:
    """The predictions beside the record of a classifier."""
    trivial = cell.mode == layout.TRIVIAL_MODE
    return layout.trivial_predictions(path.parent, cell.method) if trivial else path.parent / layout.PREDICTIONS


def so_far(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Make what is missing of table, claims and report, from what has finished; it keeps no record, as it has gaps.

    What a run would make anew counts as not run. A complete run is left as it is.
    """
    from miram.provenance.verify import shortfalls

    out, made = layout.results(chosen.name), dict[Path, bytes]()
    where = f"{out}/comparison.md, {out}/report.html"
    if not shortfalls(shared.expected(chosen)):
        print(f"complete, left as it is: {where}")
        return
    arguments.hidden = shared.outdated(chosen)
    try:
        for stage in (stage.name for stage in params.stages_of(chosen) if stage.with_gaps):
            path = layout.record(stage, chosen.name)
            if not _stands(chosen, arguments, stage):
                globals()[stage](chosen, arguments)
                arguments.hidden.discard(path)
                made[path] = path.read_bytes()
    finally:
        for path, written in made.items():
            if path.exists() and path.read_bytes() == written:  # else a run at work has made it anew
                path.unlink()
    done = [path.exists() for path in classifiers(chosen, arguments).values()]
    print(f"{sum(done)} of {len(done)} classifiers have finished: {where}")


def _stands(chosen: params.Params, arguments: argparse.Namespace, stage: str) -> bool:
    """Whether a stage of the results need not be made: it is up to date, and of all classifiers that have finished."""
    path, values = layout.record(stage, chosen.name), params.stage_values(chosen, stage)
    if path in arguments.hidden or not record.is_current(path, stage=stage, values=values):
        return False
    finished = {str(file) for file in _read_by(chosen, arguments, stage).values() if file.exists()}
    return finished <= record.read(path)["inputs"].keys()


def _read_by(chosen: params.Params, arguments: argparse.Namespace, stage: str) -> dict[layout.Cell, Path]:
    """The record of every classifier that a stage of the results reads itself."""
    cells, asked = classifiers(chosen, arguments), params.headline(chosen)[1:]  # of all protocols
    if stage == "cohort":
        return {cell: path for cell, path in cells.items() if (cell.task, cell.mode) == asked}
    return cells | trivial_records(chosen, arguments) if stage == "evaluate" else {}


def cohort(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Describe the data, and measure groups of lesions."""
    from miram.evaluate.cohort import cohort as describe

    run, protocols = chosen.name, chosen.splits.protocols
    finished = {cell: path for cell, path in _read_by(chosen, arguments, "cohort").items() if path.exists()}
    inputs = [layout.record("crops", run), *(layout.record("splits", run, protocol) for protocol in protocols)]
    inputs += finished.values()
    for path in inputs:
        record.read(path)
    listed = {}
    if chosen.source != params.IMAGES:
        needed, crops = (record.read(layout.record(stage, run))["facts"] for stage in ("catalogue", "crops"))
        left = "not fetched, as the crop was in another" if chosen.crops.from_ == params.ARCHIVE else "never received"
        absent = needed["series"] - sum(crops["origins"].values())
        listed = {"series listed for these lesions": needed["series"], f"of them {left}": absent}
    csvs = (layout.data(run) / "lesions.csv", layout.data(run) / "set_aside.csv")
    splits: dict[str, Path] = {protocol: layout.splits(run, protocol) for protocol in protocols}
    predictions = {cell: path.parent / layout.PREDICTIONS for cell, path in finished.items()}
    outputs, values = layout.result_files("cohort", run), _values(chosen, "cohort")
    del values["headline"]

    def work() -> dict[str, Any]:
        return describe(*csvs, splits, predictions, outputs, listed=listed, preset=chosen.title, **values)

    do_stage(chosen, "cohort", inputs, outputs, work)


def claims(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Test the paper's claims."""
    from miram.evaluate.claims import judge

    source, benches = layout.record("evaluate", chosen.name), layout.benches()
    record.read(source)
    out, outputs = layout.results(chosen.name), layout.result_files("claims", chosen.name)
    values = params.stage_values(chosen, "claims")["statistics"]
    values["distance"] = shared.distance(chosen, arguments)

    def work() -> dict[str, Any]:
        tables = out / "metrics.csv", out / "differences.csv"
        return judge(layout.claims_yaml(), layout.paper_csv(), *tables, benches, out, preset=chosen.title, **values)

    do_stage(chosen, "claims", [source, layout.claims_yaml(), layout.paper_csv(), *benches], outputs, work)


def efficiency(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Compare accuracy with memory and time."""
    from miram.report.efficiency import efficiency as weigh

    run, out = chosen.name, layout.results(chosen.name)
    headline = params.headline(chosen)
    pretrained = first_pretrainings(chosen, arguments, headline[0])
    source, benches = layout.record("evaluate", run), layout.benches()
    record.read(source)
    inputs = [source, layout.claims_yaml(), *benches, *(path for path in pretrained.values() if path.exists())]

    def work() -> dict[str, Any]:
        inside = out / "metrics.csv", params.kinds_of(chosen), pretrained, benches, layout.claims_yaml(), out
        return weigh(*inside, preset=chosen.title, headline=headline)

    do_stage(chosen, "efficiency", inputs, layout.result_files("efficiency", run), work)


def table(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the comparison table, the figures and the list of lesions set aside."""
    from miram.evaluate.summary import write_curves, write_summary
    from miram.report.figures import draw_reconstructions
    from miram.report.table import comparison, write_set_aside

    run, title = chosen.name, chosen.title
    if not layout.record("evaluate", run).exists():  # the workflow has not come so far
        so_far(chosen, arguments)
        return
    out, protocols = layout.results(run), chosen.splits.protocols
    pretrained: dict[tuple[str, str], list[Path]] = {}
    for place in params.pretrainings(chosen):
        pretrained.setdefault(place[:2], []).append(shown_record(chosen, arguments, "pretrain", *place))
    # the table names those that are missing
    finished = {place: [path for path in paths if path.exists()] for place, paths in pretrained.items()}
    first = {place: paths[0] for place, paths in finished.items() if pretrained[place][0] in paths}  # are drawn
    inputs = [*(layout.record(stage, run) for stage in ("evaluate", "crops"))]
    inputs += [*(layout.record("splits", run, protocol) for protocol in protocols)]
    inputs += [path for paths in finished.values() for path in paths]
    for path in inputs:
        record.read(path)
    rebuilt = {  # of one protocol: reconstructions hardly differ
        method: path.parent / "reconstructions.npz"
        for (protocol, method), path in first.items()
        if protocol == protocols[0] and kinds.OBJECTIVES[chosen.methods[method].objective].masked
    }
    logs = {"/".join(place): path.parent / "log.csv" for place, path in first.items()}

    def work() -> dict[str, Any]:
        for method, arrays in rebuilt.items():
            draw_reconstructions(arrays, layout.reconstructions(run, method), method=method, preset=title)
        write_curves(logs, out / "pretraining.csv")
        write_summary(out / "metrics.csv", out / "summary.json")
        aside_csv, lesions_csv = (layout.data(run) / f"{file}.csv" for file in ("set_aside", "lesions"))
        splits_csvs: dict[str, Path] = {protocol: layout.splits(run, protocol) for protocol in protocols}
        write_set_aside(aside_csv, lesions_csv, splits_csvs, out / "set_aside.md", preset=title)
        values = _values(chosen, "table") | {
            "kinds": params.kinds_of(chosen),
            "starts": params.starts_of(chosen),
            "efforts": efforts(chosen),
            "overview_md": _overview(chosen),
        }
        tables = out / "metrics.csv", out / "differences.csv", layout.paper_csv()
        records = pretrained, classifiers(chosen, arguments), unfinished_logs(chosen)
        return comparison(*tables, *records, out, preset=title, **values)

    outputs = [*layout.result_files("table", run), *(layout.reconstructions(run, method) for method in rebuilt)]
    do_stage(chosen, "table", [*inputs, layout.paper_csv()], outputs, work)


def report(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Write the report of all results, and of what is missing."""
    from miram.evaluate.claims import setting
    from miram.report.report import Contents
    from miram.report.report import report as write

    run, headline, results = chosen.name, params.headline(chosen), layout.results(chosen.name)
    cells = classifiers(chosen, arguments)
    pretrained = first_pretrainings(chosen, arguments, headline[0])
    stages = {  # trainings are listed separately
        ", ".join(map(str, [stage.name, *place])): shown_record(chosen, arguments, stage.name, *place)
        for stage, place in params.jobs(chosen)
        if "method" not in stage.place and stage.name not in ("archive", "report", "crate")
    }
    finished = [path for path in (*cells.values(), *pretrained.values(), *stages.values()) if path.exists()]
    benches = layout.benches()
    html, checklist_md = layout.result_files("report", run)

    contents = Contents(
        preset=chosen.title,
        headline=headline,
        cells=cells,
        pretrained=pretrained,
        stages=stages,
        logs=unfinished_logs(chosen),
        results=results,
        explained=layout.explain(run),
        explained_cells=params.explained(chosen),
        crops=layout.data(run) / "crops",
        data_lock=None if chosen.source == params.IMAGES else layout.data(run) / layout.LOCK,
        paper_csv=layout.paper_csv(),
        claims_yaml=layout.claims_yaml(),
        bench_jsons=benches,
        parameters=asdict(chosen),
        kinds=params.kinds_of(chosen),
        overview_md=_overview(chosen),
        setting=setting(shared.distance(chosen, arguments)),
        **_values(chosen, "report"),
    )

    inputs = [*finished, layout.paper_csv(), layout.claims_yaml(), *benches]
    do_stage(chosen, "report", inputs, (html, checklist_md), lambda: write(html, checklist_md, contents))


def crate(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Describe the results."""
    from miram.provenance.crate import write_crate

    run, out = chosen.name, layout.results(chosen.name)
    records = [layout.record(stage.name, run) for stage in params.stages_of(chosen) if stage.final]
    locks = [] if chosen.source == params.IMAGES else [layout.data(run) / layout.LOCK]
    workflow = layout.project_file(layout.WORKFLOW)
    outputs = [out / layout.METADATA, *(out / file.name for file in (workflow, *locks))]
    do_stage(
        chosen,
        "crate",
        [*records, *locks, workflow],
        outputs,
        lambda: write_crate(records, locks, out, workflow=workflow, preset=chosen.title),
    )


def _values(chosen: params.Params, stage: str) -> dict[str, Any]:
    """The statistics that a stage reads and, for own images, the positive class."""
    values = params.stage_values(chosen, stage)
    return {**values.pop("statistics"), **values}


def _overview(chosen: params.Params) -> Path | None:
    """The summary of own images."""
    return layout.overview(chosen.name) if chosen.source == params.IMAGES else None
