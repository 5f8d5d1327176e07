"""The report: one HTML file that opens without a network, made from the files of a preset, its gaps named."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from miram.evaluate.claims import read_limits
from miram.evaluate.markdown import preset_of, subject
from miram.evaluate.predictions import SECTION
from miram.evaluate.pretrainings import OF_ONE, extent, pretrainings_of
from miram.files import atomic_path
from miram.layout import FINETUNE, Cell
from miram.looks import Look, looks_of_kinds
from miram.looks import looks as looks_of
from miram.report import checklist, curves, page_figures, page_tables
from miram.report.about import MODES
from miram.report.efficiency import compared_text, linear_text, read_benches
from miram.report.study import Run, Study
from miram.report.template import as_html, render, verbatim
from miram.report.trivial import against_trivial


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a report is made of; records go by what they are of, and all that there should be are named."""

    preset: str
    headline: tuple[str, str, str]  # protocol, task, mode: what the figures show; learning curves are of fine-tuning
    cells: Mapping[Cell, Path]  # records
    pretrained: Mapping[str, Path]  # records by method, of the headline's protocol
    stages: Mapping[str, Path]  # records; claims.csv, audit.md and embedding.csv are read where their stages are named
    logs: Mapping[Path, Path]  # of a missing record what its job said
    results: Path  # folder of metrics.csv, differences.csv, variance.csv, set_aside.md, claims.csv, audit.md
    explained: Path  # folder of relevance.npz and embedding.csv
    explained_cells: Collection[Cell]  # the networks of relevance.npz
    crops: Path  # folder of the lesions' pictures
    data_lock: Path | None  # lists all instances of the archive
    paper_csv: Path
    claims_yaml: Path  # tells what is linear
    bench_jsons: Iterable[Path]
    parameters: Mapping[str, Any]
    kinds: Mapping[str, str]  # of the methods, which give their looks
    confidence: float  # of the intervals
    bins: int  # of the calibration error
    setting: str  # how far it is from the paper's, in words
    positive: Sequence[str] | None = None  # as in `table.comparison`
    overview_md: Path | None = None


class Found(NamedTuple):
    """What was read of it for several parts of the page."""

    study: Study
    looks: Mapping[str, Look]
    finished: Mapping[Cell, dict[str, Any]]
    pretrainings: Mapping[str, dict[str, Any]]
    stages: Mapping[str, dict[str, Any]]
    metrics: pd.DataFrame | None
    differences: pd.DataFrame | None
    variances: pd.DataFrame | None


def report(html: Path, checklist_md: Path, contents: Contents) -> dict[str, object]:
    """Write the report of a preset, and the reporting checklist.

    What is missing or damaged is named in the page and in the returned facts, and stops nothing.
    """
    study = Study(contents.logs)
    finished = study.records(contents.cells, "fine-tuning")
    pretrainings = study.records(contents.pretrained, "pre-training of")
    stages = study.records(contents.stages, "stage")
    tables = (study.table(contents.results / f"{name}.csv") for name in ("metrics", "differences", "variance"))
    found = Found(study, looks_of(contents.kinds), finished, pretrainings, stages, *tables)
    page = {
        **_heading(contents),
        **_verdicts(contents, found),
        **_figures(contents, found),
        **_sources(contents, found),
    }
    gaps = list(dict.fromkeys(study.gaps))
    page |= {"looks": found.looks, "gaps": gaps}
    text = render("page.html", **page)
    with atomic_path(html) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_path(checklist_md) as temporary:
        temporary.write_text(checklist.as_markdown(contents.preset, page), encoding="utf-8")
    return {"gaps": gaps, "bytes": len(text.encode())}


def _heading(contents: Contents) -> dict[str, Any]:
    """What the page is of."""
    preset = preset_of(contents.preset)
    return {
        "preset": preset,
        "command": f"miram --preset {preset}",
        "demo": contents.preset == "demo",
        "judged": "claims" in contents.stages,
        "label": subject(contents.preset),
        "setting": contents.setting,
        "modes": MODES,
        "percent": f"{100 * contents.confidence:g} %",
        "level": f"{1 - contents.confidence:.2g}",
        "headline": contents.headline,
        "seeds": len({cell.seed for cell in contents.cells if cell[:3] == contents.headline}),
        "script": verbatim("script.js"),
    }


def _verdicts(contents: Contents, found: Found) -> dict[str, Any]:
    """The tables of the metrics, their differences, and what follows for the claims."""
    headline, confidence = contents.headline, contents.confidence
    claims = found.study.table(contents.results / "claims.csv") if "claims" in contents.stages else None
    paper = pd.read_csv(contents.paper_csv)
    groups = page_tables.metric_groups(found.metrics, paper, found.looks, headline, contents.positive)
    return {
        "published": paper.dropna(subset="value").sort_values("value", ascending=False).to_dict("records"),
        "claims": page_tables.claim_cards(claims),
        "verdicts": page_tables.verdict_counts(claims, headline[0]),
        "groups": groups,
        "choices": {name: list(dict.fromkeys(group[name] for group in groups)) for name in SECTION},
        "protocols": page_tables.protocol_rows(groups, headline),
        "leaks": found.stages["audit"]["facts"]["effect_on_test"] if "audit" in found.stages else {},
        "leader": page_tables.leader(groups[0]) if groups else None,
        "told_apart": page_tables.told_apart(found.differences, headline, confidence),
        "efforts": page_tables.effort_rows(found.study.table(contents.results / "comparison.csv"), headline),
        "variances": page_tables.variance_rows(found.variances, headline),
        "reach": "" if found.metrics is None else extent(found.metrics),
        "of_one": "" if found.metrics is None else _of_one(found.metrics, headline[0]),
        "trivial": ""
        if found.metrics is None or found.differences is None
        else against_trivial(found.metrics, found.differences, headline, confidence),
        "forests": page_figures.forests(found.differences, headline, confidence),
    }


def _of_one(metrics: pd.DataFrame, protocol: str) -> str:
    """What results are about where each method was pre-trained once; empty elsewhere."""
    return OF_ONE if set(pretrainings_of(metrics).get(protocol, {}).values()) == {1} else ""


def _figures(contents: Contents, found: Found) -> dict[str, Any]:
    """The figures of the networks' answers, of the trainings and of what they cost."""
    study, looks, (protocol, task, mode) = found.study, found.looks, contents.headline
    own = {cell: contents.cells[cell].parent for cell in found.finished if cell.protocol == protocol}
    by_task = _runs(study, {cell: own[cell] for cell in own if cell.mode == mode})
    shown = by_task.pop(task, {})
    tuned = {cell: own[cell] for cell in own if (cell.task, cell.mode) == (task, FINETUNE)}
    answered = _of_one_class(shown)
    looked_into = _runs(study, {cell: own[cell] for cell in contents.explained_cells if cell in own})
    mapped = _of_one_class(looked_into.get(task, {}))
    lesions = next((seeds[0].lesions for seeds in shown.values()), pd.DataFrame())
    limits, benches = read_limits(contents.claims_yaml), read_benches(contents.bench_jsons)
    maps, points = contents.explained / "relevance.npz", contents.explained / "embedding.csv"
    looked = "explain" in found.stages
    return {
        "lesions": len(lesions),
        "patients": lesions["patient_id"].nunique() if len(lesions) else 0,
        "class_rocs": page_figures.class_curves(shown, looks, "roc"),
        "class_prs": page_figures.class_curves(shown, looks, "pr"),
        "mean_curves": [
            figure for task, runs in by_task.items() for figure in page_figures.mean_curves(runs, looks, task)
        ],
        "confusions": page_figures.confusions(answered),
        "reliabilities": page_figures.reliabilities(answered, looks, contents.bins),
        "learning": page_figures.learning(_logs(study, tuned), looks),
        "losses": page_figures.losses(_loss_logs(study, contents.pretrained, found.pretrainings), looks),
        "costs": page_figures.costs(study.table(contents.results / "efficiency.csv"), looks),
        "growths": [page_figures.growth(bench, limits, n) for n, bench in enumerate(benches)],
        "kind_looks": looks_of_kinds(kind for bench in benches for kind in bench.layers["kind"].unique()),
        "limit_text": f"{linear_text(limits)} {compared_text(limits)}",
        "reconstructions": page_figures.reconstructions(
            study, _reconstruction_files(contents.pretrained, found.pretrainings)
        ),
        "relevance": page_figures.relevance(study, maps, contents.crops, mapped) if looked else [],
        **page_figures.embeddings(study.table(points) if looked else None),
        "errors": page_figures.errors(answered, contents.crops),
    }


def _sources(contents: Contents, found: Found) -> dict[str, Any]:
    """What was left out, and what all of it was made by."""
    records = [*found.stages.values(), *found.pretrainings.values(), *found.finished.values()]
    lock = contents.data_lock
    return {
        "documents": page_tables.documents(
            found.study, contents.results, contents.overview_md, audited="audit" in contents.stages
        ),
        "cohort": _cohort(contents, found.study),
        "stages": page_tables.stage_rows([*found.stages.items(), *found.pretrainings.items()]),
        "provenance": page_tables.provenance(records)
        | ({} if lock is None else {"data lock": page_tables.lock_text(found.study, lock)}),
        "parameters": json.dumps(contents.parameters, indent=1),
        "facts": json.dumps({name: record["facts"] for name, record in found.stages.items()}, indent=1),
    }


def _cohort(contents: Contents, study: Study) -> Markup | None:
    text = study.text(contents.results / "cohort.md") if "cohort" in contents.stages else None
    return None if text is None else as_html(text)


def _runs(study: Study, folders: Mapping[Cell, Path]) -> dict[str, curves.Runs]:
    """Task -> method -> its seeds."""
    found: dict[str, dict[str, list[Run]]] = {}
    for cell, folder in folders.items():
        run = study.run(cell, folder)
        if run is not None:
            found.setdefault(cell.task, {}).setdefault(cell.method, []).append(run)
    return {**found}


def _of_one_class(runs: curves.Runs) -> curves.Runs:
    """Nothing where a lesion may have several classes: no answer is one of them then."""
    return {method: seeds for method, seeds in runs.items() if not seeds[0].answers.multilabel}


def _logs(study: Study, folders: Mapping[Cell, Path]) -> dict[str, list[pd.DataFrame]]:
    """Method -> the logs of its seeds."""
    found: dict[str, list[pd.DataFrame]] = {}
    for cell, folder in folders.items():
        table = study.table(folder / "log.csv")
        if table is not None:
            found.setdefault(cell.method, []).append(table)
    return {**found}


def _loss_logs(study: Study, pretrained: Mapping[str, Path], finished: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    tables = {method: study.table(pretrained[method].parent / "log.csv") for method in finished}
    return {method: table for method, table in tables.items() if table is not None}


def _reconstruction_files(pretrained: Mapping[str, Path], finished: Mapping[str, Any]) -> dict[str, Path]:
    """Of the methods whose record names such a file: MoCo-v3 rebuilds nothing."""
    files = {method: pretrained[method].parent / "reconstructions.npz" for method in finished}
    return {method: path for method, path in files.items() if str(path) in finished[method]["outputs"]}
