"""MoCo-v3: two augmented views of an image should have features closer to each other than to those of other images.

Shapes: B images, D = width of the encoder, F = features that are compared; W processes.
"""

from copy import deepcopy
from itertools import chain, pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from miram.models.attention.blocks import recompute
from miram.models.encoder import Encoder
from miram.models.float32 import FullProduct, at_least_float32
from miram.recipe import Moco

M = TypeVar("M", bound=nn.Module)


class ContrastiveOutput(NamedTuple):
    """Loss, and the spread of the features: 0 if all images get the same (collapse), 1 where they fill a sphere."""

    loss: Tensor  # ()
    feature_std: Tensor  # (), standard deviation over the batch of the unit-length class tokens, times √D


def mlp(layers: int, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear layers without bias, each with BatchNorm, ReLU between them; the last BatchNorm has no scale and shift."""
    widths = [inputs, *[hidden] * (layers - 1), outputs]
    parts: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths), start=1):
        parts.append(nn.Linear(before, after, bias=False))
        parts += [nn.BatchNorm1d(after), nn.ReLU()] if index < layers else [nn.BatchNorm1d(after, affine=False)]
    return nn.Sequential(*parts)


class MoCoV3(nn.Module):
    """MoCo-v3 on a ViT with a frozen patch projection (Chen et al. 2021; facebookresearch/moco-v3).

    Departures from the reference: the encoder is initialised like that of the masked methods (the reference draws
    query, key and value separately and the class token with 1e-6), and its positions are MAE's. Biases and norms have
    no weight decay, as in the masked methods; the reference decays every parameter.

    The encoder sees a batch in `accumulate` parts, heads and loss see it whole. With several parts the activations of
    only one exist at a time, as each is encoded again in the backward pass, from the gradients of its features
    (GradCache, Gao et al. 2021). Only rounding changes: nothing in this encoder is random or looks at other images.
    """

    def __init__(
        self, encoder: Encoder, *, projector_width: int, projector_out: int, temperature: float, accumulate: int
    ) -> None:
        super().__init__()
        self.temperature, self.accumulate = temperature, accumulate
        self.encoder = encoder
        self.encoder.patch_embed.requires_grad_(False)
        self.projector = mlp(3, encoder.width, projector_width, projector_out)
        self.predictor = mlp(2, projector_out, projector_width, projector_out)
        self.key_encoder, self.key_projector = _copy(self.encoder), _copy(self.projector)

    @torch.no_grad()
    def update_keys(self, momentum: float) -> None:
        """Move the key encoder towards the trained one: key ← momentum·key + (1 - momentum)·query."""
        keys = list(chain(self.key_encoder.parameters(), self.key_projector.parameters()))
        queries = list(chain(self.encoder.parameters(), self.projector.parameters()))
        get_ema_multi_avg_fn(momentum)(keys, queries, None)

    def forward(self, first: Tensor, second: Tensor, momentum: float) -> ContrastiveOutput:
        """Two views (B, C, side, side) of the same images; the key encoder is updated before it computes the keys."""
        views = torch.cat([first, second])  # one pass; only BatchNorm must see the views separately
        features = self._encoded(self.encoder, views)
        queries = [self.predictor(self.projector(view)) for view in features.chunk(2)]
        with torch.no_grad():
            self.update_keys(momentum)
            keys = [self.key_projector(view) for view in self._encoded(self.key_encoder, views).chunk(2)]
        loss = self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])
        return ContrastiveOutput(loss, _spread(features.detach().chunk(2)[0]))

    def _encoded(self, encoder: Encoder, views: Tensor) -> Tensor:
        """Class tokens (2B, D) of all views."""
        if self.accumulate == 1:
            return encoder.class_features(views)
        return torch.cat([recompute(encoder.class_features, part) for part in views.chunk(self.accumulate)])

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """2T x cross-entropy of each query (B, F) finding its own key among those of all processes, by cosine / T."""
        candidates = _gather(F.normalize(at_least_float32(keys), dim=1))
        logits = FullProduct.apply(F.normalize(at_least_float32(queries), dim=1), candidates.mT) / self.temperature
        own = torch.arange(len(queries), device=queries.device)
        if distributed.is_initialized():
            own += distributed.get_rank() * len(queries)
        return 2 * self.temperature * F.cross_entropy(logits, own)


def build(encoder: Encoder, *, moco: Moco, accumulate: int) -> MoCoV3:
    """Return the model of the objective `mocov3`; the rest of `moco` concerns its views."""
    return MoCoV3(
        encoder,
        projector_width=moco.projector_width,
        projector_out=moco.projector_out,
        temperature=moco.temperature,
        accumulate=accumulate,
    )


def _copy(module: M) -> M:
    """A copy that is not trained; its tensors are cloned, as torch cannot deepcopy the fake ones of `miram fit`."""
    tensors: dict[int, Tensor] = {
        id(p): nn.Parameter(p.detach().clone(), requires_grad=False) for p in module.parameters()
    }
    tensors |= {id(buffer): buffer.clone() for buffer in module.buffers()}
    return deepcopy(module, tensors)


def _gather(keys: Tensor) -> Tensor:
    """The keys of all processes in the order of their ranks, (B, F) -> (W·B, F), without gradient."""
    if not distributed.is_initialized():
        return keys
    gathered = keys.new_empty(distributed.get_world_size() * len(keys), keys.shape[1])
    distributed.all_gather_into_tensor(gathered, keys.contiguous())
    return gathered


def _spread(features: Tensor) -> Tensor:
    """Standard deviation over the batch of unit-length features (B, D), averaged over them, times √D.

    Taken before the projector: its last BatchNorm would hide a collapse.
    """
    return F.normalize(features.float(), dim=1).std(dim=0, correction=0).mean() * features.shape[1] ** 0.5
