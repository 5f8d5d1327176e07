"""The report: one HTML file that opens without a network, made from the files of a preset, its gaps named."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from miram.evaluate.claims import read_limits
from miram.evaluate.markdown import preset_of, subject
from miram.evaluate.predictions import SECTION
from miram.files import atomic_path
from miram.layout import FINETUNE, Cell
from miram.looks import looks as looks_of
from miram.looks import looks_of_kinds
from miram.report import curves, page_figures, page_tables
from miram.report.efficiency import compared_text, linear_text, read_benches
from miram.report.study import Run, Study

PAGE = Path(__file__).parent / "page"
MODES = {
    "finetune": "the whole network fine-tuned",
    "linear": "a linear classifier on frozen features",
    "knn": "nearest neighbours among frozen features",
}


def report(
    html: Path,
    *,
    preset: str,
    headline: tuple[str, str, str],
    multilabel_tasks: Collection[str],
    cells: Mapping[Cell, Path],
    pretrained: Mapping[str, Path],
    stages: Mapping[str, Path],
    logs: Mapping[Path, Path],
    results: Path,
    explained: Path,
    explained_cells: Collection[Cell],
    crops: Path,
    data_lock: Path | None,
    paper_csv: Path,
    claims_yaml: Path,
    bench_jsons: Iterable[Path],
    parameters: Mapping[str, Any],
    kinds: Mapping[str, str],
    confidence: float,
    bins: int,
    positive: Sequence[str] | None = None,
    overview_md: Path | None = None,
) -> dict[str, object]:
    """Write the report of a preset.

    `headline` (protocol, task, mode) is what the figures show; learning curves are of fine-tuning. `cells`,
    `pretrained` (of the headline's protocol) and `stages` name the records of all runs that there should be, `logs`
    what the jobs of missing ones said. `results` is the folder of metrics.csv, differences.csv, set_aside.md and, where
    `stages` names them, claims.csv and audit.md; `explained` that of relevance.npz, of the networks `explained_cells`,
    and of embedding.csv, if `stages` names `explain`; `crops` that of the lesions' pictures; `data_lock` lists all
    instances of the archive; `claims_yaml` tells what is linear; `bench_jsons` are files that `miram bench`
    wrote. `positive` and `overview_md` are as in `table.comparison`. `kinds` are those of the methods, which give their
    looks. `confidence` is that of the intervals, `bins` are those of the calibration error. What is missing or damaged
    is named in the page and in the returned facts, and stops nothing.
    """
    study, looks = Study(logs), looks_of(kinds)
    finished = study.records(cells, "fine-tuning")
    pretrainings = study.records(pretrained, "pre-training of")
    stage_records = study.records(stages, "stage")
    metrics, differences = (study.table(results / f"{name}.csv") for name in ("metrics", "differences"))
    claims = study.table(results / "claims.csv") if "claims" in stages else None
    paper = pd.read_csv(paper_csv)
    looked = "explain" in stage_records
    own = {cell: cells[cell].parent for cell in finished if cell.protocol == headline[0]}
    by_task = _runs(study, {cell: own[cell] for cell in own if cell.mode == headline[2]}, multilabel_tasks)
    shown = by_task.pop(headline[1], {})
    tuned = {cell: own[cell] for cell in own if (cell.task, cell.mode) == (headline[1], FINETUNE)}
    one_class = headline[1] not in multilabel_tasks  # only then is an answer one class
    answered = shown if one_class else {}
    looked_into = {cell: own[cell] for cell in explained_cells if cell in own} if one_class else {}
    mapped = _runs(study, looked_into, multilabel_tasks).get(headline[1], {})
    lesions = next((seeds[0].lesions for seeds in shown.values()), pd.DataFrame())
    limits, benches = read_limits(claims_yaml), read_benches(bench_jsons)
    groups = page_tables.metric_groups(metrics, paper, looks, headline, positive)
    page = {
        "preset": preset_of(preset),
        "command": f"miram --preset {preset_of(preset)}",
        "demo": preset == "demo",
        "judged": "claims" in stages,
        "label": subject(preset),
        "modes": MODES,
        "looks": looks,
        "percent": f"{100 * confidence:g} %",
        "level": f"{1 - confidence:.2g}",
        "headline": headline,
        "seeds": len({cell.seed for cell in cells if cell[:3] == headline}),
        "lesions": len(lesions),
        "patients": lesions["patient_id"].nunique() if len(lesions) else 0,
        "published": paper.dropna(subset="value").sort_values("value", ascending=False).to_dict("records"),
        "claims": page_tables.claim_cards(claims),
        "verdicts": page_tables.verdict_counts(claims, headline[0]),
        "groups": groups,
        "choices": {name: list(dict.fromkeys(group[name] for group in groups)) for name in SECTION},
        "protocols": page_tables.protocol_rows(groups, headline),
        "leaks": stage_records["audit"]["facts"]["effect_on_test"] if "audit" in stage_records else {},
        "leader": page_tables.leader(groups[0]) if groups else None,
        "told_apart": page_tables.told_apart(differences, headline, confidence),
        "forests": page_figures.forests(differences, headline, confidence),
        "class_rocs": page_figures.class_curves(shown, looks, "roc"),
        "class_prs": page_figures.class_curves(shown, looks, "pr"),
        "mean_curves": [
            figure for task, runs in by_task.items() for figure in page_figures.mean_curves(runs, looks, task)
        ],
        "confusions": page_figures.confusions(answered),
        "reliabilities": page_figures.reliabilities(answered, looks, bins),
        "learning": page_figures.learning(_logs(study, tuned), looks),
        "losses": page_figures.losses(_loss_logs(study, pretrained, pretrainings), looks),
        "costs": page_figures.costs(metrics, pretrainings, looks, headline),
        "growths": [page_figures.growth(bench, limits, n) for n, bench in enumerate(benches)],
        "kind_looks": looks_of_kinds(kind for bench in benches for kind in bench.layers["kind"].unique()),
        "limit_text": f"{linear_text(limits)} {compared_text(limits)}",
        "reconstructions": page_figures.reconstructions(study, _reconstruction_files(pretrained, pretrainings)),
        "relevance": page_figures.relevance(study, explained / "relevance.npz", crops, mapped) if looked else [],
        **page_figures.embeddings(study.table(explained / "embedding.csv") if looked else None),
        "errors": page_figures.errors(answered, crops),
        "documents": page_tables.documents(study, results, overview_md, audited="audit" in stages),
        "stages": page_tables.stage_rows([*stage_records.items(), *pretrainings.items()]),
        "provenance": page_tables.provenance([*stage_records.values(), *pretrainings.values(), *finished.values()])
        | ({} if data_lock is None else {"data lock": page_tables.lock_text(study, data_lock)}),
        "parameters": json.dumps(parameters, indent=1),
        "facts": json.dumps({name: record["facts"] for name, record in stage_records.items()}, indent=1),
        "style": Markup((PAGE / "style.css").read_text(encoding="utf-8")),
        "script": Markup((PAGE / "script.js").read_text(encoding="utf-8")),
    }
    gaps = list(dict.fromkeys(study.gaps))
    environment = Environment(
        loader=PackageLoader("miram.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["readable"] = page_tables.readable
    text = environment.get_template("page.html").render(**page, gaps=gaps)
    with atomic_path(html) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return {"gaps": gaps, "bytes": len(text.encode())}


def _runs(study: Study, folders: Mapping[Cell, Path], multilabel_tasks: Collection[str]) -> dict[str, curves.Runs]:
    """Task -> method -> its seeds."""
    found: dict[str, dict[str, list[Run]]] = {}
    for cell, folder in folders.items():
        run = study.run(folder / "predictions.parquet", multilabel=cell.task in multilabel_tasks)
        if run is not None:
            found.setdefault(cell.task, {}).setdefault(cell.method, []).append(run)
    return {**found}


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
