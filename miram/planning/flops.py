"""Operations of matrix products of a training, counted on torch's fake tensors: without values, in seconds."""

import dataclasses
import json
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miram.models.build import build_pretrainer
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.recipe import Encoder as EncoderSizes
from miram.recipe import Recipe
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

    return _counted(loss)


@lru_cache
def finetuning_flops(sizes: EncoderSizes, side: int) -> float:
    """Of a training step of a classifier, per image; its head is small, whatever the classes."""

    def loss() -> Tensor:
        encoder = Encoder(side=side, **dataclasses.asdict(sizes), drop_path=0.0)
        classifier = Classifier(encoder, classes=4, pool="mean", head_init_std=0.01)
        return classifier(torch.randn(IMAGES, sizes.channels, side, side)).sum()

    return _counted(loss)


def _counted(loss: Callable[[], Tensor]) -> float:
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), counter:  # of single products, which are counted
        loss().backward()
    return counter.get_total_flops() / IMAGES
