"""The comparison table as Markdown and as LaTeX."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from miram.evaluate.markdown import aligned, paragraph, subject
from miram.evaluate.metrics import MAJORITY
from miram.layout import FINETUNE, TRIVIAL

SECTION = ["task", "protocol", "mode"]  # what one table of methods is about
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
NOT_RUN = "not run"  # of a training that has neither a record nor a log
NOTHING = "-"


def as_markdown(
    table: pd.DataFrame,
    paper: pd.DataFrame,
    preset: str,
    words: Sequence[str],
    overview: str | None,
    unpretrained: Sequence[str],
) -> str:
    """The table as Markdown that reads as well in plain text; `words` are paragraphs, of which one may be empty."""
    memory_kinds = table["pretrain_peak_memory_kind"].dropna().unique()
    sections = [part for _, part in table.groupby(SECTION, sort=False)]
    others = [*unpretrained, *TRIVIAL, MAJORITY]
    own_start = table[~table["method"].isin(others)].drop_duplicates(["protocol", "method"])
    parts = [
        f"# Comparison of methods, preset {preset}",
        paragraph(f"**{subject(preset)}.**" + (f" {DEMO_NOTE}" if preset == "demo" else "")),
        *(paragraph(text) for text in words if text),
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
    for source, group in paper[paper["task"].isin(table["task"]) & paper["method"].isin(table["method"])].groupby(
        "source", sort=False
    ):
        notes.append(f"paper's accuracy of {', '.join(group['method'])}: {source}")
    return notes


def _result_row(row: pd.Series) -> dict[str, str]:
    return {
        "method": row["method"],
        **{label: _mean_and_interval(row, metric) + _spread(row, metric) for metric, label in LABELS.items()},
        "seeds": _text(row["seeds"] or None, "d"),
        "pre-trainings": _text(row["pretrainings"] or None, "d"),
        "paper accuracy, %": _published_text(row["paper_accuracy_percent"], row["paper_status"]),
    }


def as_latex(table: pd.DataFrame, preset: str, confidence: float, extent: str) -> str:
    """The first table of each section for a LaTeX document, after its `extent`; needs the package booktabs."""
    rows = [_result_row(row) for _, row in table.iterrows()]
    lines = [
        f"% Preset {preset}: {subject(preset)}.",
        f"% Mean over seeds, [{confidence:.0%} interval], ± standard deviation over seeds. {extent}".rstrip(),
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
        "side, px": _text(row["side"], "d"),
        "batch": _text(row["pretrain_batch"], "d"),
        "steps": _text(row["pretrain_steps"], "d"),
        "images seen, M": _text(row["pretrain_images"] / 1e6, ".3g"),
        "PFLOP": _text(row["pretrain_flops"] / 1e15, ".3g"),
        "PFLOP of a fine-tuning": _text(row["finetune_flops"] / 1e15, ".3g"),
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
