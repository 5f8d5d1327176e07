"""Explanations: relevance maps of fine-tuned networks, and maps of the frozen features of pre-trained ones.

Shapes: N lesions, C classes, D = width, g x g patches; views (N, side, side) uint8, images (N, channels, side, side).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from torch import nn

from miram.files import atomic_path
from miram.models.export import load_classifier, load_weights
from miram.models.timm_encoder import encoder_from, encoder_of
from miram.predictions import TEST
from miram.recipe import Explaining
from miram.train.answers import outputs, probabilities
from miram.train.classifiers import labelled_lesions, read_split, resized_to
from miram.train.device import device_facts, one_device
from miram.train.probe import Pooled, features
from miram.train.store import Store

LESIONS_PER_LABEL = 1  # with relevance maps


def explain(
    out_dir: Path,
    store_u8: Path,
    index_csv: Path,
    lesions_csv: Path,
    splits_csv: Path,
    classifiers: Mapping[str, Path],
    encoders: Mapping[str, Path],
    explaining: Explaining,
) -> dict[str, object]:
    """Explain fine-tuned `classifiers` and the pre-trained `encoders` that they started from, files by method.

    Writes into `out_dir` relevance.npz: lesion_id (N,) and per method `relevance` (N, g, g) of these test lesions, the
    first of each label; and embedding.csv: method, lesion_id, label, x and y of all test lesions, the first two
    principal components of their frozen features, and share, their part of the variance; empty for a single test
    lesion. Returns facts for the record.
    """
    fabric = one_device(explaining.accelerator, explaining.precision, explaining.threads)
    store, labelled = Store(store_u8, index_csv), labelled_lesions(lesions_csv, splits_csv, explaining.task)
    maps, points = {}, []
    for method, path in classifiers.items():
        classifier, _, multi_label, _ = load_classifier(path)
        test = read_split(store, labelled, TEST, resized_to(classifier.encoder.side))
        chosen = test.lesions.groupby("label").head(LESIONS_PER_LABEL)
        model = fabric.setup_module(classifier)
        maps[method] = np.stack([relevance(model, view, multi_label) for view in test.views[chosen.index]])
        if method in encoders and len(test.lesions) > 1:
            network = encoder_from(classifier.encoder.architecture, drop_path=0.0)
            load_weights(network, encoders[method])
            found = features(fabric.setup_module(Pooled(network, classifier.pool)), test.views)
            points.append(principal_plane(found, test.lesions).assign(method=method))
    with atomic_path(Path(out_dir) / "relevance.npz") as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, lesion_id=chosen["lesion_id"].to_numpy(dtype=str), allow_pickle=True, **maps)
    with atomic_path(Path(out_dir) / "embedding.csv") as temporary:
        columns = ["method", "lesion_id", "label", "x", "y", "share"]
        table = pd.concat(points)[columns] if points else pd.DataFrame(columns=columns)
        table.to_csv(temporary, index=False, float_format="%.5g", lineterminator="\n")
    return {"lesions": len(chosen), "methods": list(maps), **device_facts(fabric)}


def relevance(model: nn.Module, view: np.ndarray, multi_label: bool) -> np.ndarray:
    """The drop in probability of the predicted class when a patch is replaced by the view's mean grey, (g, g) float32.

    The predicted class is the most probable one of the view, (side, side) uint8. Negative where the probability rises.
    After Zeiler and Fergus 2014 (ECCV), with the network's patches; of one without patches, such as a ResNet, with as
    many as its last feature map has pixels.
    """
    grid = encoder_of(model).grid
    edges = np.linspace(0, len(view), grid + 1).round().astype(int)
    hidden = np.repeat(view[None], grid * grid, axis=0)
    for number in range(grid * grid):
        rows, columns = (slice(edges[place], edges[place + 1]) for place in divmod(number, grid))
        hidden[number, rows, columns] = round(view.mean())
    given = probabilities(outputs(model, np.concatenate([view[None], hidden])).float(), multi_label)
    answer = given[0].argmax()
    return (given[0, answer] - given[1:, answer]).reshape(grid, grid)


def principal_plane(features: np.ndarray, lesions: pd.DataFrame) -> pd.DataFrame:
    """Lesions with x and y, the first two principal components of their features (N, D), and the share of variance."""
    plane = PCA(2, svd_solver="full").fit(features)
    x, y = plane.transform(features).T
    return lesions[["lesion_id", "label"]].assign(x=x, y=y, share=plane.explained_variance_ratio_.sum())
