"""A fine-tuning at one learning rate: its views, its loss, and the loop.

Shapes: N lesions, C classes; views (N, side, side) uint8, targets and logits (N, C) float32.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import Dataset

from miram.data.tasks import MULTI_LABEL
from miram.errors import MiramError
from miram.models.classifier import Classifier
from miram.progress import track
from miram.recipe import Tuning
from miram.train.answers import evaluated, probabilities
from miram.train.augment import finetune_view, stream, to_images
from miram.train.classifiers import Lesions, Split, best, build_encoder, device_of, validation_scores
from miram.train.schedule import warmup_cosine
from miram.train.views import Key, load_batches, loading_workers


class FinetuneViews(Dataset):
    """`views[epoch, i]` is lesion i of a split, augmented for an epoch, and its targets."""

    def __init__(self, split: Split, seed: int, augmentation: dict[str, float]) -> None:
        self.split, self.seed, self.augmentation = split, seed, augmentation

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.ndarray]:
        epoch, i = key
        random = stream("view", self.seed, epoch, i)
        return finetune_view(self.split.views[i], random, **self.augmentation), self.split.targets[i]


class Trial:
    """A training at one learning rate: network, optimiser, the number of steps done, the log, the best epoch so far.

    Paths are dropped by torch's generator, seeded once: with its state, `state` is all that a later process needs to go
    on as if nothing had happened.
    """

    def __init__(
        self, lesions: Lesions, tuning: Tuning, lr: float, encoder_file: Path | None, state: Mapping[str, Any] | None
    ) -> None:
        self.lesions, self.tuning, self.multi_label = lesions, tuning, tuning.task in MULTI_LABEL
        self.fabric = device_of(tuning)
        torch.manual_seed(tuning.seed)
        network = build_encoder(tuning.encoder, tuning.side, tuning.drop_path, encoder_file)
        classes = len(lesions.labelled.classes)
        self.module = Classifier(network, classes=classes, pool=tuning.pool, head_init_std=tuning.head_init_std)
        groups = layer_groups(self.module, tuning.layer_decay)
        self.optimizer = torch.optim.Adam(groups, lr=lr, weight_decay=tuning.weight_decay, fused=True)
        self.model, self.stepper = self.fabric.setup(self.module, self.optimizer)
        train = lesions.train.targets
        self.weights = None if self.multi_label else class_weights(train).to(self.fabric.device)
        self.steps = math.ceil(len(train) / tuning.batch)  # of an epoch
        self.rates = warmup_cosine(lr, tuning.epochs * self.steps, tuning.warmup_epochs * self.steps).tolist()
        self.step = state["step"] if state else 0
        self.losses: list[Tensor] = []  # of the epoch under way
        self.log: list[dict[str, float]] = []  # of the epochs done
        self.best_state: dict[str, Tensor] = {}
        keys = shuffled_batches(len(train), tuning.seed, tuning.batch, tuning.epochs)
        self.batches = load_batches(
            FinetuneViews(lesions.train, tuning.seed, tuning.augmentation),
            islice(keys, self.step, None),
            loading_workers(self.fabric.device, tuning.threads),
        )
        if state:
            self._resume(state)  # last, as building draws from torch's generator

    def train(self, after_step: Callable[[], None]) -> None:
        """Take the remaining steps, `after_step` after each."""
        seed, epochs = self.tuning.seed, self.tuning.epochs
        for epoch in track(range(self.step // self.steps, epochs), f"fine-tuning seed {seed}"):
            self.model.train()
            while self.step < (epoch + 1) * self.steps:
                self.losses.append(self._optimise())
                self.step += 1
                if self.at_epoch_end:
                    self._end_epoch()
                after_step()

    @property
    def at_epoch_end(self) -> bool:
        """Whether no epoch is under way."""
        return self.step % self.steps == 0

    def state(self) -> dict[str, Any]:
        """What a new process needs to go on from here, as tensors and plain values."""
        on_gpu = self.fabric.device.type == "cuda"
        return {
            "step": self.step,
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_of_gpu": torch.cuda.get_rng_state(self.fabric.device) if on_gpu else None,
            "losses": self.losses,
            "log": self.log,
            "best_state": self.best_state,
        }

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.losses = [loss.to(self.fabric.device) for loss in state["losses"]]
        self.log, self.best_state = state["log"], state["best_state"]
        torch.set_rng_state(state["random"])
        if state["random_of_gpu"] is not None:
            torch.cuda.set_rng_state(state["random_of_gpu"], self.fabric.device)

    def _optimise(self) -> Tensor:
        """One optimiser step: its loss, which the device may still have to compute."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[self.step] * group["share"]
        views, targets = (values.to(self.fabric.device, non_blocking=True) for values in next(self.batches))
        images = to_images(views, self.module.encoder.channels)
        epoch, step = divmod(self.step, self.steps)
        share = mixing_share(self.tuning.seed, epoch, step, self.tuning.mixup)
        loss = mixed_loss(self.model, images, targets, self.weights, share)
        self.fabric.backward(loss)
        self.stepper.step()
        self.stepper.zero_grad()
        return loss.detach()

    def _end_epoch(self) -> None:
        """Add the epoch's row to the log. Raises MiramError when its mean loss, or an answer, is not finite."""
        lr, validation = self.rates[self.step - 1], self.lesions.validation
        mean = torch.stack(self.losses).mean().item()
        if not math.isfinite(mean):
            raise MiramError(
                f"Fine-tuning diverged: training loss {mean} at learning rate {lr:.3g}.",
                "Lower finetune.lr, or use precision 32-true.",
            )
        logits = evaluated(self.model, validation)
        weights = None if self.weights is None else self.weights.cpu()
        losses = {
            "train_loss": mean,
            "val_loss": loss_of(logits, torch.from_numpy(validation.targets), weights).item(),
        }
        answers = probabilities(logits, self.multi_label)
        scores = validation_scores(
            validation.targets, answers, multi_label=self.multi_label, threshold=self.tuning.threshold
        )
        self.log.append({"epoch": self.step // self.steps, **losses, **scores, "lr": lr})
        if best(self.log) is self.log[-1]:
            self.best_state = {name: value.cpu().clone() for name, value in self.module.state_dict().items()}
        self.losses = []


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


def mixed_loss(model: nn.Module, images: Tensor, targets: Tensor, weights: Tensor | None, share: float) -> Tensor:
    """The loss of a batch in which each image is a `share` of itself and else of another one of the batch (mixup)."""
    if share == 1:
        return loss_of(model(images).float(), targets, weights)
    logits = model(share * images + (1 - share) * images.flip(0)).float()
    pair = loss_of(logits, targets, weights), loss_of(logits, targets.flip(0), weights)
    return share * pair[0] + (1 - share) * pair[1]


def mixing_share(seed: int, epoch: int, step: int, mixup: float) -> float:
    """The share of a step, drawn from Beta(mixup, mixup); 1 if `mixup` is 0."""
    return stream("step", seed, epoch, step).beta(mixup, mixup) if mixup else 1.0


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
