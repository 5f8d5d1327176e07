"""The comparison table as CSV, Markdown, LaTeX and PNG, and the list of lesions set aside."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miram.evaluate.markdown import aligned, subject
from miram.evaluate.metrics import MAJORITY
from miram.evaluate.predictions import NOTE_SEPARATOR, of_section
from miram.evaluate.pretrainings import extent
from miram.evaluate.scores import METRICS
from miram.files import atomic_path
from miram.layout import FINETUNE, TRIVIAL, Cell
from miram.looks import looks
from miram.predictions import TEST
from miram.report.about import about
from miram.report.efficiency import cost
from miram.report.figures import draw_comparison
from miram.report.table_text import NOT_RUN, as_latex, as_markdown
from miram.report.trivial import against_trivial

STATISTICS = {"mean": "value", "low": "low", "high": "high", "sd": "sd"}  # here -> in metrics.csv
COLUMNS = [
    *("preset", "task", "protocol", "mode", "method"),
    *(f"{metric}_percent_{statistic}" for metric in METRICS for statistic in STATISTICS),
    *("seeds", "pretrainings", "test_lesions", "classes_present", "finetune_lr"),
    *("paper_accuracy_percent", "paper_status"),
    *("side", "pretrain_batch", "pretrain_steps", "pretrain_images", "pretrain_flops", "finetune_flops"),
    *("pretrain_parameters", "pretrain_seconds", "pretrain_peak_memory_mib", "pretrain_peak_memory_kind"),
    *("pretrain_record", "finetune_records", "notes"),
]
WHOLE_NUMBERS = (
    *("seeds", "pretrainings", "test_lesions", "classes_present", "pretrain_parameters"),
    *("side", "pretrain_batch", "pretrain_steps", "pretrain_images"),
)
STILL_RISING = 0.9  # of the epochs: a best epoch after these says that the curve has no top yet


def comparison(
    metrics_csv: Path,
    differences_csv: Path,
    paper_csv: Path,
    pretrain_records: Mapping[tuple[str, str], Sequence[Path]],
    classifier_records: Mapping[Cell, Path],
    logs: Mapping[Path, Path],
    out_dir: Path,
    *,
    preset: str,
    kinds: Mapping[str, str],
    starts: Mapping[str, str],
    efforts: Mapping[tuple[str, str, str, str], Mapping[str, float]],
    confidence: float,
    specificity: float,
    positive: Sequence[str] | None = None,
    overview_md: Path | None = None,
) -> dict[str, object]:
    """Write comparison.csv, .md, .tex and .png: for each task, protocol and mode a row a method.

    All is measured on the test split; the last rows of each are the trivial classifiers and the majority class, and
    the text says whether the best network beats the former. `classifier_records` names every cell of the table, in the
    order of its rows, the main task and protocol first; what is missing is a gap that its row states, with the log that
    `logs` has for a missing record. `pretrain_records` goes by (protocol, method); the first of each gives its cost.
    `kinds` are those of the methods, for their looks; `starts`: each that is not pre-trained here, and its start in
    words; `efforts`: what the trainings of a row see and compute. Of own images `positive` holds the class whose
    sensitivity is measured, if any, and `overview_md` what was understood of them; of CBIS-DDSM both are None.
    Only pretrain_seconds and pretrain_peak_memory_mib differ between two runs with the same seeds and parameters.
    Raises MiramError when a pre-training record is damaged, differs from its files or lacks a fact.
    """
    metrics = pd.read_csv(metrics_csv, dtype={"seed": "Int64"}).fillna({"note": ""})
    runs = metrics[metrics["split"] == TEST]
    paper = pd.read_csv(paper_csv).query("metric == 'accuracy'")
    pretraining = {place: _pretraining(paths) for place, paths in pretrain_records.items()}
    rows = []
    for protocol, task, mode in dict.fromkeys(cell[:3] for cell in classifier_records):
        section = of_section(runs, (protocol, task, mode))
        cells = [cell for cell in classifier_records if cell[:3] == (protocol, task, mode)]
        trivial = [method for method in TRIVIAL if (section["method"] == method).any()]
        for method in [*dict.fromkeys(cell.method for cell in cells), *trivial, MAJORITY]:
            own = section[section["method"] == method]
            classifiers = {int(cell.seed): classifier_records[cell] for cell in cells if cell.method == method}
            rows.append(
                {"preset": preset, "task": task, "protocol": protocol, "mode": mode, "method": method}
                | _measured(own)
                | (_published(paper, task, method) if mode == FINETUNE else {})
                | dict(efforts.get((protocol, task, mode, method), {}))
                | pretraining.get((protocol, method), {})
                | _provenance(own, starts.get(method), classifiers, pretrain_records.get((protocol, method), []), logs)
            )
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))
    _write_text(out_dir / "comparison.csv", table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    headline, differences = next(iter(classifier_records))[:3], pd.read_csv(differences_csv)
    compared = against_trivial(metrics, differences, headline, confidence)
    words = [about(confidence, specificity, positive, extent(runs)), compared]
    overview = None if overview_md is None else overview_md.read_text(encoding="utf-8").strip()
    _write_text(out_dir / "comparison.md", as_markdown(table, paper, preset, words, overview, [*starts]))
    _write_text(out_dir / "comparison.tex", as_latex(table, preset, confidence, extent(runs)))
    draw_comparison(table, runs, out_dir / "comparison.png", look=looks(kinds), preset=preset, confidence=confidence)
    return {"rows": len(table), "notes": _gaps(rows)}


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _gaps(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The notes of the rows that have some, by their place."""
    place = ("protocol", "task", "mode", "method")
    return {"/".join(str(row[name]) for name in place): row["notes"] for row in rows if row["notes"]}


def _measured(own: pd.DataFrame) -> dict[str, object]:
    """What is measured of one method over its seeds, in %; NaN where there is nothing."""
    over_seeds = own[own["seed"].isna()].set_index("metric")
    measured = {
        "seeds": own["seed"].nunique(),
        "pretrainings": own["pretrain_seed"].nunique(),
        "test_lesions": own["lesions"].max(),
        "classes_present": own["classes_present"].max(),
    }
    for metric in METRICS:
        for name, column in STATISTICS.items():
            measured[f"{metric}_percent_{name}"] = 100 * over_seeds[column].get(metric, float("nan"))
    return measured


def _tuned(classifiers: Mapping[int, Path]) -> dict[str, str]:
    """The learning rate of a row's fine-tunings; empty where there are none."""
    rates = {facts["lr"] for facts in map(_facts, classifiers.values()) if "lr" in facts}
    return {"finetune_lr": NOTE_SEPARATOR.join(f"{lr:g}" for lr in sorted(rates))}


def _curve(classifiers: Mapping[int, Path]) -> list[str]:
    """That training may have been too short, by the epochs that validation chose; nothing where it was not."""
    every = [facts for facts in map(_facts, classifiers.values()) if "best_epoch" in facts]
    if not every:
        return []
    chosen, epochs = sorted(facts["best_epoch"] for facts in every), every[0]["epochs"]
    late = sum(epoch > STILL_RISING * epochs for epoch in chosen)
    if not late:
        return []
    where = f"the validation score was best in epoch {', '.join(map(str, chosen))} of {epochs}"
    return [f"{where}: {late} of {len(chosen)} still rose at the end, more epochs may help"]


def _facts(path: Path) -> dict[str, Any]:
    """The facts of a record; none if it is missing."""
    return json.loads(path.read_text(encoding="utf-8")).get("facts", {}) if path.exists() else {}


def _published(paper: pd.DataFrame, task: str, method: str) -> dict[str, object]:
    own = paper[(paper["task"] == task) & (paper["method"] == method)]
    return {"paper_accuracy_percent": own["value"].iloc[0], "paper_status": own["status"].iloc[0]} if len(own) else {}


def _pretraining(paths: Sequence[Path]) -> dict[str, object]:
    """What the first pre-training of a method cost, as its record tells, and the records of all."""
    finished = [path for path in paths if path.exists()]
    if not finished:
        return {}
    return cost(finished[0]) | {"pretrain_record": NOTE_SEPARATOR.join(map(str, finished))}


def _provenance(
    own: pd.DataFrame,
    begins: str | None,
    classifiers: Mapping[int, Path],
    start: Sequence[Path],
    logs: Mapping[Path, Path],
) -> dict[str, object]:
    """The records that a row came from, its gaps, and what its metrics say about themselves, each once."""
    begun = any(path.exists() or path in logs for path in classifiers.values()) or any(path in logs for path in start)
    if classifiers and not begun:
        return {"finetune_records": "", "notes": NOTE_SEPARATOR.join([*filter(None, [begins]), NOT_RUN])}
    evaluated = {seed: path for seed, path in classifiers.items() if seed in set(own["seed"])}
    notes = [*filter(None, [begins]), *_curve(evaluated)]
    notes += [f"no test predictions of seed {seed}" for seed in classifiers if seed not in evaluated]
    notes += [f"{path} is missing" for path in [*start, *evaluated.values()] if not path.exists()]
    notes += [f"did not finish: see {logs[path]}" for path in [*start, *classifiers.values()] if path in logs]
    notes += NOTE_SEPARATOR.join(note for note in own["note"] if note).split(NOTE_SEPARATOR)
    return {
        **_tuned(evaluated),
        "finetune_records": NOTE_SEPARATOR.join(str(path) for path in evaluated.values() if path.exists()),
        "notes": NOTE_SEPARATOR.join(dict.fromkeys(note for note in notes if note)),
    }


def write_set_aside(
    set_aside_csv: Path, lesions_csv: Path, splits_csvs: Mapping[str, Path], path: Path, *, preset: str
) -> dict[str, int]:
    """Write the lesions that have no crop or no split, each with its reason, and their counts, as Markdown.

    `lesions_csv` holds the lesions that have a crop, `splits_csvs` by protocol the split of each of them.
    """
    lost = pd.read_csv(set_aside_csv, dtype=str, keep_default_na=False)
    kept = pd.read_csv(lesions_csv, usecols=["official_split"], dtype=str, keep_default_na=False)
    counts = [
        {
            "official split": split or "none given",
            "lesions": str((kept["official_split"] == split).sum() + len(part)),
            "set aside": str(len(part)),
            "patients concerned": str(part["patient_id"].nunique()),
        }
        for split in sorted({*kept["official_split"], *lost["official_split"]}, reverse=True)  # train first
        for part in [lost[lost["official_split"] == split]]
    ]
    excluded = [
        f"* {row.lesion_id}, {protocol}: {row.reason}"
        for protocol, splits_csv in splits_csvs.items()
        for row in pd.read_csv(splits_csv, dtype=str).query("split == 'excluded'").itertuples()
    ]
    reasons = [
        f"* {row['lesion_id']} ({row['official_split'] or 'no split'}): {row['reason']}"
        for row in lost.to_dict("records")
    ]
    parts = [
        f"# Lesions set aside, preset {preset}",
        f"**{subject(preset)}.**",
        aligned(counts),
        "\n".join(reasons) or "No lesion was set aside.",
        "## Left out of all splits by a protocol",
        "\n".join(excluded) or "No lesion was left out.",
    ]
    _write_text(path, "\n\n".join(parts) + "\n")
    return {"set_aside": len(lost), "excluded": len(excluded), "kept": len(kept)}
