"""The classification tasks: their classes, in the order of every score column, and the class of a lesion."""

import pandas as pd

# inferred from the experiment names of the authors' code
CLASSES = {
    "pathology_4class": ("BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC"),
    "pathology": ("BENIGN", "MALIGNANT"),
}
SUFFIXES = {"mass": "MASS", "calcification": "CALC"}


def classes(task: str) -> tuple[str, ...]:
    """The class names of a task, in order. Raises ValueError for an unknown task."""
    if task not in CLASSES:
        raise ValueError(f"task = {task!r}, allowed: {', '.join(CLASSES)}")
    return CLASSES[task]


def labels(lesions: pd.DataFrame, task: str) -> pd.Series:
    """The class name of each row of `lesions`, from its columns `pathology` and `abnormality`.

    Raises ValueError for an unknown task and for a value that gives none of its classes.
    """
    allowed = classes(task)
    named = lesions["pathology"]
    if task == "pathology_4class":
        named = named + "_" + lesions["abnormality"].map(SUFFIXES)
    wrong = lesions[~named.isin(allowed)]
    if len(wrong):
        row = wrong.iloc[0]
        raise ValueError(f"pathology = {row.pathology!r} with abnormality = {row.abnormality!r} is no class of {task}")
    return named
