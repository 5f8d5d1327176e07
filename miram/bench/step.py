"""A training step on random images, taken whole or by its parts, and the precision in which it computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from miram.bench.models import make_naive
from miram.bench.timing import Phases, clock
from miram.errors import MiramError
from miram.kinds import Precision
from miram.models.build import build_pretrainer
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.recipe import Recipe
from miram.train.loop import parameter_groups
from miram.train.recipe import random_inputs

TF32 = "tf32"  # float32 whose products a GPU rounds; the other precisions are those of `miram.kinds`
CLASSES = 4  # of the fine-tuning step


def check_device(device: str) -> None:
    """Raise MiramError if `device` is cuda and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise MiramError("There is no CUDA device.", "Run the bench with --device cpu.")


def mixed(device: str) -> Precision:
    """The precision of a training there: as `usable_precision` takes it, but for fp16, which needs a scaled loss."""
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def autocast(device: str, precision: str) -> torch.autocast:
    """What a forward pass in that precision is run in."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Have float32 matrices of both passes multiplied as in that precision."""
    torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@dataclass(frozen=True)
class Step:
    """A training step: called, it is taken, without waiting for the device."""

    model: nn.Module
    loss: Callable[[nn.Module], Tensor]  # of the model, on inputs that it holds
    optimizer: torch.optim.Optimizer
    device: str
    precision: str  # TF32, or as in `miram.kinds`

    def __call__(self) -> None:
        """Take it."""
        self.parts(perf_counter)

    def forward(self) -> Tensor:
        """The loss."""
        with autocast(self.device, self.precision):
            return self.loss(self.model)

    def parts(self, now: Callable[[], float] = clock) -> Phases:
        """Take it; the seconds of its parts, or by `perf_counter` of starting their operations."""
        times = [now()]
        with products_in(self.precision):
            loss = self.forward()
            times.append(now())
            loss.backward()
        times.append(now())
        self.optimizer.step()
        self.optimizer.zero_grad()
        times.append(now())
        return dict(zip(("forward", "backward", "optimiser"), np.diff(times).tolist(), strict=True))

    def started(self) -> Phases:
        """Take it; the seconds until all its operations are started."""
        clock()
        return {"host": sum(self.parts(perf_counter).values())}


def loss_of(model: nn.Module, *inputs: Tensor | float) -> Tensor:
    """The loss of a model on its inputs."""
    return model(*inputs).loss


def pretraining_step(
    recipe: Recipe,
    images: int,
    device: str,
    *,
    loss: Callable[..., Tensor] = loss_of,
    fused_adamw: bool = True,
    naive: bool = False,
    accumulate: int = 1,
) -> Step:
    """A step of a method on this many random images, in the precision of its recipe.

    `loss` is called with the model and its inputs. With `naive` the high-resolution decoder's full attention stores the
    matrices of all pairs of tokens. A model that divides its batch itself does so by `accumulate`.
    """
    torch.manual_seed(0)
    model = build_pretrainer(replace(recipe, accumulate=accumulate)).to(device)
    if naive:
        for block in model.get_submodule("highres").get_submodule("stack").children():
            make_naive(block.get_submodule("attn"))
    groups = parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(recipe.beta1, recipe.beta2), fused=fused_adamw)
    inputs = random_inputs(recipe, images, device)
    return Step(model, lambda own: loss(own, *inputs), optimizer, device, recipe.precision)


def finetuning_step(recipe: Recipe, images: int, device: str) -> Step:
    """A training step of the classifier on this many random images."""
    encoder = Encoder(side=recipe.side, **asdict(recipe.encoder), drop_path=0.1)
    model = Classifier(encoder, classes=CLASSES, pool="mean", head_init_std=0.01).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    pixels = torch.randn(images, recipe.encoder.channels, recipe.side, recipe.side, device=device)
    labels = torch.randint(CLASSES, (images,), device=device)
    return Step(model, lambda own: cross_entropy(own(pixels), labels), optimizer, device, recipe.precision)
