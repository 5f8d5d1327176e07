"""The comparison table as Markdown and as LaTeX."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from miram.evaluate.markdown import aligned, paragraph, subject
from miram.evaluate.metrics import MAJORITY
from miram.layout import TRIVIAL
from miram.report.about import METRICS, MODES, efforts, formatted

SECTION = ["task", "protocol", "mode"]  # what one table of methods is about
FIRST = ("accuracy", "macro_ap", "macro_auc")  # metrics of the first table of a section, and of the second
SECOND = ("balanced_accuracy", "micro_ap", "micro_auc", "sensitivity", "ece", "brier")
DEMO_NOTE = (
    "The numbers show that the whole pipeline runs. The paper's accuracies stand beside them for completeness only: "
    "they are for real films and models of full size, and cannot be compared with these."
)
PROTOCOLS = {
    "strict": "no patient and no film in two splits",
    "published": "the authors' split, in which validation and some test lesions are of training patients",
}
OWN_PROTOCOLS = {  # of own images, whose test set is the same under both
    **PROTOCOLS,
    "published": "validation is drawn image by image, the test set is that of strict",
}
NOT_RUN = "not run"  # of a training that has neither a record nor a log


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
        *(text for part in sections for text in _section(part, OWN_PROTOCOLS if overview else PROTOCOLS)),
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


def _section(part: pd.DataFrame, protocols: Mapping[str, str]) -> list[str]:
    """The rows of one task, protocol and mode, under their heading; `protocols`: what each is."""
    first = part.iloc[0]
    lesions = formatted(part["test_lesions"].max(), "d")
    rows = [row for _, row in part.iterrows()]
    return [
        f"## Task {first['task']}, protocol {first['protocol']}: {MODES[first['mode']]}",
        f"{lesions} test lesions; {protocols[first['protocol']]}.",
        aligned([_result_row(row) for row in rows]),
        aligned([{"method": row["method"], **{_label(m): _mean_and_interval(row, m) for m in SECOND}} for row in rows]),
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
        **{_label(metric): _mean_and_interval(row, metric) + _spread(row, metric) for metric in FIRST},
        "seeds": formatted(row["seeds"] or None, "d"),
        "pre-trainings": formatted(row["pretrainings"] or None, "d"),
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
        **efforts(row),
        "time, s": formatted(row["pretrain_seconds"], ".0f"),
        "peak memory, MiB": formatted(row["pretrain_peak_memory_mib"], ".0f"),
        "record": formatted(row["pretrain_record"], ""),
    }


def _published_text(value: float, status: str) -> str:
    return formatted(status, "") if pd.isna(value) else f"{value:.1f} ({status})"


def _label(metric: str) -> str:
    return f"{METRICS[metric][0]}, %"


def _mean_and_interval(row: pd.Series, metric: str) -> str:
    mean, low, high = (row[f"{metric}_percent_{statistic}"] for statistic in ("mean", "low", "high"))
    return formatted(mean, ".1f") + ("" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]")


def _spread(row: pd.Series, metric: str) -> str:
    sd = row[f"{metric}_percent_sd"]
    return "" if pd.isna(sd) else f" ± {sd:.1f}"
