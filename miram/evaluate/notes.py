"""What limits the meaning of a metric on one split, in words."""

import numpy as np

from miram.evaluate.scores import MEANS_OVER_CLASSES, Answers
from miram.evaluate.statistics import classes_of_one_patient, draws_note

BY_CLASS = (*MEANS_OVER_CLASSES, "sensitivity")  # metrics that few lesions of a class decide


def class_notes(answers: Answers, metric: str, split: str, values: np.ndarray) -> list[str]:
    """Notes on classes without lesions, for means over classes, and on missing values."""
    absent = [
        name
        for name, any_lesion in zip(answers.classes, np.asarray(answers.truth.any(axis=0)), strict=True)
        if not any_lesion
    ]
    notes = []
    if absent and metric in MEANS_OVER_CLASSES:
        rest = len(answers.classes) - len(absent)
        notes.append(f"no {split} lesion of {', '.join(absent)}: means over classes are over {rest}")
    if metric == "sensitivity" and answers.positive == ():
        notes.append("sensitivity is not measured: sources.images.positive names no class")
    elif np.isnan(values).any():
        notes.append(f"{metric} is undefined: no class has {split} lesions both with and without it")
    return notes


def draw_notes(
    answers: Answers,
    metric: str,
    values: np.ndarray,
    drawn: np.ndarray,
    patients: np.ndarray,
    confidence: float,
    min_draws_share: float,
) -> list[str]:
    """Notes that limit an interval over patients: why there is none, and classes with only one patient."""
    notes = [] if np.isnan(values).any() and len(drawn) else [draws_note(drawn, metric, confidence, min_draws_share)]
    rests = classes_of_one_patient(answers.truth, patients, answers.classes)
    if rests and metric in BY_CLASS and len(set(patients)) > 1:
        notes.append(f"all test lesions of {', '.join(rests)} are of one patient" + (" each" if len(rests) > 1 else ""))
    return notes
