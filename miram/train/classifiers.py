"""What all classifiers of lesions share, with trained or frozen encoder: lesions, scores and output.

Shapes: N lesions, C classes; views (N, side, side) uint8, targets and probabilities (N, C) float32.
"""

import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from miram.data import tasks
from miram.errors import MiramError
from miram.files import write_csv
from miram.layout import PREDICTIONS
from miram.models.export import load_weights
from miram.models.timm_encoder import AnyEncoder, encoder_from
from miram.predictions import COLUMNS, PROBABILITY, TEST, Predictions, Question, write_predictions
from miram.recipe import Classifying, Encoder, Timm, Trivial
from miram.train.augment import resize
from miram.train.device import device_facts, one_device, peak_memory
from miram.train.store import Store


class Split(NamedTuple):
    """The lesions of a split, with their crops resized to the network's input and their classes."""

    lesions: pd.DataFrame  # COLUMNS
    views: np.ndarray  # (N, side, side) uint8; of the trivial classifiers the features (N, F)
    targets: np.ndarray  # (N, C) float32, 0 or 1


class Labelled(NamedTuple):
    """The lesions that have a label for a task, its classes, and how many lesions without one each split has."""

    lesions: pd.DataFrame  # COLUMNS
    classes: tuple[str, ...]
    without_label: dict[str, int]


def labelled_lesions(lesions_csv: Path, splits_csv: Path, task: str) -> Labelled:
    """Read the lesions in the order of `lesions_csv`; those without a label for the task are left out and counted.

    Raises MiramError for a label that is not one of the task's, and for a split without lesions.
    """
    lesions = pd.read_csv(lesions_csv, dtype=str, keep_default_na=False)
    splits = pd.read_csv(splits_csv, usecols=["lesion_id", "split"], dtype=str)
    lesions = lesions.merge(splits, on="lesion_id", validate="one_to_one")
    try:
        classes, lesions["label"] = tasks.classes(task, lesions), tasks.labels(lesions, task)
    except ValueError as error:
        raise MiramError(f"{lesions_csv}: {error}.", "Correct the row of that lesion.") from error
    has_label = lesions["label"] != ""
    for name in ("train", "validation", "test"):
        if not (has_label & (lesions["split"] == name)).any():
            raise MiramError(
                f"No {name} lesion has a label for task {task}.", "Take it out of finetune.tasks, or add such lesions."
            )
    without_label = lesions.loc[~has_label, "split"].value_counts().sort_index()
    return Labelled(lesions.loc[has_label, COLUMNS], classes, {str(split): n for split, n in without_label.items()})


View = Callable[[np.ndarray], np.ndarray]  # of a crop (rows, columns) uint8


def resized_to(side: int) -> View:
    """How a network with an input of `side` px sees a crop."""
    return partial(resize, side=side)


class Lesions:
    """The lesions of a task, each split with the views of its crops: read once for all classifiers that see the same.

    Raises MiramError as `labelled_lesions` and `read_split`, and if all lesions of training or of validation have the
    same classes: nothing to learn, or no AUC to select by.
    """

    def __init__(
        self, store_u8: Path, index_csv: Path, lesions_csv: Path, splits_csv: Path, task: str, view: View
    ) -> None:
        self.labelled = labelled_lesions(lesions_csv, splits_csv, task)
        self._read = partial(read_split, Store(store_u8, index_csv), self.labelled, view=view)
        self.train, self.validation = self._read("train"), self._read("validation")
        for split in (self.train, self.validation):
            if not _told_apart(split.targets).any():
                name, label = split.lesions.loc[0, ["split", "label"]]
                raise MiramError(
                    f"All {name} lesions are {label}: a second class is missing.",
                    "Change splits.validation_fraction or splits.seed.",
                )

    @cached_property
    def test(self) -> Split:
        """Read at its first use: no classifier is chosen by it."""
        return self._read(TEST)

    def counts(self) -> dict[str, dict[str, int]]:
        """The facts about the lesions for a record."""
        splits = (self.train, self.validation, self.test)
        return {
            "lesions": {split.lesions["split"].iloc[0]: len(split.lesions) for split in splits},
            "without_label": self.labelled.without_label,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of what is trained on and chosen by."""
        found = sha256()
        for split in (self.train, self.validation):
            found.update(split.views.data)
            found.update(split.targets.data)
        return found.hexdigest()


def read_split(store: Store, labelled: Labelled, name: str, view: View) -> Split:
    """The lesions of split `name`, each crop through `view`; MiramError if one has no crop."""
    chosen = labelled.lesions[labelled.lesions["split"] == name].reset_index(drop=True)
    views = np.stack([view(store[place]) for place in store.places(chosen["lesion_id"])])
    return Split(chosen, views, tasks.targets(chosen["label"], labelled.classes))


def validation_scores(
    targets: np.ndarray, probabilities: np.ndarray, *, multi_label: bool, threshold: float
) -> dict[str, float]:
    """The scores that select the best epoch or value: macro AUC, and for ties the accuracy.

    A lesion with several classes is right if all C answers are; a class is predicted from `threshold` on.
    """
    if multi_label:
        right = ((probabilities >= threshold) == targets).all(axis=1)
    else:
        right = probabilities.argmax(1) == targets.argmax(1)
    return {"val_accuracy": float(right.mean()), "val_macro_auc": macro_auc(targets, probabilities)}


def macro_auc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve of each class against the rest, averaged over those that some, not all, lesions have."""
    from sklearn.metrics import roc_auc_score  # a second, which pre-training need not spend

    chosen = np.flatnonzero(_told_apart(targets))
    return float(np.mean([roc_auc_score(targets[:, c], probabilities[:, c]) for c in chosen]))


def best(log: list[dict[str, float]]) -> dict[str, float]:
    """The row with the highest macro AUC on validation; ties by accuracy, then the earliest."""
    return max(log, key=lambda row: (row["val_macro_auc"], row["val_accuracy"]))


def build_encoder(kind: Encoder | Timm, side: int, drop_path: float, encoder_file: Path | None) -> AnyEncoder:
    """The encoder of `encoder_file`, or a fresh one drawn from torch's generator (None)."""
    try:
        network = encoder_from(kind.architecture(side), drop_path)
    except ValueError as error:
        raise MiramError(f"The encoder cannot be built: {error}.", "Change that value in params.yaml.") from error
    if encoder_file is not None:
        load_weights(network, encoder_file)
    return network


def predictions(split: Split, probabilities: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """The table of `miram.predictions`."""
    columns = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in classes], dtype=np.float32)
    return pd.concat([split.lesions, columns], axis=1)


def write_outcome(
    out_dir: Path, question: Question, tables: Iterable[pd.DataFrame], log: list[dict[str, float]]
) -> None:
    """Write the predictions, and the log of the candidates."""
    write_csv(pd.DataFrame(log), out_dir / "log.csv")
    write_predictions(out_dir / PREDICTIONS, Predictions(question, pd.concat(tables)))


def question_of(labelled: Labelled, asked: Classifying | Trivial, mode: str) -> Question:
    """The question to a classifier; the threshold is for tasks with several classes per lesion."""
    separator, threshold = (tasks.JOINT, asked.threshold) if asked.task in tasks.MULTI_LABEL else (None, None)
    pretrain_seed = asked.pretrain_seed if isinstance(asked, Classifying) else None
    return Question(asked.task, mode, asked.seed, labelled.classes, separator, threshold, pretrain_seed)


def device_of(asked: Classifying) -> Fabric:
    """The device of one training or probe, its peak of memory counted anew.

    Never that of another one: a Fabric keeps the scale of float16's gradients. Raises as `one_device`.
    """
    fabric = one_device(asked.accelerator, asked.precision, asked.threads)
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    return fabric


def common_facts(lesions: Lesions, chosen: dict[str, float], start: float, fabric: Fabric) -> dict[str, object]:
    """The facts in the record of every classifier: its lesions, the scores of the `chosen` row of its log, its cost.

    `start`: time.perf_counter() at the start.
    """
    memory, memory_kind = peak_memory(fabric.device)
    return {
        **lesions.counts(),
        "val_macro_auc": chosen["val_macro_auc"],
        "val_accuracy": chosen["val_accuracy"],
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": memory,
        "peak_memory_kind": memory_kind,
        **device_facts(fabric),
    }


def _told_apart(targets: np.ndarray) -> np.ndarray:
    """(C,) whether some lesions have the class and some do not."""
    return (targets.min(axis=0) == 0) & (targets.max(axis=0) == 1)
