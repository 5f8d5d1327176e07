"""The comparison table as CSV, Markdown, LaTeX and PNG, and the list of lesions set aside."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from miram.errors import MiramError
from miram.evaluate.markdown import aligned, paragraph, subject
from miram.evaluate.metrics import MAJORITY
from miram.evaluate.predictions import NOTE_SEPARATOR
from miram.evaluate.scores import METRICS
from miram.files import atomic_path
from miram.layout import FINETUNE, FROM_SCRATCH, IMAGENET, Cell
from miram.looks import looks
from miram.provenance import record
from miram.report.about import about
from miram.report.figures import draw_comparison

STATISTICS = {"mean": "value", "low": "low", "high": "high", "sd": "sd"}  # here -> in metrics.csv
COLUMNS = [
    *("preset", "task", "protocol", "mode", "method"),
    *(f"{metric}_percent_{statistic}" for metric in METRICS for statistic in STATISTICS),
    *("seeds", "test_lesions", "classes_present"),
    *("paper_accuracy_percent", "paper_status"),
    *("pretrain_parameters", "pretrain_seconds", "pretrain_peak_memory_mib", "pretrain_peak_memory_kind"),
    *("pretrain_record", "finetune_records", "notes"),
]
SECTION = ["task", "protocol", "mode"]  # what one table of methods is about
WHOLE_NUMBERS = ("seeds", "test_lesions", "classes_present", "pretrain_parameters")
LABELS = {  # of the first table of a section, and of the second
    "accuracy": "accuracy, %",
    "macro_ap": "macro AP, %",
    "macro_auc": "macro AUC, %",
}
MORE_LABELS = {
    "balanced_accuracy": "balanced acc., %",
    "micro_ap": "micro AP, %",
    "micro_auc": "micro AUC, %",
    "sensitivity": "sensitivity, %",
    "ece": "ECE, %",
    "brier": "Brier, %",
}
DEMO_NOTE = (
    "The numbers show that the whole pipeline runs. The paper's accuracies stand beside them for completeness only: "
    "they are for real films and models of full size, and cannot be compared with these."
)
PROTOCOLS = {
    "strict": "no patient and no film in two splits",
    "published": "the authors' split, in which validation and some test lesions are of training patients",
}
MODES = {
    FINETUNE: "Fine-tuning",
    "linear": "Linear probe on frozen features",
    "knn": "Nearest neighbours, frozen features",
}
BASELINES = {FROM_SCRATCH: "no pre-training", IMAGENET: "starts from finetune.imagenet_init"}
NOTHING = "-"
BYTES_PER_MIB = 2**20


def comparison(
    metrics_csv: Path,
    paper_csv: Path,
    pretrain_records: Mapping[tuple[str, str], Path],
    classifier_records: Mapping[Cell, Path],
    logs: Mapping[Path, Path],
    out_dir: Path,
    *,
    preset: str,
    kinds: Mapping[str, str],
    confidence: float,
    specificity: float,
    positive: Sequence[str] | None = None,
    overview_md: Path | None = None,
) -> dict[str, object]:
    """Write comparison.csv, .md, .tex and .png: for each task, protocol and mode a row a method.

    All is measured on the test split; the last row of each is the majority class. `classifier_records` names every cell
    that belongs into the table, in the order of its rows, the main task and the main protocol first; what is missing is
    a gap that its row states, with the log that `logs` has for a missing record. `pretrain_records` goes by (protocol,
    method). `kinds` are those of the methods, which give their looks. Of one's own images `positive` holds the class
    whose sensitivity is measured, if any, and `overview_md` what was understood of them; of CBIS-DDSM both are None.
    Only pretrain_seconds and pretrain_peak_memory_mib differ between two runs with the same seeds and parameters.
    Raises MiramError when a pre-training record is damaged, differs from its files or lacks a fact.
    """
    metrics = pd.read_csv(metrics_csv, dtype={"seed": "Int64"}).fillna({"note": ""})
    runs = metrics[metrics["split"] == "test"]
    paper = pd.read_csv(paper_csv).query("metric == 'accuracy'")
    pretraining = {place: _pretraining(path) for place, path in pretrain_records.items()}
    rows = []
    for protocol, task, mode in dict.fromkeys(cell[:3] for cell in classifier_records):
        section = runs.query("protocol == @protocol and task == @task and mode == @mode")
        cells = [cell for cell in classifier_records if cell[:3] == (protocol, task, mode)]
        for method in [*dict.fromkeys(cell.method for cell in cells), MAJORITY]:
            own = section[section["method"] == method]
            classifiers = {int(cell.seed): classifier_records[cell] for cell in cells if cell.method == method}
            rows.append(
                {"preset": preset, "task": task, "protocol": protocol, "mode": mode, "method": method}
                | _measured(own)
                | (_published(paper, task, method) if mode == FINETUNE else {})
                | pretraining.get((protocol, method), {})
                | _provenance(own, method, classifiers, pretrain_records.get((protocol, method)), logs)
            )
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))
    with atomic_path(out_dir / "comparison.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    with atomic_path(out_dir / "comparison.md") as temporary:
        words = about(confidence, specificity, positive)
        text = None if overview_md is None else overview_md.read_text(encoding="utf-8").strip()
        temporary.write_text(_markdown(table, paper, preset, words, text), encoding="utf-8")
    with atomic_path(out_dir / "comparison.tex") as temporary:
        temporary.write_text(_latex(table, preset, confidence), encoding="utf-8")
    draw_comparison(table, runs, out_dir / "comparison.png", look=looks(kinds), preset=preset, confidence=confidence)
    gaps = {"/".join(str(row[name]) for name in ("protocol", "task", "mode", "method")): row["notes"] for row in rows}
    return {"rows": len(table), "notes": {row: notes for row, notes in gaps.items() if notes}}


def _measured(own: pd.DataFrame) -> dict[str, object]:
    """What is measured of one method over its seeds, in %; NaN where there is nothing."""
    over_seeds = own[own["seed"].isna()].set_index("metric")
    measured = {
        "seeds": own["seed"].nunique(),
        "test_lesions": own["lesions"].max(),
        "classes_present": own["classes_present"].max(),
    }
    for metric in METRICS:
        for name, column in STATISTICS.items():
            measured[f"{metric}_percent_{name}"] = 100 * over_seeds[column].get(metric, float("nan"))
    return measured


def _published(paper: pd.DataFrame, task: str, method: str) -> dict[str, object]:
    own = paper[(paper["task"] == task) & (paper["method"] == method)]
    return {"paper_accuracy_percent": own["value"].iloc[0], "paper_status": own["status"].iloc[0]} if len(own) else {}


def _pretraining(path: Path) -> dict[str, object]:
    """What pre-training cost, as its record tells."""
    if not path.exists():
        return {}
    facts = record.read(path)["facts"]
    try:
        return {
            "pretrain_parameters": facts["parameters"],
            "pretrain_seconds": facts["seconds"],
            "pretrain_peak_memory_mib": facts["peak_memory_bytes"] / BYTES_PER_MIB,
            "pretrain_peak_memory_kind": facts["peak_memory_kind"],
            "pretrain_record": str(path),
        }
    except KeyError as error:
        raise MiramError(f"{path} lacks the fact {error}.", "Delete it and run the pre-training again.") from error


def _provenance(
    own: pd.DataFrame,
    method: str,
    classifiers: Mapping[int, Path],
    pretraining: Path | None,
    logs: Mapping[Path, Path],
) -> dict[str, str]:
    """The records that a row came from, its gaps, and what its metrics say about themselves, each once."""
    evaluated = {seed: path for seed, path in classifiers.items() if seed in set(own["seed"])}
    notes = [BASELINES[method]] if method in BASELINES else []
    notes += [f"no test predictions of seed {seed}" for seed in classifiers if seed not in evaluated]
    start = [] if pretraining is None else [pretraining]
    notes += [f"{path} is missing" for path in [*start, *evaluated.values()] if not path.exists()]
    notes += [f"did not finish: see {logs[path]}" for path in [*start, *classifiers.values()] if path in logs]
    notes += NOTE_SEPARATOR.join(note for note in own["note"] if note).split(NOTE_SEPARATOR)
    return {
        "finetune_records": NOTE_SEPARATOR.join(str(path) for path in evaluated.values() if path.exists()),
        "notes": NOTE_SEPARATOR.join(dict.fromkeys(note for note in notes if note)),
    }


def _markdown(table: pd.DataFrame, paper: pd.DataFrame, preset: str, words: str, overview: str | None) -> str:
    """The table as Markdown that reads as well in plain text."""
    memory_kinds = table["pretrain_peak_memory_kind"].dropna().unique()
    sections = [part for _, part in table.groupby(SECTION, sort=False)]
    own_start = table[~table["method"].isin([*BASELINES, MAJORITY])].drop_duplicates(["protocol", "method"])
    parts = [
        f"# Comparison of methods, preset {preset}",
        paragraph(f"**{subject(preset)}.**" + (f" {DEMO_NOTE}" if preset == "demo" else "")),
        paragraph(words),
        *(text for part in sections for text in _section(part)),
        *(["## The images", overview] if overview else []),
        "## Pre-training",
        paragraph(
            "Parameters include all that is trained with the encoder. "
            f"Peak memory: {', '.join(memory_kinds) or 'not known'}. "
            "The records of the classifiers are named in comparison.csv."
        ),
        aligned([_pretraining_row(row) for _, row in own_start.iterrows()]),
        "## Notes",
        "\n".join(paragraph(f"* {note}.", indent="  ") for note in _notes(table, paper)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(part: pd.DataFrame) -> list[str]:
    """The rows of one task, protocol and mode, under their heading."""
    first = part.iloc[0]
    lesions = _text(part["test_lesions"].max(), "d")
    rows = [row for _, row in part.iterrows()]
    return [
        f"## Task {first['task']}, protocol {first['protocol']}: {MODES[first['mode']].lower()}",
        f"{lesions} test lesions; {PROTOCOLS[first['protocol']]}.",
        aligned([_result_row(row) for row in rows]),
        aligned([{"method": row["method"]} | _intervals(row, MORE_LABELS) for row in rows]),
    ]


def _notes(table: pd.DataFrame, paper: pd.DataFrame) -> list[str]:
    """What the rows note, each note once with the places that it holds for."""
    noted = table[table["notes"] != ""]
    places = noted[SECTION].agg(", ".join, axis=1)
    notes = [
        f"{method} ({'; '.join(own) if len(own) < table.groupby(SECTION).ngroups else 'everywhere'}): {text}"
        for (method, text), own in places.groupby([noted["method"], noted["notes"]], sort=False)
    ]
    for source, group in paper[paper["task"].isin(table["task"])].groupby("source", sort=False):
        notes.append(f"paper's accuracy of {', '.join(group['method'])}: {source}")
    return notes


def _result_row(row: pd.Series) -> dict[str, str]:
    return {
        "method": row["method"],
        **{label: _mean_and_interval(row, metric) + _spread(row, metric) for metric, label in LABELS.items()},
        "seeds": _text(row["seeds"] or None, "d"),
        "paper accuracy, %": _published_text(row["paper_accuracy_percent"], row["paper_status"]),
    }


def _latex(table: pd.DataFrame, preset: str, confidence: float) -> str:
    """The first table of each section for a LaTeX document; needs the package booktabs."""
    rows = [_result_row(row) for _, row in table.iterrows()]
    lines = [
        f"% Preset {preset}: {subject(preset)}.",
        f"% Mean over seeds, [{confidence:.0%} interval over patients], ± standard deviation over seeds.",
        f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        "\\toprule",
        _latex_row(rows[0]),
    ]
    previous = None
    for row, place in zip(rows, table[SECTION].itertuples(index=False, name=None), strict=True):
        if place != previous:
            heading = _latex_text(", ".join(place))
            lines += ["\\midrule", f"\\multicolumn{{{len(row)}}}{{l}}{{{heading}}} \\\\"]
        lines.append(_latex_row(row.values()))
        previous = place
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(texts: Iterable[str]) -> str:
    return " & ".join(_latex_text(text) for text in texts) + " \\\\"


def _latex_text(text: str) -> str:
    for sign in "%_&#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("±", "$\\pm$")


def _pretraining_row(row: pd.Series) -> dict[str, str]:
    return {
        "protocol": row["protocol"],
        "method": row["method"],
        "parameters, M": _text(row["pretrain_parameters"] / 1e6, ".2f"),
        "time, s": _text(row["pretrain_seconds"], ".0f"),
        "peak memory, MiB": _text(row["pretrain_peak_memory_mib"], ".0f"),
        "record": _text(row["pretrain_record"], ""),
    }


def _published_text(value: float, status: str) -> str:
    return _text(status, "") if pd.isna(value) else f"{value:.1f} ({status})"


def _intervals(row: pd.Series, labels: Mapping[str, str]) -> dict[str, str]:
    return {label: _mean_and_interval(row, metric) for metric, label in labels.items()}


def _mean_and_interval(row: pd.Series, metric: str) -> str:
    mean, low, high = (row[f"{metric}_percent_{statistic}"] for statistic in ("mean", "low", "high"))
    return _text(mean, ".1f") + ("" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]")


def _spread(row: pd.Series, metric: str) -> str:
    sd = row[f"{metric}_percent_sd"]
    return "" if pd.isna(sd) else f" ± {sd:.1f}"


def _text(value: float | str | None, form: str) -> str:
    return NOTHING if pd.isna(value) else format(value, form)


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
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return {"set_aside": len(lost), "excluded": len(excluded), "kept": len(kept)}
