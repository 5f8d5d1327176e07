"""Metrics of the predictions, computed from the Parquet files of the fine-tuning runs alone.

Axis letters: N lesions of one split, C classes, in the order of the files' `prob_<CLASS>` columns.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from miram.errors import MiramError
from miram.files import atomic_path
from miram.layout import Cell

METRICS = ("accuracy", "macro_ap", "micro_ap", "macro_auc", "micro_auc")
MAJORITY = "majority class"  # the reference that always gives one answer; its rows have no seed
LESION_COLUMNS = ["lesion_id", "patient_id", "split", "label"]
PROBABILITY = "prob_"
NOTE_SEPARATOR = "; "
RUN_FINETUNE = "Delete its folder and run the workflow again: that classifier is then trained again."


def scores(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The five metrics of one split, each in [0, 1]; AP and AUC take one class against the rest.

    truth (N,) holds class numbers, probabilities (N, C). Among equal largest probabilities the first class is the
    answer. Macro: mean over the classes that occur in `truth`; the AUC is NaN where only one does, as it has no
    negatives. Micro: over all N x C pairs, so that probability given to an absent class counts as an error.
    """
    one_hot = truth[:, None] == np.arange(probabilities.shape[1])
    present = one_hot.any(axis=0)
    own, given = one_hot[:, present], probabilities[:, present]
    return {
        "accuracy": accuracy_score(truth, probabilities.argmax(axis=1)),
        "macro_ap": average_precision_score(own, given, average="macro"),
        "micro_ap": average_precision_score(one_hot, probabilities, average="micro"),
        "macro_auc": roc_auc_score(own, given, average="macro") if present.sum() > 1 else np.nan,
        "micro_auc": roc_auc_score(one_hot, probabilities, average="micro"),
    }


def evaluate(predictions: Mapping[Cell, Path], metrics_csv: Path) -> dict[str, object]:
    """Write the metrics of every cell and split, and those of the majority class, as a long table.

    Columns: protocol, task, mode, method, seed (empty for the majority class), split, metric, value (in [0, 1],
    empty where undefined), classes_present, lesions, note. A cell whose file is missing has no rows and is
    named in the returned facts. Raises MiramError when no file exists, one is damaged, or two cells of a protocol,
    task and mode disagree about lesions, splits, labels or classes.
    """
    tables = {cell: read_predictions(path) for cell, path in predictions.items() if path.exists()}
    if not tables:
        raise MiramError("There are no predictions to evaluate.", "Run the fine-tuning first.")
    rows, lesions = [], {}
    for study in dict.fromkeys(cell[:3] for cell in tables):
        own = {cell: table for cell, table in tables.items() if cell[:3] == study}
        reference = next(iter(own))
        for cell, table in own.items():
            if not _shared(table).equals(_shared(own[reference])):
                raise MiramError(
                    f"{predictions[cell]} and {predictions[reference]} differ in lesions, splits, labels or classes.",
                    "Delete the older of the two and run the workflow again: only the same lesions can be compared.",
                )
            for _, part in table.groupby("split"):
                rows += _rows(part, cell)
        for split, part in own[reference].groupby("split"):
            answer, winner = _majority_answer(part)
            note = f"always answers {winner}, the most frequent class of the {split} split itself"
            rows += _rows(answer, Cell(*study, MAJORITY, ""), note)
        lesions["/".join(study)] = own[reference]["split"].value_counts().sort_index().to_dict()
    with atomic_path(metrics_csv) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
    missing = [str(cell) for cell in predictions if cell not in tables]
    return {"cells": len(tables), "missing_cells": missing, "lesions": lesions}


def read_predictions(path: Path) -> pd.DataFrame:
    """One run's predictions, a row a lesion, sorted by lesion_id.

    Raises MiramError on an unreadable file, missing columns or rows, an unknown label, a lesion that occurs twice, or a
    probability that is not finite.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MiramError(f"{path} cannot be read as Parquet: {error}", RUN_FINETUNE) from error
    classes = _classes(table)
    missing = [column for column in LESION_COLUMNS if column not in table]
    if missing or not classes:
        raise MiramError(f"{path} lacks the columns {', '.join(missing or [PROBABILITY + '<CLASS>'])}.", RUN_FINETUNE)
    if table.empty:
        raise MiramError(f"{path} holds no lesion.", RUN_FINETUNE)
    faults = {
        "a label that is no class": ~table["label"].isin(classes),
        "two rows": table["lesion_id"].duplicated(),
        "a probability that is not finite": ~np.isfinite(table[[PROBABILITY + name for name in classes]]).all(axis=1),
    }
    for fault, where in faults.items():
        if where.any():
            raise MiramError(f"{path}: lesion {table.loc[where, 'lesion_id'].iloc[0]} has {fault}.", RUN_FINETUNE)
    return table.sort_values("lesion_id", ignore_index=True)


def _classes(table: pd.DataFrame) -> list[str]:
    return [column.removeprefix(PROBABILITY) for column in table.columns if column.startswith(PROBABILITY)]


def _shared(table: pd.DataFrame) -> pd.DataFrame:
    """What all runs must agree on: the lesions' columns and, as column names, the classes."""
    return table[LESION_COLUMNS].reindex(columns=LESION_COLUMNS + _classes(table))


def _majority_answer(part: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The constant answer that suits one split best, as predictions, and its class; the first class among equals."""
    winner = part["label"].value_counts().reindex(_classes(part)).idxmax()
    return part.assign(**{PROBABILITY + name: float(name == winner) for name in _classes(part)}), winner


def _rows(part: pd.DataFrame, cell: Cell, note: str = "") -> list[dict[str, object]]:
    """A row a metric of one split; where classes are absent or a value is undefined, the note says so."""
    classes, split = _classes(part), part["split"].iloc[0]
    truth = pd.Index(classes).get_indexer(part["label"])
    absent = [name for name in classes if name not in set(part["label"])]
    present = len(classes) - len(absent)
    rows = []
    for metric, value in scores(truth, part[[PROBABILITY + name for name in classes]].to_numpy()).items():
        notes = [note] if note else []
        if absent and metric.startswith("macro"):
            notes.append(f"no {split} lesion of {', '.join(absent)}: macro is the mean over {present} classes")
        if np.isnan(value):
            notes.append(f"{metric} is undefined: all {split} lesions are of one class")
        rows.append(
            {
                **cell._asdict(),
                "split": split,
                "metric": metric,
                "value": value,
                "classes_present": present,
                "lesions": len(part),
                "note": NOTE_SEPARATOR.join(notes),
            }
        )
    return rows
