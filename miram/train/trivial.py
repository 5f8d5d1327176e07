"""Classifiers that see no lesion: by the size of its crop alone, and by its grey values without their places.

What they reach, a network has to beat before its answers say anything about the look of lesions.
Shapes: N lesions, C classes, F features; features (N, F) float64, targets and probabilities (N, C).
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from miram.data.tasks import MULTI_LABEL
from miram.recipe import Trivial
from miram.train.classifiers import (
    best,
    common_facts,
    labelled_lesions,
    predictions,
    read_split,
    read_training,
    validation_scores,
    write_outcome,
)
from miram.train.probe import Fit, fit_of, linear_probe
from miram.train.store import Store

GREYS = 256  # levels of a packed crop


def size_features(crop: np.ndarray, bins: int) -> np.ndarray:
    """Rows and columns of a crop (rows, columns), as logarithms: what is known of a lesion before its first pixel."""
    return np.log(crop.shape)


def grey_features(crop: np.ndarray, bins: int) -> np.ndarray:
    """Size, the share of pixels in each of `bins` ranges of grey, and the mean steps between neighbours, down, across.

    Steps are in shares of the brightest grey; 0 along an axis of one pixel.
    """
    shares = np.bincount(crop.ravel() // (GREYS // bins), minlength=bins) / crop.size
    steps = [np.abs(np.diff(crop.astype(float), axis=axis)) / (GREYS - 1) for axis in (0, 1)]
    return np.concatenate([size_features(crop, bins), shares, [step.mean() if step.size else 0.0 for step in steps]])


FEATURES: dict[str, Callable[..., np.ndarray]] = {
    "trivial-size": size_features,
    "trivial-grey": grey_features,
}


def classify_trivially(
    out_dir: Path, store_u8: Path, index_csv: Path, lesions_csv: Path, splits_csv: Path, own: Trivial
) -> dict[str, object]:
    """Fit logistic regressions and gradient-boosted trees on the features of `own.method`; keep the best on validation.

    Leaves in `out_dir` log.csv, one row per candidate, and predictions.parquet, as a probe does. The test lesions are
    read after the choice. Returns facts for the record. Raises MiramError for what the user can mend.
    """
    start = time.perf_counter()
    store, labelled = Store(store_u8, index_csv), labelled_lesions(lesions_csv, splits_csv, own.task)
    features = partial(FEATURES[own.method], bins=own.bins)
    train, validation = read_training(store, labelled, features)
    scaler = StandardScaler().fit(train.views)
    multi_label = own.task in MULTI_LABEL
    fitted, log = {}, []
    with threadpool_limits(own.threads):
        for candidate, fit in _candidates(own, multi_label).items():
            fitted[candidate] = fit(scaler.transform(train.views), train.targets)
            answers = fitted[candidate](scaler.transform(validation.views))
            scores = validation_scores(validation.targets, answers, multi_label=multi_label, threshold=own.threshold)
            log.append({"candidate": candidate, **scores})
        chosen = best(log)
        answer = fitted[chosen["candidate"]]
        test = read_split(store, labelled, "test", features)
        tables = [predictions(s, answer(scaler.transform(s.views)), labelled.classes) for s in (validation, test)]
    write_outcome(Path(out_dir), pd.concat(tables), log)
    told = {"features": train.views.shape[1], "candidate": chosen["candidate"]}
    return told | common_facts(labelled, (train, validation, test), chosen, start, torch.device("cpu"))


def _candidates(own: Trivial, multi_label: bool) -> dict[str, Fit]:
    linear = linear_probe(multi_label=multi_label, linear_c=own.linear_c, linear_iterations=own.linear_iterations)
    trees = {n: HistGradientBoostingClassifier(max_iter=n, early_stopping=False) for n in own.trees_rounds}
    return {f"logistic regression, C = {c}": fit for c, fit in linear.items()} | {
        f"{n} rounds of boosted trees": fit_of(model, multi_label=multi_label) for n, model in trees.items()
    }
