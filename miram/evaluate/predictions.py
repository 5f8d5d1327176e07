"""Predictions of training prepared for evaluation: sections, answers as arrays, and the constant answer.

Cells with the same protocol, task and mode form a section, in which methods are compared on the same lesions.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from miram.errors import MiramError
from miram.evaluate.scores import Answers
from miram.layout import Cell
from miram.predictions import COLUMNS, Predictions

SECTION = Cell._fields[:3]
NOTE_SEPARATOR = "; "  # between the notes of a row


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


def majority_answer(part: Predictions) -> tuple[Answers, str]:
    """The best constant answer for one split, and its label; for ties the first in the classes' order."""
    question, labels = part.question, part.table["label"]

    def place(label: str) -> list[int]:
        return [question.classes.index(name) for name in question.classes_of(label)]

    winner = max(sorted(set(labels), key=place), key=labels.value_counts().to_dict().__getitem__)
    constant = np.isin(question.classes, question.classes_of(winner)).astype(float)
    return answers_of(part)._replace(probabilities=np.tile(constant, (len(labels), 1))), winner
