"""Fine-tuning: a classifier on a pre-trained (or fresh) encoder, its best epoch chosen on validation alone.

Shapes: N lesions, C classes; views (N, side, side) uint8, logits and probabilities (N, C) float32.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from miram.data.tasks import classes as classes_of
from miram.data.tasks import labels
from miram.errors import MiramError
from miram.files import atomic_path
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.models.export import load_encoder
from miram.progress import track
from miram.train.augment import finetune_view, resize, stream, to_images
from miram.train.device import device_name, out_of_memory_as, peak_memory, prepare_torch, usable_accelerator
from miram.train.schedule import warmup_cosine
from miram.train.store import Store
from miram.train.views import Key, load_batches, loading_workers

EVALUATION_BATCH = 64  # images; decides memory, not results


class Split(NamedTuple):
    """The lesions of a split, with their crops resized to the network's input and their classes."""

    lesions: pd.DataFrame  # lesion_id, patient_id, split, label
    views: np.ndarray  # (N, side, side) uint8
    labels: np.ndarray  # (N,) int64, indices of classes


class FinetuneViews(Dataset):
    """`views[epoch, i]` is lesion i of a split as augmented in an epoch, and its label."""

    def __init__(self, split: Split, seed: int, augmentation: dict[str, float]) -> None:
        self.split, self.seed, self.augmentation = split, seed, augmentation

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.int64]:
        epoch, i = key
        random = stream("view", self.seed, epoch, i)
        return finetune_view(self.split.views[i], random, **self.augmentation), self.split.labels[i]


def finetune(
    out_dir: Path,
    store_u8: Path,
    index_csv: Path,
    lesions_csv: Path,
    splits_csv: Path,
    encoder_file: Path | None,
    *,
    encoder: dict,
    pool: str,
    task: str,
    side: int,
    seed: int,
    batch: int,
    epochs: int,
    warmup_epochs: int,
    lr: float,
    weight_decay: float,
    drop_path: float,
    head_init_std: float,
    accelerator: str,
    precision: str,
    threads: int,
    **augmentation: float,
) -> dict[str, object]:
    """Fine-tune the encoder of `encoder_file`, or a fresh one (None), to a task; keywords are named as in params.yaml.

    `augmentation` holds the keywords of `augment.finetune_view`. Leaves in `out_dir` log.csv and, of the epoch with
    the best macro AUC on validation (ties by accuracy), model.safetensors and predictions.parquet for validation and
    test; test lesions are read after that choice. Adam with its own, coupled weight decay, as the public code; its
    "within-batch sample weights" multiply by one and are left out. Returns facts for the record. Raises MiramError
    for what the user can mend.
    """
    start = time.perf_counter()
    fabric = Fabric(accelerator=usable_accelerator(accelerator), devices=1, precision=precision)
    prepare_torch(fabric.device, threads)
    store, classes = Store(store_u8, index_csv), classes_of(task)
    lesions = labelled_lesions(lesions_csv, splits_csv, task)
    train, validation = (read_split(store, lesions, name, classes, side) for name in ("train", "validation"))
    _check_two_classes(validation)
    torch.manual_seed(seed)
    module = _classifier(encoder, side, drop_path, encoder_file, len(classes), pool, head_init_std)
    optimizer = torch.optim.Adam(module.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    model, stepper = fabric.setup(module, optimizer)
    weights = class_weights(train.labels, len(classes)).to(fabric.device)
    batches = load_batches(
        FinetuneViews(train, seed, augmentation),
        shuffled_batches(len(train.labels), seed, batch, epochs),
        loading_workers(fabric.device, threads),
    )
    steps = math.ceil(len(train.labels) / batch)
    rates = warmup_cosine(lr, epochs * steps, warmup_epochs * steps).reshape(epochs, steps)
    log, best_state = [], {}
    with out_of_memory_as(
        f"fine-tuning at side {side}, batch {batch}",
        f"Lower finetune.batch; if the machine's own memory is short, lower threads (now {threads}).",
    ):
        for epoch in track(range(epochs), f"fine-tuning seed {seed}"):
            train_loss = _train_epoch(fabric, model, stepper, batches, rates[epoch], weights)
            scores = _scores(model, validation, weights)
            log.append({"epoch": epoch + 1, "train_loss": train_loss, **scores, "lr": rates[epoch, -1]})
            if _best(log) is log[-1]:
                best_state = {name: value.cpu().clone() for name, value in module.state_dict().items()}
    module.load_state_dict(best_state)
    test = read_split(store, lesions, "test", classes, side)
    predictions = pd.concat([_predictions(model, split, classes) for split in (validation, test)])
    architecture = {"encoder": module.encoder.architecture, "pool": pool, "classes": classes}
    _write(Path(out_dir), best_state, architecture, predictions, pd.DataFrame(log))
    best, (memory, memory_kind) = _best(log), peak_memory(fabric.device)
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "lesions": {"train": len(train.labels), "validation": len(validation.labels), "test": len(test.labels)},
        "epochs": epochs,
        "best_epoch": best["epoch"],
        "val_macro_auc": best["val_macro_auc"],
        "val_accuracy": best["val_accuracy"],
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": memory,
        "peak_memory_kind": memory_kind,
        "device": device_name(fabric.device),
    }


def labelled_lesions(lesions_csv: Path, splits_csv: Path, task: str) -> pd.DataFrame:
    """Columns lesion_id, patient_id, split and label of the lesions, in the order of `lesions_csv`."""
    lesions = pd.read_csv(lesions_csv, usecols=["lesion_id", "patient_id", "abnormality", "pathology"], dtype=str)
    splits = pd.read_csv(splits_csv, usecols=["lesion_id", "split"], dtype=str)
    lesions = lesions.merge(splits, on="lesion_id", validate="one_to_one")
    try:
        lesions["label"] = labels(lesions, task)
    except ValueError as error:
        raise MiramError(f"{lesions_csv}: {error}.", "Mend the row of that lesion.") from error
    return lesions[["lesion_id", "patient_id", "split", "label"]]


def read_split(store: Store, lesions: pd.DataFrame, name: str, classes: tuple[str, ...], side: int) -> Split:
    """The lesions of split `name`; MiramError when there is none, or one without a crop."""
    chosen = lesions[lesions["split"] == name].reset_index(drop=True)
    if chosen.empty:
        raise MiramError(f"No lesion is in split {name}.", "Change validation_fraction and run the stage `splits`.")
    views = np.stack([resize(store[place], side) for place in store.places(chosen["lesion_id"])])
    return Split(chosen, views, chosen["label"].map(classes.index).to_numpy(np.int64, copy=True))


def shuffled_batches(lesions: int, seed: int, batch: int, epochs: int) -> Iterator[list[Key]]:
    """The (epoch, lesion) keys of each batch of all epochs; the last batch of an epoch may be smaller."""
    for epoch in range(epochs):
        order = stream("order", seed, epoch).permutation(lesions).tolist()
        for first in range(0, lesions, batch):
            yield [(epoch, i) for i in order[first : first + batch]]


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """(C,) float32: N / (C·n_c) for a class with n_c of the N lesions; 0 for one without any."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)).float()


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve of each class against the rest, averaged over the classes that occur among `labels`."""
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in np.unique(labels)]))


def _check_two_classes(validation: Split) -> None:
    if len(np.unique(validation.labels)) < 2:
        raise MiramError(
            f"All validation lesions are {validation.lesions['label'].iloc[0]}: there is no AUC to choose an epoch by.",
            "Raise splits.validation_fraction, or change splits.seed.",
        )


def _classifier(
    encoder: dict, side: int, drop_path: float, encoder_file: Path | None, classes: int, pool: str, head_init_std: float
) -> Classifier:
    try:
        network = Encoder(side=side, **encoder, drop_path=drop_path)
    except ValueError as error:
        raise MiramError(f"The encoder cannot be built: {error}.", "Change that value in params.yaml.") from error
    if encoder_file is not None:
        load_encoder(network, encoder_file)
    return Classifier(network, classes=classes, pool=pool, head_init_std=head_init_std)


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    rates: np.ndarray,
    weights: Tensor,
) -> float:
    """One optimiser step for each learning rate of `rates`; returns the mean loss. MiramError when it is not finite."""
    model.train()
    losses = []
    for rate in rates.tolist():
        for group in optimizer.param_groups:
            group["lr"] = rate
        views, labels = (values.to(fabric.device, non_blocking=True) for values in next(batches))
        loss = cross_entropy(_logits(model, views), labels, weights)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise MiramError(
            f"Fine-tuning diverged: training loss {mean} at learning rate {rates[-1]:.3g}.",
            "Lower finetune.lr, or use precision 32-true.",
        )
    return mean


def _logits(model: nn.Module, views: Tensor) -> Tensor:
    return model(to_images(views, model.encoder.channels)).float()


@torch.no_grad()
def _evaluated(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, C) of a split's views as they are, on the CPU. Raises MiramError when one is not finite."""
    model.eval()
    device = next(model.parameters()).device
    views = torch.from_numpy(split.views).split(EVALUATION_BATCH)
    logits = torch.cat([_logits(model, part.to(device)).cpu() for part in views])
    if not logits.isfinite().all():
        lesion = split.lesions["lesion_id"][int((~logits.isfinite()).any(1).nonzero()[0])]
        raise MiramError(
            f"The classifier's output for lesion {lesion} is not finite.",
            "Lower finetune.lr, or use precision 32-true.",
        )
    return logits


def _scores(model: nn.Module, validation: Split, weights: Tensor) -> dict[str, float]:
    logits, labels = _evaluated(model, validation), torch.from_numpy(validation.labels)
    return {
        "val_loss": cross_entropy(logits, labels, weights.cpu()).item(),
        "val_accuracy": float(accuracy_score(validation.labels, logits.argmax(1).numpy())),
        "val_macro_auc": macro_auc(validation.labels, logits.softmax(1).numpy()),
    }


def _best(log: list[dict[str, float]]) -> dict[str, float]:
    """The row of the epoch with the highest macro AUC on validation; ties by accuracy, then the earliest."""
    return max(log, key=lambda row: (row["val_macro_auc"], row["val_accuracy"]))


def _predictions(model: nn.Module, split: Split, classes: tuple[str, ...]) -> pd.DataFrame:
    probabilities = _evaluated(model, split).softmax(1).numpy()
    columns = pd.DataFrame(probabilities, columns=[f"prob_{name}" for name in classes])
    return pd.concat([split.lesions, columns], axis=1)


def _write(
    out_dir: Path, state: dict[str, Tensor], architecture: dict, predictions: pd.DataFrame, log: pd.DataFrame
) -> None:
    with atomic_path(out_dir / "log.csv") as temporary:
        log.to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(out_dir / "model.safetensors") as temporary:
        # one entry: safetensors writes several in a random order
        temporary.write_bytes(save(state, {"miram_classifier": json.dumps(architecture)}))
    with atomic_path(out_dir / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary, index=False)
