"""A classifier on a pre-trained encoder, and the pooled features that it classifies.

Shapes: B images (B, C, side, side), D = width.
"""

from collections.abc import Callable

from torch import Tensor, nn

from miram.models.blocks import NORM_EPS
from miram.models.encoder import Encoder
from miram.models.timm_encoder import AnyEncoder, TimmEncoder


def _mean(encoder: Encoder, images: Tensor) -> Tensor:
    return encoder(images)[:, 1:].mean(dim=1)


POOLS: dict[str, Callable[..., Tensor]] = {
    "mean": _mean,
    "class": Encoder.class_features,
    "own": TimmEncoder.__call__,
}


def pooling(pool: str) -> Callable[[AnyEncoder, Tensor], Tensor]:
    """The function from an encoder and images to features (B, D): "mean" of the patch tokens, or the "class" token.

    Both are after the encoder's norm; "own": what timm's network pools itself. Raises ValueError for another pool.
    """
    if pool not in POOLS:
        raise ValueError(f"pool {pool!r}: one of {', '.join(POOLS)}")
    return POOLS[pool]


class Classifier(nn.Module):
    """Encoder, pooled tokens, linear head.

    `pool` "mean": mean of the patch tokens, then a LayerNorm of its own, which replaces the encoder's (MAE's
    fine-tuning); "class": the class token after the encoder's norm (MoCo-v3's); "own": the features of timm's network.
    Takes over the encoder and changes it. Raises ValueError for another pool.
    """

    def __init__(self, encoder: AnyEncoder, *, classes: int, pool: str, head_init_std: float) -> None:
        super().__init__()
        self.pool, self.pooled = pool, pooling(pool)
        self.encoder = encoder
        self.norm: nn.Module = nn.Identity()
        if pool == "mean":
            self.encoder.norm = nn.Identity()
            self.norm = nn.LayerNorm(encoder.width, eps=NORM_EPS)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.normal_(self.head.weight, std=head_init_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, side, side) -> logits (B, classes)."""
        return self.head(self.norm(self.pooled(self.encoder, images)))
