"""Operations of matrix products of a training, counted on torch's tensors without values, in seconds."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
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
    return _of_recipe(counted)


@lru_cache
def _of_recipe(recipe: Recipe) -> float:
    return _counted(lambda: build_pretrainer(recipe)(*random_inputs(recipe, IMAGES, "meta")).loss)


@lru_cache
def finetuning_flops(kind: Encoder | Timm, side: int) -> float:
    """Of a training step of a classifier, per image; its head is small, whatever the classes."""
    with torch.device("meta"):
        encoder = encoder_from(kind.architecture(side), drop_path=0.0)
        pool = "own" if isinstance(kind, Timm) else "mean"
        classifier = Classifier(encoder, classes=4, pool=pool, head_init_std=0.01)
        images = torch.randn(IMAGES, encoder.channels, side, side)
    return _counted(lambda: classifier(images).sum())


def _counted(loss: Callable[[], Tensor]) -> float:
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), counter:  # of single products, which are counted
        loss().backward()
    return counter.get_total_flops() / IMAGES
