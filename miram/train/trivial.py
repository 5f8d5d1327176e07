"""Trivial classifiers: by the size of a crop alone, and by its size and grey values without their places.

What they reach, a network must exceed before its answers say anything about the look of lesions.
Shapes: N lesions, C classes, F features; features (N, F) float64, targets and probabilities (N, C).
"""

import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from miram.data.tasks import MULTI_LABEL
from miram.files import write_csv
from miram.layout import TRIVIAL, TRIVIAL_MODE, trivial_predictions
from miram.predictions import Predictions, write_predictions
from miram.recipe import Trivial
from miram.train.classifiers import (
    Lesions,
    Split,
    best,
    predictions,
    question_of,
    validation_scores,
)
from miram.train.probe import Answer, Fit, fit_of, linear_probe

GREYS = 256  # levels of a packed crop
SIZES = 2  # features of the size, the first ones
READS = dict(zip(TRIVIAL, (slice(SIZES), slice(None)), strict=True))  # method -> its features


def features(crop: np.ndarray, bins: int) -> np.ndarray:
    """Features (SIZES + bins + 2,) of a crop (rows, columns) uint8 at native size.

    The logarithms of rows and columns in px; the share of pixels in each of `bins` equal ranges of grey; the mean step
    between neighbours, down and across, as a share of the brightest grey (0 along an axis of one pixel).
    """
    shares = np.bincount(crop.ravel() // np.uint8(GREYS // bins), minlength=bins) / crop.size
    steps = [np.abs(np.diff(crop.astype(np.int16), axis=axis)) for axis in (0, 1)]
    means = [step.mean() / (GREYS - 1) if step.size else 0.0 for step in steps]
    return np.concatenate([np.log(crop.shape), shares, means])


def classify_trivially(
    out_dir: Path, store_u8: Path, index_csv: Path, lesions_csv: Path, splits_csv: Path, trivial: Trivial
) -> dict[str, object]:
    """For each of TRIVIAL fit logistic regressions and boosted trees; keep the best on validation.

    Writes into `out_dir` log.csv, one row per method and candidate, and the predictions of each method; test lesions
    are read only after that selection. Returns facts for the record. Raises MiramError for errors that the user can
    correct.
    """
    start = time.perf_counter()
    view = partial(features, bins=trivial.bins)
    lesions = Lesions(store_u8, index_csv, lesions_csv, splits_csv, trivial.task, view)
    train, validation, labelled = lesions.train, lesions.validation, lesions.labelled
    with threadpool_limits(trivial.threads):
        chosen = {method: choose(train, validation, READS[method], trivial) for method in TRIVIAL}
        asked = question_of(labelled, trivial, TRIVIAL_MODE)
        for method, own in chosen.items():
            answers = [(split, own.answer(split.views[:, READS[method]])) for split in (validation, lesions.test)]
            tables = [predictions(split, answer, labelled.classes) for split, answer in answers]
            write_predictions(trivial_predictions(out_dir, method), Predictions(asked, pd.concat(tables)))
    log = pd.concat([own.log.assign(method=method) for method, own in chosen.items()])
    write_csv(log, out_dir / "log.csv")
    return {
        "chosen": {method: own.candidate for method, own in chosen.items()},
        **lesions.counts(),
        "seconds": time.perf_counter() - start,
    }


class Chosen(NamedTuple):
    """The best candidate on validation, and the scores of all."""

    candidate: str
    answer: Answer
    log: pd.DataFrame  # candidate, val_accuracy, val_macro_auc


def choose(train: Split, validation: Split, read: slice, trivial: Trivial) -> Chosen:
    """The best of `candidates` on validation, for the columns `read` of the features."""
    scaler = StandardScaler().fit(train.views[:, read])
    x_train, x_validation = (scaler.transform(split.views[:, read]) for split in (train, validation))
    fitted = {name: fit(x_train, train.targets) for name, fit in candidates(trivial).items()}
    judge = partial(validation_scores, multi_label=trivial.task in MULTI_LABEL, threshold=trivial.threshold)
    scores = {name: judge(validation.targets, answer(x_validation)) for name, answer in fitted.items()}
    winner = best(list(scores.values()))
    candidate = next(name for name, own in scores.items() if own is winner)
    log = pd.DataFrame(scores.values()).assign(candidate=list(scores))
    return Chosen(candidate, lambda x: fitted[candidate](scaler.transform(x)), log)


def candidates(trivial: Trivial) -> dict[str, Fit]:
    """The candidates for validation, by their names."""
    multi_label = trivial.task in MULTI_LABEL
    linear = {c: linear_probe(c, trivial.linear_iterations, multi_label=multi_label) for c in trivial.linear_c}
    trees = {
        rounds: HistGradientBoostingClassifier(max_iter=rounds, early_stopping=False, random_state=trivial.seed)
        for rounds in trivial.rounds
    }
    return {
        **{f"logistic regression, C {c:g}": fit for c, fit in linear.items()},
        **{f"{n} rounds of boosted trees": fit_of(model, multi_label=multi_label) for n, model in trees.items()},
    }
