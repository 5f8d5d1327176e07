"""Build the model of a recipe for pre-training."""

from dataclasses import asdict
from pathlib import Path

from torch import nn

from miram import kinds
from miram.errors import MiramError
from miram.models.attention.blocks import recompute_blocks
from miram.models.attention.performer import RedrawClock
from miram.models.encoder import Encoder
from miram.models.export import load_encoder
from miram.recipe import Recipe


def build_pretrainer(recipe: Recipe) -> nn.Module:
    """The model of a recipe, drawn from torch's generator; fine-tuning starts from its `.encoder`.

    The encoder starts from the weights of `encoder_init`, if given. With `recompute`, a block keeps only its input
    and is recomputed in the backward pass: less memory, more time, the same numbers. Raises MiramError for values or a
    file that do not fit.
    """
    entry = kinds.OBJECTIVES[recipe.objective]
    try:
        network = Encoder(side=recipe.side, **asdict(recipe.encoder), drop_path=0.0)
        if recipe.encoder_init:
            load_encoder(network, Path(recipe.encoder_init))
        model = kinds.load(entry.build)(network, **{name: getattr(recipe, name) for name in entry.values})
        if recipe.recompute:
            recompute_blocks(model)
        for module in model.modules():
            if isinstance(module, RedrawClock):
                module.forwards_per_step = recipe.micro_batches
    except ValueError as error:
        raise MiramError(f"The model cannot be built: {error}.", "Change that value in params.yaml.") from error
    return model
