"""What test predictions look like beyond one number: ROC and PR curves, confusion, calibration, confident errors.

Axis letters: N lesions, C classes.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from miram.report.study import Run

GRID = np.linspace(0, 1, 101)  # where curves of several seeds are averaged

Runs = Mapping[str, Sequence[Run]]  # method -> its seeds, all on the same lesions


def roc(runs: Sequence[Run], number: int) -> np.ndarray | None:
    """Sensitivity at each false positive rate of GRID, mean over seeds; None where one side has no lesion."""
    truth = runs[0].answers.truth[:, number]
    if truth.all() or not truth.any():
        return None
    curves = [roc_curve(truth, run.answers.probabilities[:, number]) for run in runs]
    return np.mean([np.interp(GRID, false, true) for false, true, _ in curves], axis=0)


def precision_recall(runs: Sequence[Run], number: int) -> np.ndarray | None:
    """Precision at the nearest threshold that reaches each recall of GRID, mean over seeds; None without a lesion."""
    truth = runs[0].answers.truth[:, number]
    if not truth.any():
        return None
    curves = [precision_recall_curve(truth, run.answers.probabilities[:, number]) for run in runs]
    return np.mean([precision[::-1][np.searchsorted(recall[::-1], GRID)] for precision, recall, _ in curves], axis=0)


def given(run: Run) -> pd.DataFrame:
    """Columns lesion_id, label, answer (the most probable class) and confidence (its probability).

    Only of tasks with one class a lesion.
    """
    probabilities = run.answers.probabilities
    return run.lesions[["lesion_id", "label"]].assign(
        answer=np.array(run.answers.classes)[probabilities.argmax(axis=1)], confidence=probabilities.max(axis=1)
    )


def confusion(runs: Sequence[Run]) -> list[dict[str, object]]:
    """One row per true class: its name, its lesions, and the share of them that got each answer, over all seeds."""
    classes = list(runs[0].answers.classes)
    every = pd.concat([given(run) for run in runs])
    counts = confusion_matrix(every["label"], every["answer"], labels=classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    lesions = runs[0].answers.truth.sum(axis=0)
    return [
        {"truth": name, "lesions": int(lesions[place]), "shares": shares[place].tolist(), "place": place}
        for place, name in enumerate(classes)
    ]


def confident_errors(runs: Runs, count: int) -> list[dict[Hashable, Any]]:
    """The lesions with the most confident wrong answer of any method, its probabilities averaged over its seeds.

    Each lesion once, with the method that is surest, and how many methods are wrong about it.
    """
    answers = pd.concat([given(mean(seeds)).assign(method=method) for method, seeds in runs.items()])
    wrong = answers[answers["answer"] != answers["label"]]
    wrong = wrong.sort_values(["confidence", "lesion_id"], ascending=[False, True])
    methods_wrong = wrong.groupby("lesion_id")["method"].nunique()
    worst = wrong.drop_duplicates("lesion_id").head(count)
    return worst.assign(methods_wrong=worst["lesion_id"].map(methods_wrong)).to_dict("records")


def mean(seeds: Sequence[Run]) -> Run:
    """One run with the probabilities averaged over the seeds."""
    probabilities = np.mean([run.answers.probabilities for run in seeds], axis=0)
    return seeds[0]._replace(answers=seeds[0].answers._replace(probabilities=probabilities))
