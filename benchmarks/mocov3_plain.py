"""MoCo-v3's step in its straightforward form, which the one that is trained is compared with."""

import torch
from torch import Tensor
from torch.nn import functional

from miram.models.mocov3 import MoCoV3


def straightforward_loss(model: MoCoV3, first: Tensor, second: Tensor, momentum: float) -> Tensor:
    """Two encoder passes a side, the whole last block, one parameter of the moving average at a time.

    `first`, `second`: images (B, C, side, side). The loss of facebookresearch/moco-v3, symmetrised, times 2·T.
    """

    def query(images: Tensor) -> Tensor:
        return model.predictor(model.projector(model.encoder(images)[:, 0]))

    def contrast(queries: Tensor, keys: Tensor) -> Tensor:
        logits = functional.normalize(queries) @ functional.normalize(keys).T / model.temperature
        labels = torch.arange(len(queries), device=queries.device)
        return functional.cross_entropy(logits, labels) * 2 * model.temperature

    queries = [query(first), query(second)]
    with torch.no_grad():
        for trained, slow in ((model.encoder, model.key_encoder), (model.projector, model.key_projector)):
            for parameter, average in zip(trained.parameters(), slow.parameters(), strict=True):
                average.copy_(average * momentum + parameter * (1 - momentum))
        keys = [model.key_projector(model.key_encoder(images)[:, 0]) for images in (first, second)]
    return contrast(queries[0], keys[1]) + contrast(queries[1], keys[0])
