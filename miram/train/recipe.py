"""Helpers of a recipe: random inputs for its model, and the identity of its checkpoints."""

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from miram.files import sha256_file
from miram.provenance.record import code_digest
from miram.recipe import Recipe


def fingerprint(recipe: Recipe, crops_digest: str, used: str) -> str:
    """What decides the weights, as text: training resumes from a checkpoint of the same; `used`: cpu or cuda."""
    made_by = {"crops": crops_digest, "code": code_digest("pretrain"), "torch": torch.__version__, "used": used}
    if recipe.encoder_init:
        made_by["encoder_init_sha256"] = sha256_file(Path(recipe.encoder_init))
    return json.dumps({**dataclasses.asdict(recipe), **made_by}, sort_keys=True)


def random_inputs(recipe: Recipe, images: int, device: str) -> list[Tensor | float]:
    """The arguments of the model for one step on this many random images."""
    shape = images, recipe.encoder.channels, recipe.side, recipe.side
    if not recipe.masked:
        assert recipe.moco is not None
        return [*torch.randn(2, *shape, device=device), recipe.moco.momentum]
    inputs: list[Tensor | float] = [
        torch.randn(shape, device=device),
        torch.rand(images, recipe.patches, device=device),
    ]
    if recipe.native_scale:
        inputs.append(torch.randn(*shape[:2], recipe.view_side, recipe.view_side, device=device))
    return inputs
