"""From the name of an objective to the model that is pre-trained."""

from pathlib import Path

from torch import nn

from miram import kinds
from miram.models.attention.blocks import recompute_blocks
from miram.models.encoder import Encoder
from miram.models.export import load_encoder


def build_pretrainer(
    objective: str, *, side: int, encoder: dict, encoder_init: str | None, recompute: bool, **values: object
) -> nn.Module:
    """Build the model of an objective; its `.encoder` is what fine-tuning starts from.

    `encoder` holds patch, channels, width, depth, heads, mlp_ratio. `encoder_init`: a file whose weights the encoder
    starts from, or None. `values` hold at least what the objective reads, see `miram.kinds.Objective`. With
    `recompute`, a block keeps its input alone and works again in the backward pass: less memory, more time, the same
    numbers. Raises ValueError on an unknown objective, MiramError on a file that does not fit.
    """
    if objective not in kinds.OBJECTIVES:
        raise ValueError(f"objective {objective!r}: one of {', '.join(kinds.OBJECTIVES)}")
    entry = kinds.OBJECTIVES[objective]
    network = Encoder(side=side, **encoder, drop_path=0.0)
    if encoder_init:
        load_encoder(network, Path(encoder_init))
    model = kinds.load(entry.build)(network, **{name: values[name] for name in entry.values})
    if recompute:
        recompute_blocks(model)
    return model
