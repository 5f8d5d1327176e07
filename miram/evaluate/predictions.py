"""The hand-over from training: one Parquet file of predictions for each cell, read and checked.

Cells that share protocol, task and mode make a section, in which methods are compared on the same lesions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from miram.errors import MiramError
from miram.evaluate.scores import Answers
from miram.layout import Cell

SECTION = Cell._fields[:3]
TEST = "test"
LESION_COLUMNS = ["lesion_id", "patient_id", "split", "label"]
PROBABILITY = "prob_"
NOTE_SEPARATOR = "; "  # between the notes of a row
LABEL_SEPARATOR = "-"  # between the classes of a lesion in a multi-label task
REPEAT = "Delete its folder and run the workflow again: that classifier is then trained again."


def read_predictions(path: Path, *, multilabel: bool) -> pd.DataFrame:
    """One cell's predictions, a row a lesion, sorted by lesion_id.

    Raises MiramError on an unreadable file, missing columns or rows, an unknown label, a lesion that occurs twice, or a
    probability that is not in [0, 1].
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MiramError(f"{path} cannot be read as Parquet: {error}", REPEAT) from error
    names = classes(table)
    missing = [column for column in LESION_COLUMNS if column not in table]
    if missing or not names:
        raise MiramError(f"{path} lacks the columns {', '.join(missing or [PROBABILITY + '<CLASS>'])}.", REPEAT)
    if table.empty:
        raise MiramError(f"{path} holds no lesion.", REPEAT)
    probabilities = table[[PROBABILITY + name for name in names]]
    faults = {
        "a label that is no class": ~table["label"].map(
            lambda label: set(own_classes(label, multilabel)) <= set(names)
        ),
        "two rows": table["lesion_id"].duplicated(),
        "a probability that is not between 0 and 1": ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1),
    }
    for fault, where in faults.items():
        if where.any():
            raise MiramError(f"{path}: lesion {table.loc[where, 'lesion_id'].iloc[0]} has {fault}.", REPEAT)
    return table.sort_values("lesion_id", ignore_index=True)


def check_same_lesions(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Raise MiramError when two files of a section differ in their lesions, patients, splits, labels or classes."""
    for path, table in tables.items():
        first, reference = next(iter(tables.items()))
        if not _shared(table).equals(_shared(reference)):
            raise MiramError(
                f"{path} and {first} differ in lesions, splits, labels or classes.",
                "Delete the older of the two and run the workflow again: only the same lesions can be compared.",
            )


def classes(table: pd.DataFrame) -> tuple[str, ...]:
    """The class names of a predictions table, in the order of its columns."""
    return tuple(column.removeprefix(PROBABILITY) for column in table.columns if column.startswith(PROBABILITY))


def own_classes(label: str, multilabel: bool) -> list[str]:
    """The classes of one lesion."""
    return label.split(LABEL_SEPARATOR) if multilabel else [label]


def answers_of(part: pd.DataFrame, *, multilabel: bool, positive: Sequence[str] | None = None) -> Answers:
    """The arrays of one split of a predictions table; `positive` as in Answers."""
    names = classes(part)
    truth = [[name in own for name in names] for own in (own_classes(label, multilabel) for label in part["label"])]
    return Answers(
        truth=np.array(truth, dtype=bool).reshape(len(part), len(names)),
        probabilities=part[[PROBABILITY + name for name in names]].to_numpy(dtype=float),
        classes=names,
        multilabel=multilabel,
        positive=None if positive is None else tuple(positive),
    )


def majority_answer(answers: Answers, labels: pd.Series) -> tuple[Answers, str]:
    """The constant answer that suits one split best, and its label; among equals the first in the classes' order."""

    def place(label: str) -> list[int]:
        return [answers.classes.index(name) for name in own_classes(label, answers.multilabel)]

    winner = max(sorted(set(labels), key=place), key=labels.value_counts().to_dict().__getitem__)
    constant = np.isin(answers.classes, own_classes(winner, answers.multilabel)).astype(float)
    return answers._replace(probabilities=np.tile(constant, (len(labels), 1))), winner


def _shared(table: pd.DataFrame) -> pd.DataFrame:
    """What all files of a section agree on: the lesions' columns and, as column names, the classes."""
    return table[LESION_COLUMNS].reindex(columns=[*LESION_COLUMNS, *classes(table)])
