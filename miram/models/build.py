"""From the name of an objective to the model that is pre-trained."""

from torch import nn

from miram.models.attention.blocks import recompute_blocks
from miram.models.encoder import Encoder
from miram.models.mae import MAE
from miram.models.miram import MIRAM
from miram.models.mocov3 import MoCoV3


def build_pretrainer(
    objective: str,
    *,
    side: int,
    encoder: dict,
    decoder: dict,
    attention: str | None = None,
    backend: str | None = None,
    options: dict | None = None,
    scale: int,
    target: str,
    loss_on: str,
    mask_ratio: float,
    moco: dict,
    recompute: bool,
) -> nn.Module:
    """Build the model of an objective; its `.encoder` is what fine-tuning starts from.

    `encoder` holds patch, channels, width, depth, heads, mlp_ratio; `decoder` the last four; `moco` holds
    projector_width, projector_out, temperature, and may hold more. `attention`, `backend` and `options` concern
    "miram" alone. With `recompute`, a block keeps its input alone and works again in the backward pass: less memory,
    more time, the same numbers. Raises ValueError on an unknown objective.
    """
    network = Encoder(side=side, **encoder, drop_path=0.0)
    masked = {"decoder": decoder, "mask_ratio": mask_ratio, "loss_on": loss_on}
    objectives = {
        "mae": lambda: MAE(network, **masked),
        "miram": lambda: MIRAM(
            network, **masked, attention=attention, backend=backend, options=options or {}, scale=scale, target=target
        ),
        "mocov3": lambda: MoCoV3(
            network, **{key: moco[key] for key in ("projector_width", "projector_out", "temperature")}
        ),
    }
    if objective not in objectives:
        raise ValueError(f"objective {objective!r}: one of {', '.join(objectives)}")
    model = objectives[objective]()
    if recompute:
        recompute_blocks(model)
    return model
