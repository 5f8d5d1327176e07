"""The report of a network on the cases of others: Markdown, and the same as one HTML page with its figure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from miram.evaluate.cases import ALL, NETWORK, Figures
from miram.evaluate.markdown import aligned, measured, paragraph
from miram.evaluate.metrics import MAJORITY
from miram.files import atomic_path
from miram.looks import looks_of_classes
from miram.report import charts
from miram.report.about import METRICS, headings
from miram.report.svg import inline_svg
from miram.report.template import as_html, render

SHOWN = ("accuracy", "macro_auc", "sensitivity", "ece")  # of groups
CALIBRATED = "Answers by their confidence. A calibrated network is right as often as it is sure."
EXPLORATORY = (
    "Groups are few cases, chosen without a plan, and their intervals are not corrected for their number. A "
    "difference between groups is a question, and no finding."
)
NAMED = 5  # reasons that are written out


@dataclass(frozen=True, kw_only=True)
class About:
    """What a report says beside the figures."""

    title: str
    warning: str
    facts: Sequence[str]  # what was tested, on what and how it was read
    aside: Mapping[str, str]  # lesion -> why it could not be used
    confidence: float  # of the intervals
    positive: Sequence[str] | None  # the classes whose sensitivity is measured, see `metrics.evaluate`


def write_report(out: Path, figures: Figures, about: About) -> None:
    """Write report.md and report.html into `out`."""
    text = _markdown(figures, about)
    chart = charts.reliability("calibration", figures.calibration, looks_of_classes([NETWORK])[NETWORK])
    figure = inline_svg(chart, "calibration", "share of right answers against confidence")
    page = render("cases.html", title=about.title, warning=about.warning, body=as_html(text), figure=figure)
    for name, content in (("report.md", text), ("report.html", page)):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _markdown(figures: Figures, about: About) -> str:
    rows = figures.rows
    every = rows[rows["column"] == ALL]
    notes = every.loc[every["method"] == NETWORK, ["metric", "note"]]
    parts = [f"# {about.title}", f"**{about.warning}**", "\n".join(f"* {fact}" for fact in about.facts)]
    if figures.absent:
        parts.append(f"No case is of the class {', '.join(figures.absent)}: the figures say nothing about it.")
    parts.append(f"## All cases\n\nPer cent, with {about.confidence:.0%} intervals over patients.")
    parts.append(_metrics(every, about.positive))
    parts.append("\n".join(f"* {metric}: {note}" for metric, note in notes.to_numpy() if note))
    parts += ["## Calibration", CALIBRATED, _bins(figures.calibration)]
    if (rows["column"] != ALL).any() or figures.passed_over:
        parts += ["## Groups (exploratory)", paragraph(EXPLORATORY)]
        parts += [_groups(rows[rows["column"] == column], str(column)) for column in rows["column"].unique() if column]
        parts += [
            f"Column {name} has {count} values and is passed over: write groups into it."
            for name, count in figures.passed_over.items()
        ]
    if about.aside:
        parts += [f"## Set aside: {len(about.aside)}", _reasons(about.aside)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metrics(every: pd.DataFrame, positive: Sequence[str] | None) -> str:
    network, majority = (_by_metric(every[every["method"] == name]) for name in (NETWORK, MAJORITY))
    table = [
        {
            "metric": heading,
            "network": measured(network[name]),
            "always the most frequent class": measured(majority[name]),
            "meaning": meaning,
        }
        for name, (heading, meaning) in headings(positive).items()
    ]
    return aligned(table)


def _by_metric(rows: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    return {row["metric"]: row for row in rows.to_dict("records")}


def _bins(calibration: pd.DataFrame) -> str:
    return aligned(
        [
            {
                "confidence": f"{100 * row['confidence']:.1f}",
                "right": f"{100 * row['right']:.1f}",
                "answers": f"{row['count']:.0f}",
            }
            for row in calibration.to_dict("records")
        ]
    )


def _groups(rows: pd.DataFrame, column: str) -> str:
    table = []
    for group, part in rows.groupby("group", sort=False):
        own = _by_metric(part)
        counts = {name: str(own["accuracy"][name]) for name in ("lesions", "patients")}
        cells = {METRICS[name][0]: measured(own[name]) for name in SHOWN}
        table.append({column: str(group) or "(blank)", **counts, **cells})
    return aligned(table)


def _reasons(aside: Mapping[str, str]) -> str:
    """The first cases that are set aside with their reason, and how many more."""
    lines = [f"* {name}: {reason}" for name, reason in list(aside.items())[:NAMED]]
    return "\n".join([*lines, *([f"* and {len(aside) - NAMED} more"] if len(aside) > NAMED else [])])
