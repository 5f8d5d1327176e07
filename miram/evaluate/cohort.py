"""Who is in the data, what the leak does, and how results differ by group: each split, metrics of groups of lesions."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from miram.evaluate.leak import LEAK_COLUMNS, leak_table, leak_text, seen_patients
from miram.evaluate.markdown import aligned, measured, paragraph, subject
from miram.evaluate.metrics import Draws, Limits, lesion_rows
from miram.evaluate.predictions import SECTION
from miram.evaluate.scores import Options
from miram.evaluate.subgroups import group_rows, with_groups
from miram.files import atomic_path, write_csv
from miram.layout import Cell
from miram.predictions import TEST, Predictions, read_predictions

COUNTS = ["protocol", "characteristic", "value", "split", "lesions", "patients", "films"]
ROWS = [
    *(*SECTION, "method", "column", "group", "metric", "value", "low", "high", "sd"),
    *("lesions", "patients", "classes_present", "note"),
]
ALL = "all"
ORDER = ("train", "validation", "test", "pretrain", "excluded")


def cohort(
    lesions_csv: Path,
    set_aside_csv: Path,
    splits_csvs: Mapping[str, Path],
    predictions: Mapping[Cell, Path],
    outputs: Sequence[Path],
    *,
    listed: Mapping[str, int],
    preset: str,
    resamples: int,
    seed: int,
    confidence: float,
    min_draws_share: float,
    specificity: float,
    threshold: float,
    bins: int,
    compared: Sequence[str],
    positive: Sequence[str] | None = None,
) -> dict[str, object]:
    """Write `outputs`: cohort.csv, subgroups.csv, leak.csv and cohort.md, which shows them and the way to the splits.

    `predictions` are the finished ones of one task and mode, `listed` the counts of series by what became of them.
    Groups are of the first protocol of `splits_csvs`. The metrics are `compared`, the mean over a method's seeds; their
    intervals are over the patients of the group. Nothing is tested: the groups are exploratory. Returns facts for the
    record.
    """
    lesions, headings = with_groups(pd.read_csv(lesions_csv, dtype=str, keep_default_na=False))
    splits = {protocol: pd.read_csv(path, dtype=str) for protocol, path in splits_csvs.items()}
    counts = pd.concat([characteristics(lesions, own, headings).assign(protocol=p) for p, own in splits.items()])
    draws: Draws = {"resamples": resamples, "seed": seed}
    limits: Limits = {"confidence": confidence, "min_draws_share": min_draws_share}
    options: Options = {"specificity": specificity, "threshold": threshold, "bins": bins}
    networks: dict[tuple[str, str], list[Predictions]] = {}
    for cell, path in sorted(predictions.items(), key=lambda item: list(splits).index(item[0].protocol)):
        networks.setdefault((cell.method, cell.protocol), []).append(read_predictions(path, cell).of(TEST))
    about = partial(lesion_rows, draws=draws, limits=limits, options=options, positive=positive, metrics=compared)
    rows = []
    for (method, protocol), own in networks.items():
        if protocol != next(iter(splits)):
            continue
        for network in own:
            network.table[headings] = (
                lesions.set_index("lesion_id").loc[network.table["lesion_id"], headings].to_numpy()
            )
        measure = partial(about, method=method)
        place = dict(zip(SECTION, (protocol, own[0].question.task, own[0].question.mode), strict=True))
        rows += [place | row for name in headings for row in group_rows(own, name, measure)]
    groups = pd.DataFrame(rows, columns=ROWS)
    seen = seen_patients(lesions, splits)
    leak = leak_table(networks, seen, draws=draws, limits=limits)
    for table, columns, path in zip((counts, groups, leak), (COUNTS, ROWS, LEAK_COLUMNS), outputs[:3], strict=True):
        write_csv(table[columns], path, float_format="%.6f")
    with atomic_path(outputs[3]) as temporary:
        lost = len(pd.read_csv(set_aside_csv, dtype=str))
        way = flow(listed, len(lesions), lost, splits)
        shown = ["## What the leak does", *leak_text(leak, seen, confidence)]
        temporary.write_text(_text(preset, way, counts, shown, groups, confidence), encoding="utf-8")
    return {"intervals": int(groups["low"].notna().sum()), "groups": len(groups[["column", "group"]].drop_duplicates())}


def characteristics(lesions: pd.DataFrame, splits: pd.DataFrame, headings: Sequence[str]) -> pd.DataFrame:
    """The numbers of lesions, patients and films of each value in each split: COUNTS without the protocol."""
    joined = lesions.merge(splits[["lesion_id", "split"]], on="lesion_id")
    parts = []
    for heading in (ALL, *headings):
        table = joined.assign(value=ALL if heading == ALL else joined[heading])
        counted = table.groupby(["value", "split"], sort=True).agg(
            lesions=("lesion_id", "size"), patients=("patient_id", "nunique"), films=("film_uid", "nunique")
        )
        parts.append(counted.reset_index().assign(characteristic=heading))
    return pd.concat(parts, ignore_index=True)


def flow(listed: Mapping[str, int], kept: int, lost: int, splits: Mapping[str, pd.DataFrame]) -> str:
    """The way from what the source lists to the lesions of each split, as a diagram in text."""
    lines = [f"{count} {what}" for what, count in listed.items()]
    lines += [f"{kept + lost} lesions listed", f"├── {lost} set aside (set_aside.md)", f"└── {kept} with a crop"]
    for number, (protocol, own) in enumerate(splits.items(), start=1):
        last = number == len(splits)
        lines.append(f"    {'└' if last else '├'}── protocol {protocol}")
        counted = own["split"].value_counts()
        shown = [name for name in ORDER if counted.get(name)]
        for place, name in enumerate(shown, start=1):
            branch = "└" if place == len(shown) else "├"
            lines.append(f"    {' ' if last else '│'}   {branch}── {counted[name]} {name}")
    return "\n".join(lines)


def _text(
    preset: str,
    way: str,
    counts: pd.DataFrame,
    leak: Sequence[str],
    groups: pd.DataFrame,
    confidence: float,
) -> str:
    parts = [f"# Who is in the data, and how results differ by group, preset {preset}", f"**{subject(preset)}.**"]
    parts += ["## From the source to the splits", f"```\n{way}\n```"]
    for protocol, own in counts.groupby("protocol", sort=False):
        shown = [name for name in ORDER if (own["split"] == name).any()]
        parts += [f"## Characteristics, protocol {protocol}", "Lesions (patients) of each split.", _counted(own, shown)]
    parts += [*leak, "## Groups of test lesions"]
    if groups.empty:
        return "\n\n".join([*parts, "No classifier has finished."]) + "\n"
    first = groups.iloc[0]
    said = (
        f"EXPLORATORY. Task {first['task']}, protocol {first['protocol']}, {first['mode']}: the mean over seeds in "
        f"per cent, with its {confidence:.0%} interval over the patients of the group. These are "
        f"{int(groups['low'].notna().sum())} intervals of {len(groups[['column', 'group']].drop_duplicates())} "
        "groups, without a correction for their number: some differ by chance. Groups of few patients say little."
    )
    parts.append(paragraph(said))
    for metric, own in groups.groupby("metric", sort=False):
        parts += [f"### {metric}", aligned(_measured_rows(own))]
    return "\n\n".join(parts) + "\n"


def _counted(own: pd.DataFrame, shown: Sequence[str]) -> str:
    rows = []
    for _, part in own.groupby(["characteristic", "value"], sort=False):
        found = part.to_dict("records")
        texts = {row["split"]: f"{row['lesions']} ({row['patients']})" for row in found}
        place = {name: str(found[0][name]) for name in ("characteristic", "value")}
        rows.append(place | {name: texts.get(name, "0") for name in shown})
    return aligned(rows)


def _measured_rows(own: pd.DataFrame) -> list[dict[str, str]]:
    rows = []
    for (column, group), part in own.groupby(["column", "group"], sort=False):
        first = part.iloc[0]
        sizes = {"lesions": f"{first['lesions']:.0f}", "patients": f"{first['patients']:.0f}"}
        values = {row["method"]: measured(row) for row in part.to_dict("records")}
        rows.append({"by": str(column), "group": str(group), **sizes, **values})
    return rows
