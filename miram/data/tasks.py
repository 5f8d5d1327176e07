"""The classification tasks: their classes, in the order of every score column, and the class or classes of a lesion.

A label is the name of a class; of a multi-label task, one or more names joined by "-", each once and in the order of
the classes. It is empty where a lesion has none: calcifications have no shape, and the case lists are incomplete.
"""

import numpy as np
import pandas as pd

# the first two inferred from the experiment names of the authors' code; the others are the words of the case lists
CLASSES = {
    "pathology_4class": ("BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC"),
    "pathology": ("BENIGN", "MALIGNANT"),
    "mass_margins": ("ILL_DEFINED", "CIRCUMSCRIBED", "SPICULATED", "MICROLOBULATED", "OBSCURED"),
    "mass_shape": (
        *("IRREGULAR", "OVAL", "LOBULATED", "ROUND", "ARCHITECTURAL_DISTORTION", "LYMPH_NODE"),
        *("FOCAL_ASYMMETRIC_DENSITY", "ASYMMETRIC_BREAST_TISSUE"),
    ),
    "calc_type": (
        *("PLEOMORPHIC", "PUNCTATE", "AMORPHOUS", "LUCENT_CENTER", "ROUND_AND_REGULAR", "FINE_LINEAR_BRANCHING"),
        *("VASCULAR", "COARSE", "EGGSHELL", "DYSTROPHIC", "LARGE_RODLIKE", "SKIN", "MILK_OF_CALCIUM"),
    ),
    "calc_distribution": ("CLUSTERED", "SEGMENTAL", "LINEAR", "REGIONAL", "DIFFUSELY_SCATTERED"),
}
MULTI_LABEL = ("mass_margins", "mass_shape", "calc_type", "calc_distribution")
OWN = "label"  # the task of own images: its classes are those of the table
SUFFIXES = {"mass": "MASS", "calcification": "CALC"}
SAME = {"LUCENT_CENTERED": "LUCENT_CENTER"}  # two words of the case lists for one type
JOINT = "-"


def classes(task: str, lesions: pd.DataFrame) -> tuple[str, ...]:
    """The class names of a task, in order; for own images those that occur in `lesions`, sorted.

    Raises ValueError for an unknown task.
    """
    if task == OWN:
        return tuple(sorted(set(lesions[OWN]) - {""}))
    if task not in CLASSES:
        raise ValueError(f"task = {task!r}, allowed: {', '.join([*CLASSES, OWN])}")
    return CLASSES[task]


def labels(lesions: pd.DataFrame, task: str) -> pd.Series:
    """The label of each row of `lesions`, read from the columns that the task needs, as text; empty where unknown.

    Raises ValueError for an unknown task and for a value that gives none of its classes.
    """
    allowed = classes(task, lesions)
    if task in MULTI_LABEL:
        return lesions[task].map(lambda text: _in_order(text, allowed, task))
    if task == OWN:
        return lesions[OWN]
    named = lesions["pathology"]
    if task == "pathology_4class":
        named = named + "_" + lesions["abnormality"].map(SUFFIXES)
    wrong = lesions[~named.isin(allowed)]
    if len(wrong):
        row = wrong.iloc[0]
        raise ValueError(f"pathology = {row.pathology!r}, abnormality = {row.abnormality!r} is not a class of {task}")
    return named


def targets(labels: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    """(N, C) float32: 1 where lesion n, of a label that is not empty, belongs to class c."""
    named = [{label} if label in classes else set(label.split(JOINT)) for label in labels]
    return np.array([[name in own for name in classes] for own in named], np.float32).reshape(-1, len(classes))


def strata(lesions: pd.DataFrame) -> pd.Series:
    """The class by which divisions of the lesions are stratified."""
    return labels(lesions, OWN if OWN in lesions else "pathology_4class")


def _in_order(text: str, allowed: tuple[str, ...], task: str) -> str:
    """A label of the case lists without repeats, in the order of the classes."""
    names = {SAME.get(name, name) for name in text.split(JOINT) if name}
    if names - set(allowed):
        raise ValueError(f"{task} = {text!r} contains no class of {task}: {', '.join(sorted(names - set(allowed)))}")
    return JOINT.join(name for name in allowed if name in names)
