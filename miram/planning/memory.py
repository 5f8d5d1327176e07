"""How much memory a step of pre-training takes, and the batch that fits.

Parameters and the tensors kept for the backward pass are counted on the model itself, run on torch's fake tensors:
these have shapes but no values, so any size takes seconds and no memory. Weights, gradients and Adam's moments have 4
bytes per number in every precision.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from miram import kinds
from miram.errors import MiramError
from miram.models.attention.blocks import is_block
from miram.models.build import build_pretrainer
from miram.models.timm_encoder import encoder_from
from miram.planning.kept import SavedTensors
from miram.recipe import Encoder, Recipe, Timm
from miram.train.recipe import random_inputs
from miram.train.views import bytes_kept

USABLE = 0.9  # of a GPU's memory: the rest is for CUDA's context and the allocator's gaps
FULL = 4  # bytes per number
LOSS_WORKSPACE = 4  # times the largest prediction, measured
BLOCK_WORKSPACE = 6  # times the largest input of a block: temporary tensors of its backward pass, measured
MEASURED_IMAGES = (2, 3)
ONE_BY_ONE = 2 * max(MEASURED_IMAGES)  # parts of a batch: one view each
RECIPES = 64  # whose measurements are remembered


class Memory(NamedTuple):
    """Bytes of one step on one device."""

    weights: float
    gradients: float
    moments: float
    kept: float  # activations, from the forward to the backward pass
    workspace: float  # temporary, within one block

    @property
    def peak(self) -> float:
        """Gradients are added while activations are freed: the larger of the two ends of the backward pass decides."""
        return self.weights + self.moments + max(self.kept + self.workspace, self.gradients)


class Fit(NamedTuple):
    """How a batch is divided."""

    images: int  # at once on one device
    accumulate: int
    memory: Memory


class Forward(NamedTuple):
    """What a forward pass was measured to allocate, in bytes; tokens and predictions as 32-bit numbers."""

    kept: int
    block: int  # the most that one block keeps
    tokens: int  # the largest input of a norm, and so of a block
    prediction: int  # the largest tensor that the model returns
    shared: int  # trained parameters used more than once: the gradient of each use, and their sum


def memory_of(recipe: Recipe, images: int, accumulate: int = 1) -> Memory:
    """The memory of a step on one device with `images` at once, `accumulate` times."""
    trained, frozen = parameters(recipe)
    kept, workspace = _activations(recipe, images)
    if accumulate > 1 and recipe.divides_batch:  # of the whole batch: views, features and heads
        kept += _seen(_deciding(recipe, accumulate=ONE_BY_ONE), images * accumulate).kept
    return Memory(FULL * (trained + frozen), FULL * trained, 2 * FULL * trained, kept, workspace)


def fit(recipe: Recipe, vram_bytes: float, *, devices: int, crops_bytes: float) -> Fit:
    """The fewest micro-batches per batch that fit into `vram_bytes` on each of this many devices.

    A GPU also keeps all crops at native size, `crops_bytes`, or none, see `bytes_kept`. Raises MiramError if not even
    one image fits.
    """
    share, crops_bytes = recipe.batch // devices, bytes_kept(crops_bytes, vram_bytes)
    for accumulate in range(1, share + 1):
        if share % accumulate:
            continue
        memory = memory_of(recipe, share // accumulate, accumulate)
        if memory.peak + crops_bytes <= USABLE * vram_bytes:
            return Fit(share // accumulate, accumulate, memory)
    needed = (memory.peak + crops_bytes) / USABLE / 1e9
    raise MiramError(
        f"One image at a time at side {recipe.side}{', with all crops,' if crops_bytes else ''} takes {needed:.1f} GB; "
        f"there are only {vram_bytes / 1e9:.1f}.",
        "Set pretrain.recompute: true, lower pretrain.side, or use a linear attention.",
    )


def parts_that_fit(recipe: Recipe, free_bytes: float, devices: int, crops_bytes: float) -> int:
    """What `accumulate: auto` takes, see `fit`."""
    return fit(recipe, free_bytes, devices=devices, crops_bytes=crops_bytes).accumulate


def least_images(recipe: Recipe) -> int:
    """The least images of a batch: two if BatchNorm computes their statistics."""
    return kinds.OBJECTIVES[recipe.objective].least_images


def as_table(methods: Mapping[str, Recipe], vram_bytes: float, *, devices: int, crops_bytes: float) -> str:
    """The memory of each method with a batch divided so that it fits, with recomputed activations and without."""
    rows = []
    for name, recipe in methods.items():
        for recompute in (False,) if recipe.backend == kinds.PACKAGE else (False, True):
            own = dataclasses.replace(recipe, recompute=recompute)
            row = {"method": name, "side": recipe.side, "recompute": "yes" if recompute else "no"}
            try:
                found = fit(own, vram_bytes, devices=devices, crops_bytes=crops_bytes)
            except MiramError:
                rows.append({**row, "at once": "does not fit"})
                continue
            sizes = {part: f"{size / 1e9:.2f}" for part, size in found.memory._asdict().items()}
            divided = {"batch": recipe.batch, "at once": found.images, "accumulate": found.accumulate}
            rows.append({**row, **divided, **sizes, "peak": f"{found.memory.peak / 1e9:.2f}"})
    precision, kept = next(iter(methods.values())).precision, bytes_kept(crops_bytes, vram_bytes)
    return (
        f"Pre-training in precision {precision} on {devices} device(s) of {vram_bytes / 1e9:g} GB (1e9 bytes), of "
        f"which {USABLE:.0%} are used, {kept / 1e9:.2f} GB of it for the crops; predicted GB.\n"
        "This is what `accumulate: auto` takes: batch and learning rate do not change.\n"
        "It changes results only by rounding: MoCo-v3 contrasts the whole batch whatever its division. Where there is "
        "one, it encodes each view once more, in about a quarter of a step's time.\n\n"
        + pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
    )


def parameters(recipe: Recipe) -> tuple[int, int]:
    """Trained and frozen parameters; buffers are small and left out."""
    _, model = _fake_model(_deciding(recipe))
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    return counts[True], counts[False]


@lru_cache
def encoder_parameters(kind: Encoder | Timm, side: int) -> int:
    """Of the encoder only: the result of a pre-training, and a classifier without its head."""
    with torch.device("meta"):
        model = encoder_from(kind.architecture(side), drop_path=0.0)
    return sum(parameter.numel() for parameter in model.parameters())


def checkpoint_bytes(recipe: Recipe) -> float:
    """Size of checkpoint.pt: weights, and Adam's moments of the trained ones."""
    trained, frozen = parameters(recipe)
    return FULL * (3 * trained + frozen)


def _activations(recipe: Recipe, images: int) -> tuple[float, float]:
    """Bytes that are kept, and those of the workspace."""
    whole = _seen(_deciding(recipe), images)
    workspace = max(BLOCK_WORKSPACE * whole.tokens, LOSS_WORKSPACE * whole.prediction, whole.shared)
    if not recipe.recompute:
        return whole.kept, workspace
    kept = _seen(_deciding(recipe, recompute=True), images).kept
    return kept, max(workspace, whole.block)


def _seen(recipe: Recipe, images: int) -> Forward:
    """What a forward pass with this many images allocates, by a line through the measurements with MEASURED_IMAGES.

    Exact except for one image, where some tensors are views, and for MoCo-v3, whose products between all images grow
    with their square; both errors are small.
    """
    few, more = (_forward(recipe, count) for count in MEASURED_IMAGES)
    beyond = images - MEASURED_IMAGES[0]
    return Forward(*(a + beyond * (b - a) for a, b in zip(few, more, strict=True)))


def _deciding(recipe: Recipe, *, recompute: bool = False, accumulate: int = 1) -> Recipe:
    """The recipe as a cache key, with fixed values for everything that does not change the memory."""
    return dataclasses.replace(
        recipe,
        seed=0,
        batch=1,
        accumulate=accumulate,
        epochs=1,
        warmup_epochs=0,
        encoder_init=None,
        recompute=recompute,
        compile=False,
    )


@lru_cache(RECIPES)
def _fake_model(recipe: Recipe) -> tuple[FakeTensorMode, nn.Module]:
    mode = FakeTensorMode()
    with mode:
        return mode, build_pretrainer(recipe)


@lru_cache(2 * RECIPES)
def _forward(recipe: Recipe, images: int) -> Forward:
    mode, model = _fake_model(recipe)
    mixed = recipe.precision != "32-true"
    with mode, SavedTensors() as saved, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        watch = _Watch(model, saved)
        outputs = model(*random_inputs(recipe, images, "cpu"))
        watch.remove()
    predictions = [FULL * tensor.numel() for tensor in outputs if isinstance(tensor, torch.Tensor)]
    return Forward(saved.bytes, watch.block, watch.tokens, max(predictions), watch.shared)


class _Watch:
    """Watches every module while a model runs; `remove` ends that."""

    def __init__(self, model: nn.Module, saved: SavedTensors) -> None:
        self.saved, self.block, self.tokens, self.before = saved, 0, 0, 0
        self.uses: dict[nn.Module, int] = {}
        self.hooks = []
        for module in model.modules():
            self.hooks.append(module.register_forward_pre_hook(self._enter))
            if is_block(module):
                self.hooks.append(module.register_forward_hook(self._leave))

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for hook in self.hooks:
            hook.remove()

    @property
    def shared(self) -> int:
        """Bytes of the gradients of parameters used more than once: one per use, and their sum."""
        return sum(
            (uses + 1) * FULL * sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad)
            for module, uses in self.uses.items()
            if uses > 1
        )

    def _enter(self, module: nn.Module, inputs: tuple) -> None:
        self.uses[module] = self.uses.get(module, 0) + 1
        if is_block(module):
            self.before = self.saved.bytes
        if isinstance(module, nn.LayerNorm):
            self.tokens = max(self.tokens, FULL * inputs[0].numel())

    def _leave(self, module: nn.Module, inputs: tuple, output: object) -> None:
        self.block = max(self.block, self.saved.bytes - self.before)
