"""Operations of matrix products of a training, counted on torch's tensors without values, in seconds."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miram.models.build import build_pretrainer
from miram.models.classifier import Classifier
from miram.models.timm_encoder import encoder_from
from miram.recipe import Encoder, Recipe, Timm
from miram.train.recipe import random_inputs

IMAGES = 2  # on which is counted


def pretraining_flops(recipe: Recipe) -> float:
    """Of a training step of the model, per image."""
    counted = dataclasses.replace(recipe, batch=1, accumulate=1, encoder_init=None)  # these do not change the count
    return _of_recipe(json.dumps(dataclasses.asdict(counted), sort_keys=True))


@lru_cache
def _of_recipe(text: str) -> float:
    recipe = Recipe.of(json.loads(text))

    def loss() -> Tensor:
        return build_pretrainer(recipe)(*random_inputs(recipe, IMAGES, "cpu")).loss

    return _counted(loss, FakeTensorMode())


@lru_cache
def finetuning_flops(kind: Encoder | Timm, side: int) -> float:
    """Of a training step of a classifier, per image; its head is small, whatever the classes."""
    without_values = torch.device("meta")
    with without_values:  # fake tensors refuse timm's rates of stochastic depth
        encoder = encoder_from(kind.architecture(side), drop_path=0.0)
        pool = "own" if isinstance(kind, Timm) else "mean"
        classifier = Classifier(encoder, classes=4, pool=pool, head_init_std=0.01)
        images = torch.randn(IMAGES, encoder.channels, side, side)
    return _counted(lambda: classifier(images).sum(), without_values)


def _counted(loss: Callable[[], Tensor], mode: AbstractContextManager) -> float:
    counter = FlopCounterMode(display=False)
    with mode, sdpa_kernel(SDPBackend.MATH), counter:  # of single products, which are counted
        loss().backward()
    return counter.get_total_flops() / IMAGES
