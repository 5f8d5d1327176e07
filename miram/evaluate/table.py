"""The comparison table as CSV, Markdown and PNG, and the list of lesions set aside."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from miram import record
from miram.errors import MiramError
from miram.evaluate.figures import PRESET_LABELS, draw_comparison
from miram.evaluate.metrics import MAJORITY, METRICS, NOTE_SEPARATOR
from miram.files import atomic_path

COLUMNS = [
    *("preset", "task", "method"),
    *(f"{metric}_percent_{statistic}" for metric in METRICS for statistic in ("mean", "sd")),
    *("seeds", "test_lesions", "classes_present"),
    *("paper_accuracy_percent", "paper_status"),
    *("pretrain_parameters", "pretrain_seconds", "pretrain_peak_memory_mib", "pretrain_peak_memory_kind"),
    *("pretrain_record", "finetune_records", "notes"),
]
WHOLE_NUMBERS = ("seeds", "test_lesions", "classes_present", "pretrain_parameters")
LABELS = {
    "accuracy": "accuracy, %",
    "macro_ap": "macro AP, %",
    "micro_ap": "micro AP, %",
    "macro_auc": "macro AUC, %",
    "micro_auc": "micro AUC, %",
}
DEMO_NOTE = (
    "The numbers show that the whole pipeline runs. The paper's accuracies stand beside them for completeness only: "
    "they are for real films and models of full size, and cannot be compared with these."
)
NOTHING = "-"
LINE_WIDTH = 110  # characters; the Markdown is printed on terminals too
BYTES_PER_MIB = 2**20


def comparison(
    metrics_csv: Path,
    paper_csv: Path,
    pretrain_records: Mapping[str, Path],
    finetune_records: Mapping[tuple[str, int], Path],
    out_dir: Path,
    *,
    preset: str,
    task: str,
) -> dict[str, object]:
    """Write comparison.csv, .md and .png: a row a method and one for the majority class, measured on the test split.

    `finetune_records` names every (method, seed) that belongs into the table, in the order of its rows; what is missing
    is a gap that its row states. A method without an entry in `pretrain_records` starts from random weights. Only
    pretrain_seconds and pretrain_peak_memory_mib differ between two runs with the same seeds and parameters. Raises
    MiramError when a pre-training record is damaged, differs from its files or lacks a fact.
    """
    metrics = pd.read_csv(metrics_csv, dtype={"seed": "Int64"}).fillna({"note": ""})
    runs = metrics[metrics["split"] == "test"]
    paper = pd.read_csv(paper_csv).query("task == @task and metric == 'accuracy'").set_index("method")
    rows = []
    for method in [*dict.fromkeys(method for method, _ in finetune_records), MAJORITY]:
        own = runs[runs["method"] == method]
        finetuning = {seed: path for (name, seed), path in finetune_records.items() if name == method}
        rows.append(
            {"preset": preset, "task": task, "method": method}
            | _measured(own)
            | _published(paper, method)
            | _pretraining(pretrain_records.get(method))
            | _provenance(own, finetuning, pretrain_records.get(method))
        )
    table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))
    with atomic_path(out_dir / "comparison.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    with atomic_path(out_dir / "comparison.md") as temporary:
        temporary.write_text(_markdown(table, paper, preset=preset, task=task), encoding="utf-8")
    draw_comparison(table, runs, out_dir / "comparison.png", preset=preset)
    return {"rows": len(table), "notes": {row["method"]: row["notes"] for row in rows if row["notes"]}}


def _measured(own: pd.DataFrame) -> dict[str, object]:
    """Mean and sample standard deviation over the seeds of one method, in %; NaN where there is nothing."""
    measured = {
        "seeds": own["seed"].nunique(),
        "test_lesions": own["lesions"].max(),
        "classes_present": own["classes_present"].max(),
    }
    for metric in METRICS:
        values = 100 * own.loc[own["metric"] == metric, "value"]
        measured |= {f"{metric}_percent_mean": values.mean(), f"{metric}_percent_sd": values.std()}
    return measured


def _published(paper: pd.DataFrame, method: str) -> dict[str, object]:
    if method not in paper.index:
        return {}
    return {"paper_accuracy_percent": paper.at[method, "value"], "paper_status": paper.at[method, "status"]}


def _pretraining(path: Path | None) -> dict[str, object]:
    """What pre-training cost, as its record tells."""
    if path is None or not path.exists():
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


def _provenance(own: pd.DataFrame, finetuning: Mapping[int, Path], pretraining: Path | None) -> dict[str, str]:
    """The records that a row came from, its gaps, and what its metrics say about themselves, each once."""
    evaluated = {seed: path for seed, path in finetuning.items() if seed in set(own["seed"])}
    notes = ["no pre-training"] if finetuning and pretraining is None else []
    notes += [f"no test predictions of seed {seed}" for seed in finetuning if seed not in evaluated]
    records = [*([] if pretraining is None else [pretraining]), *evaluated.values()]
    notes += [f"{path} is missing" for path in records if not path.exists()]
    notes += NOTE_SEPARATOR.join(note for note in own["note"] if note).split(NOTE_SEPARATOR)
    return {
        "finetune_records": NOTE_SEPARATOR.join(str(path) for path in evaluated.values() if path.exists()),
        "notes": NOTE_SEPARATOR.join(dict.fromkeys(note for note in notes if note)),
    }


def _markdown(table: pd.DataFrame, paper: pd.DataFrame, *, preset: str, task: str) -> str:
    """The table as Markdown that reads as well in plain text."""
    methods = table[table["method"] != MAJORITY]
    memory_kinds = methods["pretrain_peak_memory_kind"].dropna().unique()
    notes = [f"{row['method']}: {row['notes']}" for _, row in table.iterrows() if row["notes"]]
    for source, group in paper.groupby("source", sort=False):
        notes.append(f"paper's accuracy of {', '.join(group.index)}: {source}")
    parts = [
        f"# Comparison of methods, preset {preset}",
        _paragraph(f"**{PRESET_LABELS[preset]}.**" + (f" {DEMO_NOTE}" if preset == "demo" else "")),
        "## Results on the test split",
        _paragraph(
            f"Task {task}, {_text(table['test_lesions'].max(), 'd')} lesions; mean ± sample standard deviation over "
            "the seeds of fine-tuning. AP is average precision, AUC the area under the ROC curve, each class against "
            "the rest; macro is the mean over classes, micro counts all pairs of lesion and class."
        ),
        _aligned([_result_row(row) for _, row in table.iterrows()]),
        "## Pre-training",
        _paragraph(
            "Parameters include all that is trained with the encoder. "
            f"Peak memory: {', '.join(memory_kinds) or 'not known'}. "
            "The records of fine-tuning are named in comparison.csv."
        ),
        _aligned([_pretraining_row(row) for _, row in methods.iterrows()]),
        "## Notes",
        "\n".join(_paragraph(f"* {note}.", indent="  ") for note in notes),
    ]
    return "\n\n".join(parts) + "\n"


def _result_row(row: pd.Series) -> dict[str, str]:
    return {
        "method": row["method"],
        **{label: _mean_and_sd(row, metric) for metric, label in LABELS.items()},
        "seeds": _text(row["seeds"] or None, "d"),
        "paper accuracy, %": _published_text(row["paper_accuracy_percent"], row["paper_status"]),
    }


def _pretraining_row(row: pd.Series) -> dict[str, str]:
    return {
        "method": row["method"],
        "parameters, M": _text(row["pretrain_parameters"] / 1e6, ".2f"),
        "time, s": _text(row["pretrain_seconds"], ".0f"),
        "peak memory, MiB": _text(row["pretrain_peak_memory_mib"], ".0f"),
        "record": _text(row["pretrain_record"], ""),
    }


def _published_text(value: float, status: str) -> str:
    return _text(status, "") if pd.isna(value) else f"{value:.1f} ({status})"


def _mean_and_sd(row: pd.Series, metric: str) -> str:
    mean, sd = row[f"{metric}_percent_mean"], row[f"{metric}_percent_sd"]
    return _text(mean, ".1f") + ("" if pd.isna(sd) else f" ± {sd:.1f}")


def _text(value: float | str | None, form: str) -> str:
    return NOTHING if pd.isna(value) else format(value, form)


def _paragraph(text: str, indent: str = "") -> str:
    return textwrap.fill(text, LINE_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _aligned(rows: list[dict[str, str]]) -> str:
    """A Markdown table whose columns are as wide as their widest text, which pandas' own pads beyond a terminal."""
    texts = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def write_set_aside(
    set_aside_csv: Path, lesions_csv: Path, splits_csv: Path, path: Path, *, preset: str
) -> dict[str, int]:
    """Write the lesions that have no crop or no split, each with its reason, and their counts, as Markdown.

    `lesions_csv` holds the lesions that have a crop, `splits_csv` the split of each of them.
    """
    lost = pd.read_csv(set_aside_csv, dtype=str)
    kept = pd.read_csv(lesions_csv, usecols=["official_split"], dtype=str)
    counts = [
        {
            "official split": split,
            "lesions": str((kept["official_split"] == split).sum() + len(part)),
            "set aside": str(len(part)),
            "patients concerned": str(part["patient_id"].nunique()),
        }
        for split in ("train", "test")
        for part in [lost[lost["official_split"] == split]]
    ]
    splits = pd.read_csv(splits_csv, dtype=str)
    excluded = [f"* {row.lesion_id}: {row.reason}" for row in splits[splits["split"] == "excluded"].itertuples()]
    reasons = [f"* {row.lesion_id} ({row.official_split}): {row.reason}" for row in lost.itertuples()]
    parts = [
        f"# Lesions set aside, preset {preset}",
        f"**{PRESET_LABELS[preset]}.**",
        _aligned(counts),
        "\n".join(reasons) or "No lesion was set aside.",
        "## Left out of all splits by the protocol",
        "\n".join(excluded) or "No lesion was left out.",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return {"set_aside": len(lost), "excluded": len(excluded), "kept": len(kept)}
