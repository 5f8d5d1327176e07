"""Fine-tuning: a classifier on a pre-trained (or fresh) encoder, its best epoch selected only on validation.

Shapes: N lesions, C classes; views (N, side, side) uint8, targets, logits and probabilities (N, C) float32.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import Dataset

from miram.data.tasks import MULTI_LABEL
from miram.errors import MiramError
from miram.layout import FINETUNE
from miram.models.classifier import Classifier
from miram.models.export import save_classifier
from miram.models.timm_encoder import encoder_of
from miram.predictions import TEST
from miram.progress import track
from miram.recipe import Tuning
from miram.train.augment import finetune_view, stream, to_images
from miram.train.classifiers import (
    Split,
    best,
    build_encoder,
    common_facts,
    labelled_lesions,
    predictions,
    question_of,
    read_split,
    read_training,
    resized_to,
    validation_scores,
    write_outcome,
)
from miram.train.device import one_device, out_of_memory_as
from miram.train.schedule import warmup_cosine
from miram.train.seen import Seen
from miram.train.store import Store
from miram.train.views import Key, load_batches, loading_workers

EVALUATION_BATCH = 64  # images; decides memory, not results


class FinetuneViews(Dataset):
    """`views[epoch, i]` is lesion i of a split, augmented for an epoch, and its targets."""

    def __init__(self, split: Split, seed: int, augmentation: dict[str, float]) -> None:
        self.split, self.seed, self.augmentation = split, seed, augmentation

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.ndarray]:
        epoch, i = key
        random = stream("view", self.seed, epoch, i)
        return finetune_view(self.split.views[i], random, **self.augmentation), self.split.targets[i]


def finetune(
    out_dir: Path,
    store_u8: Path,
    index_csv: Path,
    lesions_csv: Path,
    splits_csv: Path,
    encoder_file: Path | None,
    tuning: Tuning,
    *,
    seen: Seen,
) -> dict[str, object]:
    """Fine-tune the encoder of `encoder_file`, or a fresh one (None), to a task.

    Each learning rate of `tuning` is tried alike, and the one with the best epoch is kept: that with the best macro AUC
    on validation (ties by accuracy). Writes into `out_dir` log.csv and, for that epoch, predictions.parquet for
    validation and test and, with `keep_network`, model.safetensors; test lesions are read only after that selection.
    `seen` describes how pictures were read and cut, see `Seen`; it is stored with the network.
    Adam with coupled weight decay, as in the public code, whose "within-batch sample weights" multiply by one and are
    left out. Returns facts for the record. Raises MiramError for errors that the user can correct.
    """
    start = time.perf_counter()
    fabric = one_device(tuning.accelerator, tuning.precision, tuning.threads)
    store, labelled = Store(store_u8, index_csv), labelled_lesions(lesions_csv, splits_csv, tuning.task)
    train, validation = read_training(store, labelled, resized_to(tuning.side))
    with out_of_memory_as(
        f"fine-tuning at side {tuning.side}, batch {tuning.batch}",
        f"Lower finetune.batch; if the machine's own memory is short, lower threads (now {tuning.threads}).",
    ):
        module, model, log, tried = _best_of(fabric, train, validation, tuning, len(labelled.classes), encoder_file)
    test = read_split(store, labelled, TEST, resized_to(tuning.side))
    multi_label = tuning.task in MULTI_LABEL
    tables = [
        predictions(split, probabilities(evaluated(model, split), multi_label), labelled.classes)
        for split in (validation, test)
    ]
    network_file = Path(out_dir) / "model.safetensors"
    if tuning.keep_network:
        save_classifier(
            {name: value.cpu() for name, value in module.state_dict().items()},
            network_file,
            encoder=module.encoder.architecture,
            pool=tuning.pool,
            classes=labelled.classes,
            multi_label=multi_label,
            seen=seen.told(),
        )
    else:
        network_file.unlink(missing_ok=True)  # of an earlier run with `keep_network`
    question = question_of(labelled, tuning, FINETUNE)
    write_outcome(Path(out_dir), question, tables, log)
    chosen, parameters = best(log), sum(parameter.numel() for parameter in module.parameters())
    told: dict[str, object] = {"parameters": parameters, "epochs": tuning.epochs, "best_epoch": chosen["epoch"]}
    told |= {"lr": best(tried)["lr"], "tried": tried}
    return told | common_facts(labelled, (train, validation, test), chosen, start, fabric)


def _best_of(
    fabric: Fabric, train: Split, validation: Split, tuning: Tuning, classes: int, encoder_file: Path | None
) -> tuple[Classifier, nn.Module, list[dict[str, float]], list[dict[str, float]]]:
    """Train at each learning rate alike: the best classifier, `_train`'s wrapper and log of it, and a row for each."""
    tried: list[dict[str, float]] = []
    for lr in tuning.lr:
        torch.manual_seed(tuning.seed)
        network = build_encoder(tuning.encoder, tuning.side, tuning.drop_path, encoder_file)
        module = Classifier(network, classes=classes, pool=tuning.pool, head_init_std=tuning.head_init_std)
        model, log = _train(fabric, module, train, validation, tuning, lr)
        tried.append({**best(log), "lr": lr})
        if best(tried) is tried[-1]:
            kept = module, model, log
    return *kept, tried


def _train(
    fabric: Fabric, module: Classifier, train: Split, validation: Split, tuning: Tuning, lr: float
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train, and load the best epoch's weights into `module`; returns it in Fabric's wrapper, and the log."""
    multi_label = tuning.task in MULTI_LABEL
    groups = layer_groups(module, tuning.layer_decay)
    optimizer = torch.optim.Adam(groups, lr=lr, weight_decay=tuning.weight_decay, fused=True)
    model, stepper = fabric.setup(module, optimizer)
    weights = None if multi_label else class_weights(train.targets)
    batches = load_batches(
        FinetuneViews(train, tuning.seed, tuning.augmentation),
        shuffled_batches(len(train.targets), tuning.seed, tuning.batch, tuning.epochs),
        loading_workers(fabric.device, tuning.threads),
    )
    steps = math.ceil(len(train.targets) / tuning.batch)
    rates = warmup_cosine(lr, tuning.epochs * steps, tuning.warmup_epochs * steps).reshape(tuning.epochs, steps)
    log: list[dict[str, float]] = []
    best_state: dict[str, Tensor] = {}
    for epoch in track(range(tuning.epochs), f"fine-tuning seed {tuning.seed}"):
        shares = mixing_shares(tuning.seed, epoch, steps, tuning.mixup)
        train_loss = _train_epoch(fabric, model, stepper, batches, rates[epoch], weights, shares)
        logits = evaluated(model, validation)
        val_loss = loss_of(logits, torch.from_numpy(validation.targets), weights)
        answers = probabilities(logits, multi_label)
        scores = validation_scores(validation.targets, answers, multi_label=multi_label, threshold=tuning.threshold)
        losses = {"train_loss": train_loss, "val_loss": val_loss.item()}
        log.append({"epoch": epoch + 1, **losses, **scores, "lr": rates[epoch, -1]})
        if best(log) is log[-1]:
            best_state = {name: value.cpu().clone() for name, value in module.state_dict().items()}
    module.load_state_dict(best_state)
    return model, log


def shuffled_batches(lesions: int, seed: int, batch: int, epochs: int) -> Iterator[list[Key]]:
    """The (epoch, lesion) keys of each batch of all epochs; the last batch of an epoch may be smaller."""
    for epoch in range(epochs):
        order = stream("order", seed, epoch).permutation(lesions).tolist()
        for first in range(0, lesions, batch):
            yield [(epoch, i) for i in order[first : first + batch]]


def class_weights(targets: np.ndarray) -> Tensor:
    """(C,) float32: N / (C·n_c) for a class with n_c of the N lesions of `targets` (N, C); 0 without lesions."""
    counts = targets.sum(axis=0)
    return torch.from_numpy(np.where(counts > 0, len(targets) / (counts.size * np.maximum(counts, 1)), 0.0)).float()


def loss_of(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy with one weight per class, or binary cross-entropy per class (None), both averaged.

    Ours: multi-label tasks have no class weights, as a class of two lesions would get a thousandfold weight.
    """
    if weights is None:
        return binary_cross_entropy_with_logits(logits, targets)
    return cross_entropy(logits, targets.argmax(1), weights)


def layer_groups(model: Classifier, decay: float) -> list[dict]:
    """Parameter groups, each with its `share` of the learning rate: `decay` to the power of the layers above it.

    The class token and the patch embedding are the lowest layer, the head and the norm before it the highest (BEiT's
    layer-wise decay, as in MAE's fine-tuning); networks of timm have its layers.
    """
    layers = {f"encoder.{name}": layer for name, layer in model.encoder.layers().items()}
    top = max(layers.values()) + 1
    groups: dict[int, list] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(layers.get(name, top), []).append(parameter)
    return [{"params": groups[layer], "share": decay ** (top - layer)} for layer in sorted(groups)]


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Tensor]],
    lr: np.ndarray,
    weights: Tensor | None,
    shares: list[float],
) -> float:
    """One optimiser step for each learning rate of `lr`; returns the mean loss. MiramError when it is not finite.

    `shares`: per step, the weight of a view; the rest is another view of the batch (mixup).
    """
    model.train()
    losses = []
    if weights is not None:
        weights = weights.to(fabric.device)
    for step_lr, share in zip(lr.tolist(), shares, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = step_lr * group["share"]
        views, targets = (values.to(fabric.device, non_blocking=True) for values in next(batches))
        images = to_images(views, encoder_of(model).channels)
        if share == 1:
            loss = loss_of(model(images).float(), targets, weights)
        else:
            logits = model(share * images + (1 - share) * images.flip(0)).float()
            pair = loss_of(logits, targets, weights), loss_of(logits, targets.flip(0), weights)
            loss = share * pair[0] + (1 - share) * pair[1]
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item()
    if not math.isfinite(mean):
        raise MiramError(
            f"Fine-tuning diverged: training loss {mean} at learning rate {lr[-1]:.3g}.",
            "Lower finetune.lr, or use precision 32-true.",
        )
    return mean


def mixing_shares(seed: int, epoch: int, steps: int, mixup: float) -> list[float]:
    """Per step of an epoch a share drawn from Beta(mixup, mixup); 1 if `mixup` is 0."""
    return [stream("step", seed, epoch, step).beta(mixup, mixup) if mixup else 1.0 for step in range(steps)]


def _logits(model: nn.Module, views: Tensor) -> Tensor:
    return model(to_images(views, encoder_of(model).channels)).float()


@torch.no_grad()
def evaluated(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, C) of a split's unaugmented views, on the CPU. Raises MiramError if one is not finite."""
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


def probabilities(logits: Tensor, multi_label: bool) -> np.ndarray:
    """Logits (N, C) as probabilities: independent per class (`multi_label`), or of sum 1."""
    return (logits.sigmoid() if multi_label else logits.softmax(1)).numpy()
