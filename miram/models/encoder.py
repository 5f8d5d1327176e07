"""The Vision Transformer that every method pre-trains.

Shapes: B images (B, C, side, side), L patches of P values, K of them kept, D = width. Parameters carry timm's names, so
that the state loads into `timm.create_model("vit_…", num_classes=0)` and back.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miram.models._timm import Attention, Block
from miram.models.blocks import NORM_EPS, init_linear, transformer_blocks
from miram.models.patches import grid_of, patchify
from miram.models.positions import sincos_2d


class PatchEmbedding(nn.Module):
    """Linear embedding of patches; its weight has the shape of the equivalent convolution, as in timm."""

    def __init__(self, patch: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))

    def forward(self, patches: Tensor) -> Tensor:
        """Map (B, L, P) to (B, L, D): a product instead of a convolution, so that only kept patches are embedded."""
        return F.linear(patches, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """ViT with a class token and fixed sine-cosine positions (facebookresearch/mae, models_mae.py)."""

    pos_embed: Tensor

    def __init__(
        self,
        *,
        side: int,
        patch: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.architecture = {
            "side": side,
            "patch": patch,
            "channels": channels,
            "width": width,
            "depth": depth,
            "heads": heads,
            "mlp_ratio": mlp_ratio,
        }
        self.side, self.patch, self.channels, self.width = side, patch, channels, width
        self.grid = grid_of(side, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", sincos_2d(width, self.grid)[None].to(self.cls_token))
        self.patch_embed = PatchEmbedding(patch, channels, width)
        self.blocks = transformer_blocks(width, depth, heads, mlp_ratio, drop_path)
        self.norm: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        init_linear(self.blocks)
        nn.init.normal_(self.cls_token, std=0.02)

    def patchify(self, images: Tensor) -> Tensor:
        """Patches (B, L, P) of images; raises ValueError for other channels or another side."""
        expected = (self.channels, self.side, self.side)
        if images.shape[1:] != expected:
            raise ValueError(f"images of shape {tuple(images.shape[1:])}; this encoder takes {expected}")
        return patchify(images, self.patch)

    def embed(self, patches: Tensor, kept: Tensor | None = None) -> Tensor:
        """Class token and embedded patches (B, 1 + K, D) with positions, of patches (B, K, P).

        `kept` (B, K): their places; None: all of them.
        """
        positions = self.pos_embed[:, 1:] if kept is None else self.pos_embed[0, 1:][kept]
        tokens = self.patch_embed(patches) + positions
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        return torch.cat([class_token, tokens], dim=1)

    def encode(self, patches: Tensor, kept: Tensor | None = None) -> Tensor:
        """Normalised tokens (B, 1 + K, D) of patches (B, K, P) at the indices `kept`, or of all patches."""
        return self.norm(self.blocks(self.embed(patches, kept)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised tokens (B, 1 + L, D) of whole images, the class token first."""
        return self.encode(self.patchify(images))

    def layers(self) -> dict[str, int]:
        """Trained parameter -> its layer, from 0 for the lowest; the last norm, part of the head, has none."""
        names = [name for name, _ in self.named_parameters() if not name.startswith("norm.")]
        return {name: int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0 for name in names}

    def class_features(self, images: Tensor) -> Tensor:
        """Normalised class token (B, D), equal to `forward(images)[:, 0]`; the last block computes nothing else."""
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return self.norm(_class_token_of(last, self.blocks[:-1](self.embed(self.patchify(images)))))


def _class_token_of(block: Block, tokens: Tensor) -> Tensor:
    """A block's output for only the class token, (B, N, D) -> (B, D): one query, and the MLP of one token.

    With one query per head, H heads of width e, keys and values need no tensors: their weights are applied to the
    query and to the mixed tokens. The keys' bias adds the same to every score of the query, so softmax cancels it.
    """
    attention, normed = block.attn, block.norm1(tokens)
    assert isinstance(attention, Attention)
    apart = (3, attention.num_heads, -1)
    query_weight, key_weight, value_weight = attention.qkv.weight.unflatten(0, apart)  # (H, e, D)
    query_bias, _, value_bias = attention.qkv.bias.unflatten(0, apart)  # (H, e)
    query = torch.einsum("bd,hed->bhe", normed[:, 0], query_weight) + query_bias
    scores = torch.einsum("bhe,hed->bhd", query * attention.scale, key_weight) @ normed.mT
    mixed = torch.einsum("bhd,hed->bhe", scores.softmax(dim=-1) @ normed, value_weight) + value_bias
    token = tokens[:, 0] + block.drop_path1(attention.proj(mixed.flatten(1)))
    return token + block.drop_path2(block.mlp(block.norm2(token)))
