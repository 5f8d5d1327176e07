"""The masked autoencoder, and the parts that MIRAM shares with it.

Shapes: B images, L patches of P values, K of them kept, D = width of the encoder, E = width of the decoder.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from miram.models.blocks import NORM_EPS, init_linear, transformer_blocks
from miram.models.encoder import Encoder
from miram.models.patches import patch_errors, random_masking, take
from miram.models.positions import sincos_2d
from miram.recipe import Decoder

LOSS_ON = ("removed", "all")


class MaskedOutput(NamedTuple):
    """Loss and reconstruction of a masked batch; predictions are patches of normalised pixels."""

    loss: Tensor  # ()
    lowres_pred: Tensor  # (B, L, P)
    highres_pred: Tensor | None  # (B, scale²·L, P), MIRAM only
    mask: Tensor  # (B, L), 0 kept, 1 removed


class PatchDecoder(nn.Module):
    """Positions, an attention stack, a norm, and the projection to pixels, on a grid of N patches."""

    pos_embed: Tensor

    def __init__(self, stack: nn.Module, *, width: int, grid: int, values: int) -> None:
        super().__init__()
        self.register_buffer("pos_embed", sincos_2d(width, grid)[None])
        self.stack = stack
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.pred = nn.Linear(width, values)
        init_linear(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, 1 + N, E) to patches (B, N, P)."""
        return self.pred(self.norm(self.stack(tokens + self.pos_embed))[:, 1:])


class MAE(nn.Module):
    """Masked autoencoder (He et al. 2022; facebookresearch/mae): reconstruct the removed patches from the kept ones.

    `loss_on` names the patches in the loss, "removed" or "all"; ValueError for another word.
    """

    def __init__(self, encoder: Encoder, *, decoder: Decoder, mask_ratio: float, loss_on: str) -> None:
        super().__init__()
        if loss_on not in LOSS_ON:
            raise ValueError(f"loss_on {loss_on!r}: one of {', '.join(LOSS_ON)}")
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio {mask_ratio}: above 0 and below 1")
        self.mask_ratio, self.loss_on = mask_ratio, loss_on
        self.encoder = encoder
        self.decoder_embed = nn.Linear(encoder.width, decoder.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.lowres = PatchDecoder(
            transformer_blocks(decoder.width, decoder.depth, decoder.heads, decoder.mlp_ratio, drop_path=0.0),
            width=decoder.width,
            grid=encoder.grid,
            values=encoder.patch**2 * encoder.channels,
        )
        init_linear(self.decoder_embed)
        nn.init.normal_(self.mask_token, std=0.02)

    def decoder_tokens(self, patches: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the kept patches and insert mask tokens: (B, 1 + L, E) without positions; mask (B, L)."""
        kept, restore, mask = random_masking(noise, self.mask_ratio)
        tokens = self.decoder_embed(self.encoder.encode(take(patches, kept), kept))
        removed = self.mask_token.to(tokens.dtype).expand(len(tokens), noise.shape[1] - kept.shape[1], -1)
        patch_tokens = take(torch.cat([tokens[:, 1:], removed], dim=1), restore)
        return torch.cat([tokens[:, :1], patch_tokens], dim=1), mask

    def lowres_step(self, patches: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and prediction (B, L, P) at the input's own resolution."""
        predicted = self.lowres(tokens)
        errors = patch_errors(predicted, patches, self.encoder.channels)
        loss = (errors * mask).sum() / mask.sum() if self.loss_on == "removed" else errors.mean()
        return loss, predicted

    def forward(self, images: Tensor, noise: Tensor) -> MaskedOutput:
        """Images (B, C, side, side), and uniform noise (B, L) that decides which patches are removed."""
        patches = self.encoder.patchify(images)
        tokens, mask = self.decoder_tokens(patches, noise)
        loss, predicted = self.lowres_step(patches, tokens, mask)
        return MaskedOutput(loss, predicted, None, mask)
