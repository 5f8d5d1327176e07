"""Classifiers on frozen features: a linear probe, and the nearest neighbours.

Shapes: N lesions, C classes, D = width; features (N, D) float64, targets and probabilities (N, C).
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.base import ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from miram.data.tasks import MULTI_LABEL
from miram.errors import MiramError
from miram.models.classifier import pooling
from miram.models.timm_encoder import AnyEncoder
from miram.recipe import LinearProbe, NeighbourProbe
from miram.train.answers import outputs
from miram.train.classifiers import (
    Lesions,
    best,
    build_encoder,
    common_facts,
    device_of,
    predictions,
    question_of,
    validation_scores,
    write_outcome,
)


class Pooled(nn.Module):
    """The encoder with one feature vector per image, see `pooling`."""

    def __init__(self, encoder: AnyEncoder, pool: str) -> None:
        super().__init__()
        self.encoder, self.pooled = encoder, pooling(pool)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, side, side) -> features (B, D), see `pooling`."""
        return self.pooled(self.encoder, images)


def probe(
    out_dir: Path, lesions: Lesions, encoder_file: Path | None, probing: LinearProbe | NeighbourProbe
) -> dict[str, object]:
    """Classify the features of `encoder_file`, or of a fresh encoder (None), each standardised over the training split.

    Writes into `out_dir` log.csv, one row per candidate, and predictions.parquet of the best on validation; test
    lesions are answered only after that selection. Only a fresh encoder depends on `seed`. Returns facts for the
    record. Raises MiramError for errors that the user can correct.
    """
    start = time.perf_counter()
    fabric = device_of(probing)
    train, validation, labelled = lesions.train, lesions.validation, lesions.labelled
    torch.manual_seed(probing.seed)
    network = Pooled(build_encoder(probing.encoder, probing.side, 0.0, encoder_file), probing.pool)
    model, multi_label = fabric.setup_module(network), probing.task in MULTI_LABEL
    scaler = StandardScaler()
    x_train = scaler.fit_transform(features(model, train.views))
    x_validation = scaler.transform(features(model, validation.views))
    fitted, log = {}, []
    with threadpool_limits(probing.threads):
        for candidate, fit in candidates(probing, multi_label).items():
            fitted[candidate] = fit(x_train, train.targets)
            answers = fitted[candidate](x_validation)
            scores = validation_scores(
                validation.targets, answers, multi_label=multi_label, threshold=probing.threshold
            )
            log.append({"candidate": candidate, **scores})
        answer, chosen = fitted[best(log)["candidate"]], best(log)
        x_test = scaler.transform(features(model, lesions.test.views))
        told = (validation, answer(x_validation)), (lesions.test, answer(x_test))
        tables = [predictions(split, found, labelled.classes) for split, found in told]
    write_outcome(Path(out_dir), question_of(labelled, probing, probing.mode), tables, log)
    facts = {"features": x_train.shape[1], "candidate": chosen["candidate"]}
    return facts | common_facts(lesions, chosen, start, fabric)


def features(model: nn.Module, views: np.ndarray) -> np.ndarray:
    """Features (N, D) float64 of unaugmented views. Raises MiramError if one is not finite."""
    found = outputs(model, views).double().numpy()
    if not np.isfinite(found).all():
        raise MiramError("A feature of the encoder is not finite.", "Use precision 32-true, or pre-train again.")
    return found


Answer = Callable[[np.ndarray], np.ndarray]  # features -> probabilities
Fit = Callable[[np.ndarray, np.ndarray], Answer]  # features, targets -> a classifier


def linear_probe(c: float, iterations: int, *, multi_label: bool) -> Fit:
    """Logistic regression with inverse strength `c` of L2, fitted by a limited number of iterations of L-BFGS.

    For one label: multinomial, with class weights N / (C·n_c); for several: each class by itself, without weights.
    """
    weights = None if multi_label else "balanced"
    return fit_of(LogisticRegression(C=c, max_iter=iterations, class_weight=weights), multi_label=multi_label)


def fit_of(model: ClassifierMixin, *, multi_label: bool) -> Fit:
    """The fit of a classifier of scikit-learn; for several labels each class by itself.

    A class without training lesions has probability 0.
    """

    def fit(x: np.ndarray, targets: np.ndarray) -> Answer:
        if multi_label:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Label not")
                return OneVsRestClassifier(model).fit(x, targets).predict_proba
        fitted = clone(model).fit(x, targets.argmax(1))

        def answer(queries: np.ndarray) -> np.ndarray:
            probabilities = np.zeros((len(queries), targets.shape[1]))
            probabilities[:, fitted.classes_] = fitted.predict_proba(queries)
            return probabilities

        return answer

    return fit


def neighbours(count: int) -> Fit:
    """The share of each class among the `count` training lesions of the largest cosine similarity, or all."""

    def fit(x: np.ndarray, targets: np.ndarray) -> Answer:
        index = NearestNeighbors(n_neighbors=min(count, len(x)), metric="cosine").fit(x)
        return lambda queries: targets[index.kneighbors(queries, return_distance=False)].mean(axis=1)

    return fit


def candidates(probing: LinearProbe | NeighbourProbe, multi_label: bool) -> dict[float, Fit]:
    """The candidates for validation, by their value."""
    if isinstance(probing, NeighbourProbe):
        return {probing.knn_neighbours: neighbours(probing.knn_neighbours)}
    return {c: linear_probe(c, probing.linear_iterations, multi_label=multi_label) for c in probing.linear_c}
