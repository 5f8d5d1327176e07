"""predictions.parquet: the predictions of a classifier, written by training and read by the evaluation.

One row per lesion of validation and test: COLUMNS, and one column per class with its probability, in [0, 1]. The
metadata of the file describe the question: pandas keeps `DataFrame.attrs` there.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from miram.errors import MiramError
from miram.files import atomic_path
from miram.layout import Cell

COLUMNS = ["lesion_id", "patient_id", "split", "label"]
TEST = "test"  # the split that the results are about
PROBABILITY = "prob_"  # before the name of a class
REPEAT = "Delete its folder and run the workflow again: that classifier is then trained again."


@dataclass(frozen=True)
class Question:
    """The question to a classifier."""

    task: str
    mode: str
    seed: int
    classes: tuple[str, ...]
    separator: str | None  # between the classes of a label; None where a lesion has one class
    threshold: float | None  # above which a class is predicted where a lesion may have several
    pretrain_seed: int | None = None  # of the pre-training that the classifier started from; None: not pre-trained here

    @property
    def columns(self) -> list[str]:
        """Those of the probabilities, in the order of the classes."""
        return [PROBABILITY + name for name in self.classes]

    def classes_of(self, label: str) -> list[str]:
        """The classes of a lesion."""
        return label.split(self.separator) if self.separator else [label]


@dataclass(frozen=True)
class Predictions:
    """A question and its answers, one row per lesion."""

    question: Question
    table: pd.DataFrame

    def of(self, split: str) -> "Predictions":
        """Those of one split."""
        return replace(self, table=self.table[self.table["split"] == split].reset_index(drop=True))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the file with its metadata."""
    with atomic_path(path) as temporary:
        table = predictions.table[[*COLUMNS, *predictions.question.columns]]
        table.attrs = dict(asdict(predictions.question).items())
        table.to_parquet(temporary, index=False)


def read_predictions(path: Path, cell: Cell) -> Predictions:
    """One cell's predictions, sorted by lesion_id.

    Raises MiramError for an unreadable file, metadata that are missing or do not match the cell or the columns, missing
    rows, an unknown label, a lesion that occurs twice, or a probability outside [0, 1].
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise MiramError(f"{path} cannot be read as Parquet: {error}", REPEAT) from error
    told = {str(name): value for name, value in table.attrs.items()}
    try:
        question = Question(**{**told, "classes": tuple(told["classes"])})
    except (KeyError, TypeError) as error:
        raise MiramError(f"{path} has no valid metadata of its cell: {error}.", REPEAT) from error
    for name in ("task", "mode", "seed"):
        if str(told[name]) != str(getattr(cell, name)):
            raise MiramError(f"{path} says that its {name} is {told[name]}, not {getattr(cell, name)}.", REPEAT)
    odd = {*COLUMNS, *question.columns} ^ {*table}
    if odd:
        raise MiramError(f"{path}: its columns and its metadata differ in {', '.join(sorted(odd))}.", REPEAT)
    if table.empty:
        raise MiramError(f"{path} holds no lesion.", REPEAT)
    probabilities = table[question.columns]
    faults = {
        "a label that is not a class": ~table["label"].map(
            lambda label: set(question.classes_of(label)) <= {*question.classes}
        ),
        "two rows": table["lesion_id"].duplicated(),
        "a probability that is not between 0 and 1": ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1),
    }
    for fault, where in faults.items():
        if where.any():
            raise MiramError(f"{path}: lesion {table.loc[where, 'lesion_id'].iloc[0]} has {fault}.", REPEAT)
    return Predictions(question, table.sort_values("lesion_id", ignore_index=True))
