"""Reconstructions of crops by a masked method, as grey images for the figure.

Shapes: n crops; L patches of P values; H = W = side px, and scale times that for MIRAM's second decoder.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from miram.models.patches import patchify, restore_pixels, unpatchify
from miram.recipe import Recipe
from miram.train.augment import resize, stream, to_grey, to_images
from miram.train.store import Store


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # a few images are not worth compiling for
def reconstruct(model: nn.Module, store: Store, places: list[int], recipe: Recipe) -> dict[str, np.ndarray]:
    """Input, masked input, and reconstruction of whole crops under a fixed mask: (n, H, W) uint8 by name.

    Predictions are converted to grey levels with mean and variance of the true patch, as in MAE's demonstration: they
    show structure, not brightness. `lowres` shows visible patches unchanged; `highres` (MIRAM) the prediction
    everywhere, with `target_highres` for comparison.
    """
    model.eval()
    device = next(model.parameters()).device
    crops = np.stack([resize(store[place], recipe.view_side) for place in places])
    noise = np.stack([stream("figure", recipe.seed, 0, place).random(recipe.patches, np.float32) for place in places])
    inputs = masked_inputs(torch.from_numpy(crops).to(device), torch.from_numpy(noise).to(device), recipe)
    output = model(*inputs)
    patch, images = recipe.encoder.patch, inputs[0]
    removed = output.mask[..., None]
    visible = patchify(images, patch)
    lowres = removed * restore_pixels(output.lowres_pred, visible) + (1 - removed) * visible
    masked = unpatchify((1 - removed) * visible, patch)
    figures = {"input": images, "masked": masked, "lowres": unpatchify(lowres, patch)}
    if output.highres_pred is not None:
        assert recipe.highres is not None
        target = inputs[2] if recipe.native_scale else interpolate(images, scale_factor=recipe.highres.scale)
        highres = restore_pixels(output.highres_pred, patchify(target, patch))
        figures |= {"highres": unpatchify(highres, patch), "target_highres": target}
    return {name: to_grey(images.float()).cpu().numpy() for name, images in figures.items()}


def masked_inputs(views: Tensor, noise: Tensor, recipe: Recipe) -> list[Tensor]:
    """The arguments of a masked model: images, noise and, for a native target, the high-resolution images.

    There the views have the higher side, and the input is their average over squares of scale px.
    """
    images = to_images(views, recipe.encoder.channels)
    return [avg_pool2d(images, recipe.native_scale), noise, images] if recipe.native_scale else [images, noise]
