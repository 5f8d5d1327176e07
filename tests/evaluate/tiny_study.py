"""What a finished run of the workflow leaves, in small and made up: the input of the report's tests."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

from miram import layout
from miram.layout import Cell
from miram.predictions import Predictions, Question, write_predictions
from miram.provenance import record

FOUR = ("BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC")
MARGINS = ("ILL_DEFINED", "CIRCUMSCRIBED", "SPICULATED", "MICROLOBULATED", "OBSCURED")
CLASSES = {"pathology_4class": FOUR, "pathology": ("BENIGN", "MALIGNANT"), "mass_margins": MARGINS}
PRETRAINED = ("mae", "mocov3", "miram-full", "miram-linformer", "miram-performer", "miram-nystrom")
METHODS = (layout.FROM_SCRATCH, *PRETRAINED)
SKILL = dict(zip(METHODS, (0.6, 1.0, 1.9, 1.7, 1.2, 1.5, 1.3), strict=True))
HEADLINE = ("strict", "pathology_4class", "finetune")
LEAKS = {
    "strict": {"test lesions": 60, "patient seen": 0, "film seen": 0},
    "published": {"test lesions": 60, "patient seen": 6, "film seen": 4},
}
LESIONS = 60  # test lesions, two a patient
SIDE = 48


def write_study(
    preset: str,
    *,
    protocols: Sequence[str] = ("strict", "published"),
    tasks: Sequence[str] = tuple(CLASSES),
    modes: Sequence[str] = ("finetune", "knn"),
    seeds: Sequence[int] = (0, 1),
    absent: str = "",
) -> dict[str, object]:
    """Write the files below the working folder; gives the keywords of `report`. No test lesion is of class `absent`."""
    cells = {}
    for protocol in protocols:
        for task in tasks:
            for mode in modes:
                for method in METHODS:
                    for seed in seeds if mode == "finetune" else seeds[:1]:
                        cell = Cell(protocol, task, mode, method, seed)
                        cells[cell] = _cell(preset, cell, absent)
    pretrained = {method: _pretraining(preset, method) for method in PRETRAINED}
    results = layout.results(preset)
    results.mkdir(parents=True)
    _write(_metrics(cells), results / "metrics.csv")
    _write(_differences(), results / "differences.csv")
    _write(_variances(), results / "variance.csv")
    _write(_efforts(protocols[0], tasks[0], modes[0]), results / "comparison.csv")
    _write(_claims(preset), results / "claims.csv")
    _write(_efficiency(results / "metrics.csv", (protocols[0], tasks[0], modes[0])), results / "efficiency.csv")
    (results / "audit.md").write_text(
        "# Audit\n\n| protocol | leaked test lesions |\n| --- | --- |\n| strict | 0 |\n| paper | 6 |\n"
    )
    (results / "cohort.md").write_text("# Who is in the data\n\n60 test lesions of 30 patients.\n")
    (results / "set_aside.md").write_text("# Lesions set aside\n\n* P_1_LEFT_CC_1: its mask is empty\n")
    crops = layout.data(preset) / "crops"
    crops.mkdir(parents=True)
    for number in range(LESIONS):
        Image.fromarray(_crop(number)).save(crops / f"{_lesion(number)}.png")
    explained = Path("runs", preset, "explain")
    explained.mkdir(parents=True)
    _explain(explained)
    pd.DataFrame({"series_uid": ["1.2"], "sop_uid": ["1.2.3"], "sha256": ["ab" * 32]}).to_csv(results / "data.lock.csv")
    stages = {
        name: layout.record(name, preset)
        for name in ("catalogue", "crops", "audit", "cohort", "claims", "pack", "explain")
    }
    for name, path in stages.items():
        _record(path, name, [], {"effect_on_test": LEAKS} if name == "audit" else {"series": 482})
    resources = Path(__file__).parents[2] / "workflow" / "resources"
    return {
        **{
            "preset": preset,
            "headline": (protocols[0], tasks[0], modes[0]),
            "cells": cells,
            "explained_cells": [Cell(protocols[0], tasks[0], "finetune", method, seeds[0]) for method in METHODS],
            "pretrained": pretrained,
            "stages": stages,
        },
        **{"results": results, "explained": explained, "crops": crops, "paper_csv": resources / "paper.csv"},
        "claims_yaml": resources / "claims.yaml",
        "setting": "",
        "bench_jsons": [write_bench(Path("bench.json"))],
        "data_lock": results / "data.lock.csv",
        "kinds": {method: method.removeprefix("miram-") for method in METHODS},
        "confidence": 0.95,
        "bins": 15,
        "parameters": {"preset": preset, "pretrain": {"mask_ratio": 0.75}},
    }


def write_bench(path: Path) -> Path:
    """A file as `miram bench` leaves it, of two kinds of attention."""
    tokens = (197, 785, 3137, 12_545)
    powers = {("full", "fused"): (2, 1), ("full", "naive"): (2, 2), ("nystrom", "fused"): (1, 1.05)}
    rows = [
        {"kind": kind, "form": form, "tokens": n, "seconds": 1e-7 * n**time, "kept_mib": 0.01 * n**kept}
        for (kind, form), (time, kept) in powers.items()
        for n in tokens
    ]
    growth = [
        {"kind": kind, "form": form, "from_tokens": 3137, "to_tokens": 12_545, "time": time, "kept": kept}
        for (kind, form), (time, kept) in powers.items()
    ]
    crossovers = [{"kind": "nystrom", "form": "fused", "seconds": "550", "kept_mib": "above 16385"}]
    found = {"attention": rows, "exponents": growth, "crossovers": crossovers}
    host = {"gpu": None, "processor": "a processor"}
    path.write_text(json.dumps({"machine": host, "precision": "32-true", **found}))
    return path


def _lesion(number: int) -> str:
    return f"{'Calc' if number % 4 > 1 else 'Mass'}-Test_P_{number // 2:05d}_LEFT_{'CC' if number % 2 else 'MLO'}_1"


def _crop(number: int) -> np.ndarray:
    """A bright blob on a grey ground, with a speckle."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    blob = 120 * np.exp(-3 * ((x - random.normal(0, 0.2)) ** 2 + (y - random.normal(0, 0.2)) ** 2))
    return np.clip(50 + blob + random.normal(0, 9, (SIDE, SIDE)), 0, 255).astype(np.uint8)


def _labels(task: str, lesions: int, absent: str) -> list[str]:
    names = [name for name in CLASSES[task] if name != absent]
    if task != "mass_margins":
        return [names[number % len(names)] for number in range(lesions)]
    return ["-".join(names[i : i + 1 + number % 2]) for number in range(lesions) for i in [number % (len(names) - 1)]]


def _cell(preset: str, cell: Cell, absent: str) -> Path:
    classes, folder = CLASSES[cell.task], layout.classifier(preset, cell)
    folder.mkdir(parents=True)
    random = np.random.default_rng([METHODS.index(cell.method), cell.seed, *cell.mode.encode()])
    hard = np.random.default_rng(99).normal(0, 1, (LESIONS, len(classes)))  # the same lesions are hard for all
    labels = _labels(cell.task, LESIONS, absent)
    truth = np.array([[name in label.split("-") for name in classes] for label in labels])
    logits = 1.5 * (SKILL[cell.method] * (2 * truth - 1) + hard + random.normal(0, 0.6, truth.shape))
    several = cell.task == "mass_margins"
    probabilities = 1 / (1 + np.exp(-logits)) if several else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(
        {
            "lesion_id": [_lesion(number) for number in range(LESIONS)],
            "patient_id": [f"P_{number // 2:05d}" for number in range(LESIONS)],
            "split": "test",
            "label": labels,
            **{f"prob_{name}": probabilities[:, i].astype(np.float32) for i, name in enumerate(classes)},
        }
    )
    answered = ("-", 0.5) if several else (None, None)
    question = Question(cell.task, cell.mode, int(cell.seed), tuple(classes), *answered)
    write_predictions(folder / "predictions.parquet", Predictions(question, table))
    epochs = np.arange(1, 31)
    level = 0.5 + 0.12 * SKILL[cell.method] * (1 - np.exp(-epochs / 8)) + random.normal(0, 0.01, len(epochs))
    log = pd.DataFrame({"epoch": epochs, "train_loss": 1.4 * np.exp(-epochs / 20), "val_macro_auc": level})
    _write(
        log if cell.mode == "finetune" else pd.DataFrame({"candidate": [1.0], "val_macro_auc": 0.7}), folder / "log.csv"
    )
    return _record(
        folder / "record.json",
        "finetune",
        [folder / "predictions.parquet", folder / "log.csv"],
        {"seconds": 12.0, "device": "cpu (x86_64)"},
    )


def _pretraining(preset: str, method: str) -> Path:
    folder = layout.pretrain(preset, "strict", method, 0)
    folder.mkdir(parents=True)
    number = PRETRAINED.index(method)
    epochs = np.arange(1, 61)
    _write(pd.DataFrame({"epoch": epochs, "loss": 1 + np.exp(-epochs / 10) + 0.1 * number}), folder / "log.csv")
    files = [folder / "log.csv"]
    if method != "mocov3":
        small = np.stack([_crop(900 + i) for i in range(3)])
        masked = np.where(np.random.default_rng(number).random((6, 6)).repeat(8, 0).repeat(8, 1) < 0.75, 128, small)
        arrays = {"input": small, "masked": masked.astype(np.uint8), "lowres": small // 2 + 40}
        if method != "mae":
            large = small.repeat(2, 1).repeat(2, 2)
            arrays |= {"target_highres": large, "highres": large // 2 + 50}
        np.savez_compressed(folder / "reconstructions.npz", **arrays)
        files.append(folder / "reconstructions.npz")
    facts = {
        **{"seconds": 17.0 + 9 * number, "peak_memory_bytes": (560 + 20 * number) * 2**20, "parameters": 600_000},
        **{"peak_memory_kind": "resident set", "device": "cpu (x86_64)"},
    }
    return _record(folder / "record.json", "pretrain", files, facts)


def _record(path: Path, stage: str, outputs: list[Path], facts: dict[str, object]) -> Path:
    begun = {
        **{"stage": stage, "values": {}, "inputs": {}, "code": "c0de" * 16, "lock": "10c4" * 16},
        **{"git": {"commit": "0123456789abcdef", "dirty": False}, "versions": {"miram": "0.1.0", "torch": "2.13.0"}},
        "machine": {"system": "Linux", "processor": "x86_64"},
    }
    record.finish(path, begun, outputs=outputs, facts=facts)
    return path


def _metrics(cells: dict[Cell, Path]) -> pd.DataFrame:
    """Accuracy and macro AUC of each seed and over seeds; the width of the intervals is made up."""
    rows = []
    for cell, path in cells.items():
        table = pd.read_parquet(path.parent / "predictions.parquet")
        classes = CLASSES[cell.task]
        truth = np.array([[name in label.split("-") for name in classes] for label in table["label"]])
        scores = table[[f"prob_{name}" for name in classes]].to_numpy()
        present = truth.any(0)
        values = {
            "accuracy": accuracy_score(truth.argmax(1), scores.argmax(1)),
            "macro_auc": roc_auc_score(truth[:, present], scores[:, present], average="macro"),
            "brier": float(np.mean((scores - truth) ** 2)),
        }
        note = "" if present.all() else f"no test lesion of {', '.join(np.array(classes)[~present])}"
        rows += [
            {
                **cell._asdict(),
                "pretrain_seed": None if cell.method == layout.FROM_SCRATCH else 0,
                "split": "test",
                "metric": metric,
                "value": value,
                "lesions": len(table),
            }
            | {"classes_present": present.sum(), "note": note if metric.startswith("macro") else ""}
            for metric, value in values.items()
        ]
    seeds = pd.DataFrame(rows)
    keys = ["protocol", "task", "mode", "method", "split", "metric"]
    over = seeds.groupby(keys, sort=False).agg(
        value=("value", "mean"), sd=("value", "std"), lesions=("lesions", "max"),
        classes_present=("classes_present", "max"), note=("note", "first"),
    )  # fmt: skip
    over = over.reset_index().assign(low=lambda t: t["value"] - 0.09, high=lambda t: (t["value"] + 0.08).clip(upper=1))
    columns = [
        *keys[:4],
        "seed",
        "pretrain_seed",
        *keys[4:],
        "value",
        "low",
        "high",
        "sd",
        "lesions",
        "classes_present",
        "note",
    ]
    return pd.concat([over, seeds])[columns].astype({"seed": "Int64", "pretrain_seed": "Int64"})


def _differences() -> pd.DataFrame:
    pairs = [("miram-nystrom", second) for second in METHODS[:-1]]
    rows = []
    for metric in ("accuracy", "macro_auc"):
        for first, second in pairs:
            difference = 0.1 * (SKILL[first] - SKILL[second])
            row = dict(zip(("protocol", "task", "mode"), HEADLINE, strict=True))
            row |= {"metric": metric, "first": first, "second": second, "difference": difference}
            row |= {
                "low": difference - 0.08,
                "differs_in": None,
                "high": difference + 0.08,
                "p_holm": 0.01 if abs(difference) > 0.08 else 0.6,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _variances() -> pd.DataFrame:
    place = dict(zip(("protocol", "task", "mode"), HEADLINE, strict=True))
    own = {"seeds": 2, "pretrainings": 1, "sd_patients": 0.041, "sd_pretraining": None, "sd_finetuning": 0.013}
    return pd.DataFrame([place | {"method": method, "metric": "accuracy"} | own for method in METHODS])


def _efforts(protocol: str, task: str, mode: str) -> pd.DataFrame:
    place = {"protocol": protocol, "task": task, "mode": mode, "side": SIDE, "finetune_flops": 2e12}
    trained = {"pretrain_batch": 32, "pretrain_steps": 252, "pretrain_images": 8064, "pretrain_flops": 3e13}
    trained["pretrain_parameters"] = 600_000
    return pd.DataFrame([place | {"method": m} | (trained if m in PRETRAINED else {}) for m in METHODS])


def _efficiency(metrics_csv: Path, headline: Sequence[str]) -> pd.DataFrame:
    metrics = pd.read_csv(metrics_csv)
    own = metrics[(metrics[["protocol", "task", "mode"]] == list(headline)).all(axis=1) & metrics["seed"].isna()]
    own = own[(own["metric"] == "accuracy") & own["method"].isin(PRETRAINED)].reset_index()
    reached = {f"accuracy_percent_{part}": 100 * own[part] for part in ("value", "low", "high")}
    costs = {"pretrain_seconds": 17.0 + 9 * own.index, "pretrain_peak_memory_mib": 560.0 + 20 * own.index}
    return pd.DataFrame({"method": own["method"], **reached, **costs})


def _claims(preset: str) -> pd.DataFrame:
    verdicts = (
        ["demo: no verdict"] * 4 if preset == "demo" else [*("reproduced", "not reproduced"), *["cannot be told"] * 2]
    )
    statements = [
        "MIRAM with Nyström attention is more accurate than MAE (61.0 against 58.9 %)",
        "MIRAM with Nyström attention is more accurate than MoCo-v3 (61.0 against 60.2 %)",
        "The accuracy of MIRAM with Nyström attention is 61.0 %",
        "The memory of the high-resolution decoder grows linearly with the number of patches",
    ]
    evidence = "ours: 66.1 against 64.0 %, difference +2.1 points, 95 % interval -3.1 to 7.4, 60 lesions, 3 seeds"
    settles = "about 8,400 test lesions at this difference, or 14 times as many patients"
    cards = {"claim": range(4), "statement": statements, "verdict": verdicts, "evidence": evidence, "settle": settles}
    told = {"rule": "better by its interval", "source": "abstract", "status": "published", "differs_in": None}
    return pd.concat([pd.DataFrame({**cards, **told, "protocol": name}) for name in ("strict", "published")])


def _explain(folder: Path) -> None:
    random = np.random.default_rng(3)
    chosen = [_lesion(number) for number in range(4)]
    maps = {method: random.normal(0.02, 0.05, (len(chosen), 6, 6)).astype(np.float32) for method in METHODS}
    np.savez_compressed(folder / "relevance.npz", lesion_id=np.array(chosen), **maps)
    labels = _labels("pathology_4class", LESIONS, "")
    places = [CLASSES["pathology_4class"].index(label) for label in labels]
    centres = np.array([[place % 2, place // 2] for place in places])
    parts = []
    for method in PRETRAINED:
        points = SKILL[method] * centres + random.normal(0, 0.5, (LESIONS, 2))
        part = pd.DataFrame({"lesion_id": [_lesion(n) for n in range(LESIONS)], "label": labels})
        parts.append(part.assign(method=method, x=points[:, 0], y=points[:, 1], share=0.44))
    _write(pd.concat(parts), folder / "embedding.csv")


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")
