"""The tables and texts of the report as plain values for its template; numbers in per cent."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miram.evaluate.metrics import MAJORITY
from miram.evaluate.predictions import NOTE_SEPARATOR, SECTION, of_section
from miram.files import sha256_file
from miram.layout import FINETUNE, FROM_SCRATCH, TRIVIAL
from miram.predictions import TEST
from miram.report.about import NOTHING, efforts, headings
from miram.report.charts import Look
from miram.report.study import Study
from miram.report.template import as_html

KINDS = {"reproduced": "✓", "not reproduced": "✗", "cannot be told": "?"}  # verdict -> its sign
AUDIT = "audit.md"
DOCUMENTS = {AUDIT: "What the audit found", "set_aside.md": "Lesions that could not be used"}
SHORT_DIGEST = 10  # characters


def claim_cards(claims: pd.DataFrame | None) -> list[dict[Hashable, Any]]:
    """A card a claim: its statement, source and rule, and for each protocol the verdict, its sign and the evidence."""
    if claims is None:
        return []
    cards = []
    for _, rows in claims.fillna("").groupby("claim", sort=False):
        found = rows.to_dict("records")
        for row in found:
            verdict = row["verdict"].partition(" (")[0]  # without how far it reaches
            row["kind"] = verdict.replace(" ", "-") if verdict in KINDS else "no-verdict"
            row["sign"] = KINDS.get(verdict, "")
        cards.append({**found[0], "verdicts": found})
    return cards


def verdict_counts(claims: pd.DataFrame | None, protocol: str) -> str:
    """How many claims have which verdict under one protocol, or without a run, in words; empty without claims."""
    found = [] if claims is None else claims.loc[claims["protocol"].isin([protocol, math.nan]), "verdict"].tolist()
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in dict.fromkeys(found))


def metric_groups(
    metrics: pd.DataFrame | None,
    paper: pd.DataFrame,
    looks: Mapping[str, Look],
    headline: tuple[str, str, str],
    positive: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """A table for each (protocol, task, mode) that was measured, the headline's first; test lesions only."""
    if metrics is None:
        return []
    test = metrics[metrics["split"] == TEST]
    parts = {
        (str(protocol), str(task), str(mode)): part
        for (protocol, task, mode), part in test.groupby(list(SECTION), sort=False)
    }
    ordered = sorted(parts, key=lambda group: group != headline)
    return [_group(group, parts[group], paper, looks, positive) for group in ordered]


def _group(
    group: tuple[str, str, str],
    part: pd.DataFrame,
    paper: pd.DataFrame,
    looks: Mapping[str, Look],
    positive: Sequence[str] | None,
) -> dict[str, Any]:
    protocol, task, mode = group
    heads = headings(positive)
    shown = [metric for metric in heads if (part["metric"] == metric).any()]
    published = paper[(paper["task"] == task) & (paper["metric"] == "accuracy")].set_index("method")["value"]
    has_paper = mode == FINETUNE and published.notna().any()
    rows = []
    for method in [name for name in [*looks, *TRIVIAL, MAJORITY] if (part["method"] == name).any()]:
        own = part[(part["method"] == method) & part["seed"].isna()].set_index("metric")
        value = published.get(method) if has_paper else None
        rows.append(
            {
                "method": method,
                "look": looks.get(method),
                "cells": [_cell(own.loc[[metric]].iloc[0]) if metric in own.index else _cell(None) for metric in shown],
                "paper": "" if pd.isna(value) else f"{value:.1f}",
                "paper_sort": "" if pd.isna(value) else value,
            }
        )
    notes = [note for text in part["note"].dropna() for note in text.split(NOTE_SEPARATOR)]
    lesions = part["lesions"].max()
    return {
        "protocol": protocol,
        "task": task,
        "mode": mode,
        "metrics": [{"name": name, "label": heads[name][0], "meaning": heads[name][1]} for name in shown],
        "lesions": NOTHING if pd.isna(lesions) else int(lesions),
        "has_paper": has_paper,
        "rows": rows,
        "notes": list(dict.fromkeys(notes)),
    }


def _cell(row: pd.Series | None) -> dict[str, Any]:
    """A value with its interval, what stands below it, and the place of both on a bar from 0 to 100."""
    if row is None or pd.isna(row["value"]):
        return {"text": NOTHING, "sort": "", "interval": "", "below": "", "range": None}
    value, low, high, sd = (100 * row[name] for name in ("value", "low", "high", "sd"))
    interval = "" if pd.isna(low) else f"{low:.1f} to {high:.1f}"
    below = "; ".join(filter(None, [interval, "" if pd.isna(sd) else f"sd {sd:.1f}"]))
    place = None if pd.isna(low) else {"low": round(low, 1), "width": round(high - low, 1), "value": round(value, 1)}
    return {"text": f"{value:.1f}", "sort": f"{value:.4f}", "interval": interval, "below": below, "range": place}


def documents(study: Study, results: Path, overview_md: Path | None, *, audited: bool) -> list[dict[str, Any]]:
    """The audit, or what was understood of one's own images, and the lesions set aside, their Markdown as HTML."""
    texts = {"What the images are": study.text(overview_md)} if overview_md else {}
    texts |= {title: study.text(results / name) for name, title in DOCUMENTS.items() if audited or name != AUDIT}
    return [{"title": title, "html": None if text is None else as_html(text)} for title, text in texts.items()]


def stage_rows(records: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """A row a stage: the commit and the code that it ran with, where, and how long."""
    return [
        {
            "stage": name,
            "commit": _commit(record),
            "code": record["code"][:SHORT_DIGEST],
            "device": record["facts"].get("device", ""),
            "seconds": f"{record['facts']['seconds']:.0f}" if "seconds" in record["facts"] else "",
        }
        for name, record in records
    ]


def provenance(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What all these records have in common, or in how many forms: commits, locks, versions, machines."""
    return {
        "commit": _listed(_commit(record) for record in records),
        "requirements.lock": _listed(f"SHA-256 {record['lock']}" for record in records if record["lock"]),
        "devices": _listed(record["facts"]["device"] for record in records if "device" in record["facts"]),
        "machines": _listed(f"{r['machine']['system']}, {r['machine']['processor']}" for r in records),
        "versions": _listed(", ".join(f"{name} {v}" for name, v in r["versions"].items() if v) for r in records),
        "records": f"{len(records)}, each with the SHA-256 of what it read and wrote",
    }


def lock_text(study: Study, data_lock: Path) -> str:
    """What names the data: how many files of the archive, and the digest of the list of their digests."""
    table = study.table(data_lock)
    return "missing" if table is None else f"{data_lock}: {len(table)} files, SHA-256 {sha256_file(data_lock)}"


def _commit(record: Mapping[str, Any]) -> str:
    git = record["git"]
    return "not known" if git is None else git["commit"][:SHORT_DIGEST] + (" + changes" if git["dirty"] else "")


def _listed(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values)) or "not known"


def leader(group: Mapping[str, Any]) -> dict[str, str] | None:
    """The method with the highest accuracy of a table, its value and its interval; None where no method has one."""
    place = [metric["name"] for metric in group["metrics"]].index("accuracy")
    rows = [row for row in group["rows"] if row["look"] and row["cells"][place]["sort"]]
    if not rows:
        return None
    best = max(rows, key=lambda row: float(row["cells"][place]["sort"]))
    return {"method": best["method"], **best["cells"][place]}


def told_apart(
    differences: pd.DataFrame | None, headline: tuple[str, str, str], confidence: float
) -> dict[str, Any] | None:
    """From how many of the rivals that it is compared with the reference method is told by accuracy; None without."""
    if differences is None:
        return None
    rows = between_methods(of_section(differences, headline, metric="accuracy")).dropna(subset="difference")
    if rows.empty:
        return None
    told = int((rows["p_holm"] < 1 - confidence).sum())
    unlike = [
        f"{row.first} and {row.second}: {row.differs_in}" for row in rows.dropna(subset="differs_in").itertuples()
    ]
    scratch = (rows["second"] == FROM_SCRATCH).any()
    first = ", ".join(rows["first"].unique())
    return {"first": first, "pairs": len(rows), "told": told, "scratch": scratch, "unlike": unlike}


def effort_rows(comparison: pd.DataFrame | None, headline: tuple[str, str, str]) -> list[dict[str, str]]:
    """A row a method: what its trainings see and compute."""
    if comparison is None:
        return []
    own = of_section(comparison, headline).dropna(subset="side")
    return [{"method": row["method"]} | efforts(row) for row in own.to_dict("records")]


def variance_rows(variances: pd.DataFrame | None, headline: tuple[str, str, str]) -> list[dict[str, str]]:
    """A row a method: the standard deviations of its accuracy by source, in points."""
    if variances is None:
        return []
    sources = {"patients": "sd_patients", "pre-training": "sd_pretraining", "fine-tuning": "sd_finetuning"}
    return [
        {"method": row["method"], "pre-trainings": f"{row['pretrainings']}", "fine-tunings": f"{row['seeds']}"}
        | {name: NOTHING if pd.isna(row[column]) else f"{100 * row[column]:.1f}" for name, column in sources.items()}
        for row in of_section(variances, headline, metric="accuracy").to_dict("records")
    ]


def between_methods(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of differences.csv of the reference, which are the first, without those from a trivial classifier."""
    rows = differences[~differences["second"].isin(TRIVIAL)]
    return rows[rows["first"] == rows["first"].iloc[0]] if len(rows) else rows


def protocol_rows(groups: Sequence[Mapping[str, Any]], headline: tuple[str, str, str]) -> list[dict[str, Any]]:
    """The accuracy of each method under every protocol, for the task and mode of the headline."""
    columns = [group for group in groups if (group["task"], group["mode"]) == headline[1:]]
    rows = []
    for method in dict.fromkeys(row["method"] for group in columns for row in group["rows"]):
        cells = {}
        for group in columns:
            place = [metric["name"] for metric in group["metrics"]].index("accuracy")
            found = [row["cells"][place] for row in group["rows"] if row["method"] == method]
            cells[group["protocol"]] = found[0] if found else _cell(None)
        rows.append({"method": method, "cells": cells})
    return rows
