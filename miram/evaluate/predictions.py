"""Predictions of training prepared for evaluation: sections, answers as arrays, and constant answers.

Cells with the same protocol, task and mode form a section, in which methods are compared on the same lesions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from miram.errors import MiramError
from miram.evaluate.scores import Answers
from miram.layout import Cell
from miram.predictions import COLUMNS, Predictions

SECTION = Cell._fields[:3]
NOTE_SEPARATOR = "; "  # between the notes of a row


def of_section(table: pd.DataFrame, section: Sequence[str], **wanted: str) -> pd.DataFrame:
    """The rows of a table of results that are of one (protocol, task, mode) and have these values."""
    wanted |= dict(zip(SECTION, section, strict=True))
    return table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def check_same_lesions(found: Mapping[Path, Predictions]) -> None:
    """Raise MiramError if two files of a section differ in their lesions, patients, splits, labels or classes."""
    for path, own in found.items():
        first, reference = next(iter(found.items()))
        same = own.table[COLUMNS].equals(reference.table[COLUMNS])
        if not (same and own.question.classes == reference.question.classes):
            raise MiramError(
                f"{path} and {first} differ in lesions, splits, labels or classes.",
                "Delete the older of the two and run the workflow again: only the same lesions can be compared.",
            )


def answers_of(part: Predictions) -> Answers:
    """The arrays of predictions."""
    question, table = part.question, part.table
    truth = [[name in own for name in question.classes] for own in map(question.classes_of, table["label"])]
    return Answers(
        truth=np.array(truth, dtype=bool).reshape(len(table), len(question.classes)),
        probabilities=table[question.columns].to_numpy(dtype=float),
        classes=question.classes,
        multilabel=question.separator is not None,
    )


def most_frequent(labels: Iterable[str], classes: Sequence[str], separator: str | None) -> str:
    """The most frequent label, of classes joined by `separator`; for ties the first in the classes' order."""
    counts = Counter(labels)

    def place(label: str) -> list[int]:
        return [classes.index(name) for name in (label.split(separator) if separator else [label])]

    return max(sorted(counts, key=place), key=counts.__getitem__)


def constant(part: Predictions, label: str) -> Predictions:
    """The same lesions, each answered with `label`."""
    question = replace(part.question, pretrain_seed=None)
    answered = zip(question.columns, np.isin(question.classes, question.classes_of(label)).astype(float), strict=True)
    return Predictions(question, part.table.assign(**dict(answered)))
