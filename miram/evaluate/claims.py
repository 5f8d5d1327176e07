"""The paper's claims, each tested by its rule on our measurements: claims.csv and claims.md.

Preset demo never gives a verdict: phantom lesions and small models say nothing about the methods. The evidence is
still shown.
"""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from miram.errors import MiramError
from miram.evaluate.markdown import aligned, paragraph, subject
from miram.evaluate.pretrainings import OF_ONE, extent
from miram.evaluate.rules import MEANINGS, OF_RUNS, OPEN, RULES, Measurements, memory_growth, memory_less
from miram.evaluate.statistics import lesions_needed_unpaired
from miram.files import atomic_path, write_csv
from miram.layout import FINETUNE
from miram.predictions import TEST

DEMO = "demo: no verdict"
HERE = "in this setting"  # of a verdict on runs that are not of the paper's networks, images and trainings
OURS = "ours"  # the status of a claim that the paper does not make, and that settles one
COLUMNS = ["claim", "protocol", "verdict", "differs_in", "statement", "evidence", "settle", "rule", "source", "status"]
LAYER_COLUMNS = ["file", "kind", "form", "tokens", "kept_mib"]
GROWTH_COLUMNS = ["file", "kind", "form", "from_tokens", "to_tokens", "kept"]  # kept: an exponent
DESCRIPTION = ("statement", "source", "status", "rule")  # of a claim; the rest is its rule's


class Limits(NamedTuple):
    """What the claims about memory call linear, and where they compare it; None if no claim says so."""

    exponent: float | None  # of the growth with tokens, at most
    tokens: int | None


def judge(
    claims_yaml: Path,
    paper_csv: Path,
    metrics_csv: Path,
    differences_csv: Path,
    bench_jsons: Iterable[Path],
    out_dir: Path,
    *,
    preset: str,
    distance: Sequence[str],
    confidence: float,
    power: float,
) -> dict[str, object]:
    """Write claims.csv and claims.md: one row per claim, or one per protocol if runs measure it.

    `distance`: what differs from the paper's networks, images and trainings, in words.

    Raises MiramError if a claim has no known rule, or lacks values or a published figure for it.
    """
    metrics, differences = (pd.read_csv(path) for path in (metrics_csv, differences_csv))
    paper = pd.read_csv(paper_csv).dropna(subset="value")
    figures = paper[["task", "metric", "method", "value"]].to_numpy().tolist()
    published = {(task, metric, method): value for task, metric, method, value in figures}
    benches = {path: json.loads(path.read_text(encoding="utf-8")) for path in bench_jsons}
    layers = _measured(benches, ("layers", "attention"), LAYER_COLUMNS)
    growth = _measured(benches, ("exponents",), GROWTH_COLUMNS)
    claims, rows = _claims(claims_yaml), []
    _check_published(claims_yaml, claims, paper_csv, published)
    for name, claim in claims.items():
        if claim["status"] == OURS and not {claim["method"], *claim["over"]} <= set(metrics["method"]):
            continue  # of rows that this preset does not have
        for protocol in dict.fromkeys(metrics["protocol"]) if claim["rule"] in OF_RUNS else [""]:
            own, apart = (
                table[(table["protocol"] == protocol) & (table["mode"] == FINETUNE) & (table["split"] == TEST)]
                for table in (metrics, differences)
            )
            measured = Measurements(own, apart, layers, growth, published, confidence, power)
            found = RULES[claim["rule"]](measured, **_asked(claim))
            rows.append(
                {**claim, "claim": name, "protocol": protocol, "statement": _statement(claim, published)}
                | found._asdict()
                | {"verdict": DEMO if preset == "demo" else _reaching(found.verdict, own, claim, distance)}
            )
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(table, out_dir / "claims.csv")
    with atomic_path(out_dir / "claims.md") as temporary:
        about = f"**{subject(preset)}.** {extent(metrics)} {'' if preset == 'demo' else setting(distance)}".strip()
        temporary.write_text(_markdown(table, published, preset, confidence, power, about), encoding="utf-8")
    return {"verdicts": table["verdict"].value_counts().sort_index().to_dict()}


def read_limits(claims_yaml: Path) -> Limits:
    """The limits of the first claim of each rule about memory."""
    claims = _claims(claims_yaml).values()
    return Limits(
        next((claim["exponent"] for claim in claims if claim["rule"] == memory_growth.__name__), None),
        next((claim["tokens"] for claim in claims if claim["rule"] == memory_less.__name__), None),
    )


def _claims(path: Path) -> dict[str, dict[str, Any]]:
    claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, claim in claims.items():
        missing = [key for key in DESCRIPTION if key not in claim]
        if missing or claim["rule"] not in RULES:
            raise MiramError(
                f"{path}: {name} lacks {', '.join(missing) or 'a known rule'}.", f"Rules: {', '.join(RULES)}."
            )
        try:
            inspect.signature(RULES[claim["rule"]]).bind(None, **_asked(claim))
        except TypeError as error:
            raise MiramError(
                f"{path}: {name}: {error}.", f"See the rule {claim['rule']} in miram.evaluate.rules."
            ) from error
        if claim["status"] == OURS and not {"method", "over"} <= set(claim):
            raise MiramError(
                f"{path}: {name}: a claim of ours names method and over, the rows that it needs.",
                f"Add them, or write another status than {OURS}.",
            )
    return claims


def _asked(claim: Mapping[str, Any]) -> dict[str, Any]:
    """What a claim says to its rule."""
    return {key: value for key, value in claim.items() if key not in DESCRIPTION}


def _check_published(
    path: Path,
    claims: Mapping[str, Mapping[str, Any]],
    paper_csv: Path,
    published: Mapping[tuple[str, str, str], float],
) -> None:
    """Raise MiramError for a claim about a published figure that paper.csv does not have."""
    for name, claim in claims.items():
        if claim["rule"] not in OF_RUNS or claim.get("gain_points") is not None:
            continue
        task, metric, methods = claim["task"], claim["metric"], [claim["method"], *claim.get("over", [])]
        missing = [method for method in methods if (task, metric, method) not in published]
        if missing:
            raise MiramError(
                f"{path}: {name}: {paper_csv.name} has no {metric} of {', '.join(missing)} for task {task}.",
                "Add its row with a value or, to claim a gain, write gain_points into the claim.",
            )


def _statement(claim: Mapping[str, Any], published: Mapping[tuple[str, str, str], float]) -> str:
    """The statement with the figures of its rule in it."""
    task, metric, method = (claim.get(key, "") for key in ("task", "metric", "method"))
    return claim["statement"].format(published=published.get((task, metric, method)), gain=claim.get("gain_points"))


def setting(distance: Sequence[str]) -> str:
    """What the distance from the paper's setting means for the results, in words; empty where there is none."""
    if not distance:
        return ""
    return (
        f"It is not the paper's setting: {', '.join(distance)}. So verdicts are of this setting, and say nothing about "
        "the paper's networks."
    )


def _reaching(verdict: str, metrics: pd.DataFrame, claim: Mapping[str, Any], distance: Sequence[str]) -> str:
    """The verdict, and how far it reaches: one pre-training of a method, or another setting than the paper's."""
    if claim["rule"] not in OF_RUNS or verdict == OPEN:
        return verdict
    own = metrics[metrics["method"].isin([claim["method"], *claim.get("over", [])])]
    of_one = 1 in set(own.groupby("method")["pretrain_seed"].nunique())
    reach = [HERE] * bool(distance) + [OF_ONE] * of_one
    return f"{verdict} ({', '.join(reach)})" if reach else verdict


def _measured(benches: Mapping[Path, Mapping[str, Any]], parts: Iterable[str], columns: list[str]) -> pd.DataFrame:
    """The rows of these parts of all files of a bench that hold some."""
    rows = []
    for path, bench in benches.items():
        rows += [{"file": str(path), **row} for part in parts for row in bench.get(part, [])]
    return pd.DataFrame(rows, columns=columns)


def _markdown(
    table: pd.DataFrame,
    published: Mapping[tuple[str, str, str], float],
    preset: str,
    confidence: float,
    power: float,
    about: str,
) -> str:
    parts = [
        f"# The paper's claims, preset {preset}",
        paragraph(about),
        aligned(
            [
                {"claim": row["claim"], "protocol": row["protocol"] or "-", "verdict": row["verdict"]}
                for row in table.to_dict("records")
            ]
        ),
        "## Claims and measurements",
    ]
    for _, own in table.groupby("claim", sort=False):
        first = own.iloc[0]
        lines = [paragraph(f"**{first['statement']}** ({first['source']}; {first['status']})")]
        for row in own.to_dict("records"):
            place = f"{row['protocol']}: " if row["protocol"] else ""
            unlike = f", not like with like: {row['differs_in']}" if row["differs_in"] else ""
            lines.append(paragraph(f"* {place}{row['verdict']}{unlike}. {row['evidence']}.", indent="  "))
            if row["settle"]:
                lines.append(paragraph(f"  What would settle it: {row['settle']}.", indent="  "))
        parts.append("\n".join(lines))
    parts += [
        "## What the verdicts mean",
        "\n".join(paragraph(f"* {rule}: {MEANINGS[rule]}", indent="  ") for rule in dict.fromkeys(table["rule"])),
        "## Lesions needed to distinguish the published accuracies",
        paragraph(
            f"Each method on its own lesions, one lesion per patient; two-sided test at {1 - confidence:.0%}, power "
            f"{power:.0%}. On the same lesions fewer are needed, the fewer the more the methods agree: differences.csv."
        ),
        aligned(_published_pairs(published, confidence, power)),
    ]
    return "\n\n".join(parts) + "\n"


def _published_pairs(
    published: Mapping[tuple[str, str, str], float], confidence: float, power: float
) -> list[dict[str, str]]:
    accuracies = sorted({(value, method) for (_, metric, method), value in published.items() if metric == "accuracy"})
    options = {"confidence": confidence, "power": power, "design_effect": 1.0}
    return [
        {
            "accuracies": f"{low:.1f} % ({worse}) and {high:.1f} % ({better})",
            "lesions for each": str(lesions_needed_unpaired(high / 100, low / 100, **options)),
        }
        for number, (low, worse) in enumerate(accuracies)
        for high, better in accuracies[number + 1 :]
    ]
