"""A classifier on a pre-trained encoder."""

from torch import Tensor, nn

from miram.models.blocks import NORM_EPS
from miram.models.encoder import Encoder

POOLS = ("mean", "class")


class Classifier(nn.Module):
    """Encoder, pooled tokens, linear head.

    `pool` "mean": mean of the patch tokens, then a LayerNorm of its own, which replaces the encoder's (MAE's
    fine-tuning); "class": the class token after the encoder's norm (MoCo-v3's). Takes the encoder over and changes it.
    Raises ValueError on another pool.
    """

    def __init__(self, encoder: Encoder, *, classes: int, pool: str, head_init_std: float) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool {pool!r}: one of {', '.join(POOLS)}")
        self.pool = pool
        self.encoder = encoder
        if pool == "mean":
            self.encoder.norm = nn.Identity()
            self.norm = nn.LayerNorm(encoder.width, eps=NORM_EPS)
        self.head = nn.Linear(encoder.width, classes)
        nn.init.normal_(self.head.weight, std=head_init_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, side, side) -> logits (B, classes)."""
        if self.pool == "class":
            return self.head(self.encoder.class_features(images))
        return self.head(self.norm(self.encoder(images)[:, 1:].mean(dim=1)))
