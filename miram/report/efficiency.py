"""Accuracy against what it costs: efficiency.csv, .md and .png, from the results, the pre-trainings and the benches.

A bench is a file of `miram bench`: it is of the sizes that its command names, whatever the preset.
"""

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from miram.errors import MiramError
from miram.evaluate.claims import Limits, read_limits
from miram.evaluate.markdown import aligned, paragraph, subject
from miram.evaluate.predictions import of_section
from miram.evaluate.pretrainings import extent
from miram.files import atomic_path, write_csv
from miram.kinds import FULL, NAIVE, OURS
from miram.looks import PALE, Look, looks
from miram.predictions import TEST
from miram.provenance import record
from miram.report.about import NOTHING
from miram.report.charts import draw_growth
from miram.report.figures import STYLE, save

COSTS = {"kept_mib": "kept memory of a layer, MiB", "seconds": "time of a layer, s"}
BYTES_PER_MIB = 2**20
COLUMNS = [
    *("method", "accuracy_percent_value", "accuracy_percent_low", "accuracy_percent_high", "pretrain_seconds"),
    *("pretrain_peak_memory_mib", "pretrain_peak_memory_kind", "pretrain_device", "pretrain_record"),
]
NO_BENCH = "No bench was made: `miram bench`."


class Bench(NamedTuple):
    """What was measured of one attention layer, on one device."""

    name: str  # device, precision and file
    layers: pd.DataFrame  # kind, form, tokens, forward, backward, seconds (s), kept_mib, peak_mib
    growth: pd.DataFrame  # kind, form, from_tokens, to_tokens; exponents time and kept
    crossovers: pd.DataFrame  # kind, form; tokens from which on time (seconds) and kept_mib are below full's, as text


def read_benches(paths: Iterable[Path]) -> list[Bench]:
    """The benches among JSON files that reach far enough for growth to be fitted."""
    found = []
    for path in paths:
        measured = json.loads(path.read_text(encoding="utf-8"))
        if measured.get("exponents"):
            host = measured["machine"]
            name = f"{host['gpu'] or host['processor']}, {measured['precision']} ({path.name})"
            tables = (pd.DataFrame(measured[part]) for part in ("attention", "exponents", "crossovers"))
            found.append(Bench(name, *tables))
    return found


def efficiency(
    metrics_csv: Path,
    kinds: Mapping[str, str],
    pretrained: Mapping[str, Path],
    bench_jsons: Iterable[Path],
    claims_yaml: Path,
    out_dir: Path,
    *,
    preset: str,
    headline: tuple[str, str, str],
) -> dict[str, object]:
    """Write the three files of a preset; `headline` is (protocol, task, mode), `pretrained` its records by method.

    What is linear, and the number of tokens that is looked at, are those of `claims_yaml`.
    Methods without a record are left out; `kinds`, of all that are compared, give the look of each.
    """
    benches = read_benches(bench_jsons)
    metrics = pd.read_csv(metrics_csv)
    table, reach = _table(metrics, pretrained, headline), extent(metrics)
    write_csv(table, out_dir / "efficiency.csv", float_format="%.4f")
    with atomic_path(out_dir / "efficiency.md") as temporary:
        text = _markdown(table, benches, read_limits(claims_yaml), preset, headline, reach)
        temporary.write_text(text, encoding="utf-8")
    _draw(table, looks(kinds), benches, out_dir / "efficiency.png", preset)
    return {"methods": len(table), "benches": [bench.name for bench in benches]}


def _table(metrics: pd.DataFrame, pretrained: Mapping[str, Path], headline: tuple[str, str, str]) -> pd.DataFrame:
    """A row a method: its accuracy over the seeds with its interval, in per cent, and what its pre-training took."""
    own = of_section(metrics[metrics["seed"].isna()], headline, metric="accuracy", split=TEST)
    accuracy = 100 * own.set_index("method")[["value", "low", "high"]]
    rows = []
    for method, path in pretrained.items():
        if path.exists():
            found = accuracy.loc[method] if method in accuracy.index else pd.Series()
            reached = {f"accuracy_percent_{part}": found.get(part) for part in ("value", "low", "high")}
            rows.append({"method": method, **reached, **cost(path), "pretrain_record": str(path)})
    return pd.DataFrame(rows, columns=COLUMNS)


def cost(path: Path) -> dict[str, object]:
    """What a pre-training took, as its record tells; raises MiramError if it is damaged or lacks a fact."""
    facts = record.read(path)["facts"]
    try:
        return {
            "pretrain_parameters": facts["parameters"],
            "pretrain_seconds": facts["seconds"],
            "pretrain_peak_memory_mib": facts["peak_memory_bytes"] / BYTES_PER_MIB,
            "pretrain_peak_memory_kind": facts["peak_memory_kind"],
            "pretrain_device": facts.get("device"),
        }
    except KeyError as error:
        raise MiramError(f"{path} lacks the fact {error}.", "Delete it and run the pre-training again.") from error


def verdicts(bench: Bench, limits: Limits) -> list[dict[str, str]]:
    """For each linear kind, as ours and as its package: is it linear, and less than full attention, if measured?"""
    kept = bench.layers.set_index(["kind", "form", "tokens"])["kept_mib"].sort_index()
    crossovers = {(place.kind, place.form): place for place in bench.crossovers.itertuples()}
    rows = []
    for grown in bench.growth[bench.growth["kind"] != FULL].to_dict("records"):
        place = crossovers.get((grown["kind"], grown["form"]))
        own = kept.get((grown["kind"], grown["form"], limits.tokens), math.nan)
        compared = () if limits.tokens is None else (OURS, NAIVE)
        times = {form: kept.get((FULL, form, limits.tokens), math.nan) / own for form in compared}
        rows.append(
            {
                "attention": f"{grown['kind']}, {grown['form']}",
                "kept ~ tokens^": f"{grown['kept']:.2f}",
                "time ~ tokens^": f"{grown['time']:.2f}",
                "memory linear": _is_linear(grown["kept"], limits),
                "time linear": _is_linear(grown["time"], limits),
                "keeps less than full from": NOTHING if place is None else f"{place.kept_mib} tokens",
                "faster than full from": NOTHING if place is None else f"{place.seconds} tokens",
            }
            | {
                f"full {form} / this, at {limits.tokens}": NOTHING if math.isnan(ratio) else f"{ratio:.2f}"
                for form, ratio in times.items()
            }
        )
    return rows


def _is_linear(exponent: float, limits: Limits) -> str:
    if limits.exponent is None:
        return NOTHING
    return "yes" if exponent <= limits.exponent else "NO"


def _markdown(
    table: pd.DataFrame, benches: list[Bench], limits: Limits, preset: str, headline: tuple[str, str, str], reach: str
) -> str:
    protocol, task, mode = headline
    parts = [
        f"# Accuracy against memory and time, preset {preset}",
        f"**{subject(preset)}.**",
        paragraph(
            f"Accuracy: test lesions, task {task}, protocol {protocol}, mode {mode}, mean over the seeds with its "
            f"interval. {reach} Time and peak memory: of the whole first pre-training, as its record has them; only "
            "figures of one device can be compared."
        ),
        aligned([_row(row) for row in table.to_dict("records")]) if len(table) else "No pre-training has finished.",
        "## Is it linear, and is it less?",
        paragraph(
            "Measured on one attention layer of the high-resolution decoder, at the sizes that the bench names "
            f"whatever the preset. {linear_text(limits)} "
            "`fused` is ours; `package` is the library's own layer; full attention `fused` is today's kernel, which "
            "never holds the matrix of all pairs of tokens, and `naive` that of 2022, which does. "
            f"{compared_text(limits)} What follows for the paper's claims stands in claims.md."
        ),
    ]
    for bench in benches:
        full = bench.growth[bench.growth["kind"] == FULL]
        words = [
            f"{row.form}: kept memory ~ tokens^{row.kept:.2f}, time ~ tokens^{row.time:.2f}, {row.from_tokens} to "
            f"{row.to_tokens} tokens"
            for row in full.itertuples()
        ]
        rows = verdicts(bench, limits)
        parts += [
            f"### {bench.name}",
            paragraph(f"Full attention, {'; '.join(words) or 'not measured'}."),
            aligned(rows) if rows else "No linear attention was measured.",
        ]
    return "\n\n".join([*parts, *([] if benches else [NO_BENCH])]) + "\n"


def linear_text(limits: Limits) -> str:
    """What linear means in `verdicts`."""
    if limits.exponent is None:
        return "No claim says what is linear."
    return (
        f"Linear: it grows with tokens to a power of at most {limits.exponent}. The paper claims it of memory; that of "
        "time is our question."
    )


def compared_text(limits: Limits) -> str:
    """What the last columns of `verdicts` mean."""
    if limits.tokens is None:
        return "No claim says at how many tokens to compare."
    return f"Ratios above 1: full attention keeps more, at the {limits.tokens} tokens of the paper's claim."


def _row(row: Mapping[Hashable, Any]) -> dict[str, str]:
    value, low, high = (row[f"accuracy_percent_{part}"] for part in ("value", "low", "high"))
    interval = "" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]"
    return {
        "method": row["method"],
        "accuracy, %": NOTHING if pd.isna(value) else f"{value:.1f}{interval}",
        "time, s": f"{row['pretrain_seconds']:.0f}",
        "peak memory, MiB": f"{row['pretrain_peak_memory_mib']:.0f}",
        "kind": row["pretrain_peak_memory_kind"],
        "device": row["pretrain_device"],
    }


def _draw(table: pd.DataFrame, look: Mapping[str, Look], benches: list[Bench], path: Path, preset: str) -> None:
    """Above accuracy against memory and time, below what a layer costs against tokens, a row a bench."""
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(11, 4.2 + 3.8 * len(benches)), layout="constrained")
        grid = figure.subplots(1 + len(benches), 2, squeeze=False)
        for axes, (column, label) in zip(
            grid[0],
            {
                "pretrain_peak_memory_mib": "peak memory of pre-training, MiB",
                "pretrain_seconds": "time of pre-training, s",
            }.items(),
            strict=True,
        ):
            _draw_accuracy(axes, table, look, column, label)
        for row, bench in zip(grid[1:], benches, strict=True):
            for axes, (column, label) in zip(row, COSTS.items(), strict=True):
                draw_growth(axes, bench.layers, column)
                axes.set(xlabel="tokens", ylabel=label)
                axes.set_title(bench.name, loc="left", fontsize=8, parse_math=False)
        for axes in grid[:, 1]:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False, handlelength=3)
        figure.suptitle(f"Accuracy against memory and time\n{subject(preset)}")
        save(figure, path)


def _draw_accuracy(axes: Axes, table: pd.DataFrame, look: Mapping[str, Look], column: str, label: str) -> None:
    for row in table.to_dict("records"):
        value, low, high = (row[f"accuracy_percent_{part}"] for part in ("value", "low", "high"))
        own = {"color": look[row["method"]].colour, "marker": look[row["method"]].marker, "label": row["method"]}
        axes.errorbar(row[column], value, yerr=[[value - low], [high - value]], ms=7, capsize=3, ls="none", **own)
    axes.set(xlabel=label, ylabel="test accuracy, %")
    axes.set_xlim(0, 1.08 * table[column].max() if len(table) else 1)
    axes.grid(color=PALE)
