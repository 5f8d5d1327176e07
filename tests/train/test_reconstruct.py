import numpy as np
import pytest
import torch
from torch import nn

from miram.models.mae import MaskedOutput
from miram.models.patches import patchify
from miram.train.augment import resize, to_images
from miram.train.reconstruct import reconstruct
from miram.train.store import Store


class Oracle(nn.Module):
    """Predicts what it has been told, and removes every patch but the first."""

    def __init__(self, lowres, highres):
        super().__init__()
        self.device_of = nn.Parameter(torch.zeros(1))
        self.lowres, self.highres = (self.normalised(images) for images in (lowres, highres))

    @staticmethod
    def normalised(images):
        patches = patchify(to_images(torch.from_numpy(images), 1), 8)
        return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()

    def forward(self, images, noise, native=None):
        mask = torch.ones_like(noise)
        mask[:, 0] = 0
        return MaskedOutput(torch.zeros(()), self.lowres, self.highres, mask)


@pytest.mark.parametrize("target", ["upsampled", "native"])
def test_a_perfect_prediction_gives_back_the_images(target, recipe_of, store_paths):
    store = Store(*store_paths)
    recipe = recipe_of("native", highres={"scale": 2, "target": target})
    if target == "native":
        high = np.stack([resize(store[place], 64) for place in (3, 7)])
        low = high.reshape(2, 32, 2, 32, 2).mean((2, 4)).round().astype(np.uint8)
    else:
        low = np.stack([resize(store[place], 32) for place in (3, 7)])
        high = low.repeat(2, 1).repeat(2, 2)
    figures = reconstruct(Oracle(low, high), store, [3, 7], recipe)
    for name, expected in {"input": low, "lowres": low, "highres": high, "target_highres": high}.items():
        assert np.abs(figures[name].astype(int) - expected).max() <= 1, name
    assert np.array_equal(figures["masked"][:, :8, :8], figures["input"][:, :8, :8])
    assert len(np.unique(figures["masked"][:, 8:])) == 1
