"""From the name of an objective to the model that is pre-trained."""

from torch import nn

from miram.models.encoder import Encoder
from miram.models.mae import MAE
from miram.models.miram import MIRAM
from miram.models.mocov3 import MoCoV3


def build_pretrainer(
    objective: str,
    *,
    side: int,
    patch: int,
    channels: int,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    decoder: dict,
    attention: str | None = None,
    backend: str | None = None,
    options: dict | None = None,
    scale: int,
    target: str,
    loss_on: str,
    mask_ratio: float,
    moco: dict,
) -> nn.Module:
    """Build the model of an objective; its `.encoder` is what fine-tuning starts from.

    `decoder` holds width, depth, heads, mlp_ratio; `moco` holds projector_width, projector_out, temperature, and may
    hold more. `attention`, `backend` and `options` concern "miram" alone. Raises ValueError on an unknown objective.
    """
    encoder = Encoder(
        side=side,
        patch=patch,
        channels=channels,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        drop_path=0.0,
    )
    masked = {"decoder": decoder, "mask_ratio": mask_ratio, "loss_on": loss_on}
    objectives = {
        "mae": lambda: MAE(encoder, **masked),
        "miram": lambda: MIRAM(
            encoder, **masked, attention=attention, backend=backend, options=options or {}, scale=scale, target=target
        ),
        "mocov3": lambda: MoCoV3(
            encoder, **{key: moco[key] for key in ("projector_width", "projector_out", "temperature")}
        ),
    }
    if objective not in objectives:
        raise ValueError(f"objective {objective!r}: one of {', '.join(objectives)}")
    return objectives[objective]()
