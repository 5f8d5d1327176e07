"""Views of many crops at once on a device, with the arithmetic of PIL: equal to `augment.render` up to rounding.

One px in 1,000 differs, mostly by one grey level. Only float32 is used, as float64 is slow on most GPUs.

Shapes: n views (n, side, side) float32 that hold whole grey levels 0..255, from crops (rows, columns) uint8 of any
sizes. Like PIL, each pass over rows or columns ends in whole grey levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from miram.train.augment import SOLARISE_THRESHOLD, Draw

BOXES_AT_ONCE = 32  # padded to the largest of them; affects memory, not results
TF32_UNIT = 2**10
BLUR_PASSES = 3  # box blurs that PIL makes a Gaussian of


def render_batch(crops: Sequence[Tensor], side: int, draws: Sequence[Draw]) -> Tensor:
    """The views (n, side, side) uint8 that `draws` make of `crops`, one each."""
    boxes = [
        crop[top : top + height, left : left + width]
        for crop, (top, left, height, width) in zip(crops, (draw.box for draw in draws), strict=True)
    ]
    device = crops[0].device
    views = _resize(boxes, side)
    for jitters in zip(*(draw.jitters for draw in draws), strict=True):
        contrasts, factors = (_per_view(values, device) for values in zip(*jitters, strict=True))
        views = _jitter(views, contrasts, factors)
    if any(draw.blur_sigma for draw in draws):
        views = _blur(views, _per_view([draw.blur_sigma for draw in draws], device))
    solarised = _per_view([draw.solarised for draw in draws], device).bool() & (views >= SOLARISE_THRESHOLD)
    views = torch.where(solarised, 255 - views, views)
    flipped = _per_view([draw.flipped for draw in draws], device).bool()
    return torch.where(flipped, views.flip(-1), views).to(torch.uint8)


def _per_view(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)


def _resize(boxes: Sequence[Tensor], side: int) -> Tensor:
    """Bicubic, antialiased; boxes of similar size are processed together."""
    views = torch.empty(len(boxes), side, side, device=boxes[0].device)
    order = sorted(range(len(boxes)), key=lambda i: max(boxes[i].shape))
    for first in range(0, len(order), BOXES_AT_ONCE):
        chosen = order[first : first + BOXES_AT_ONCE]
        heights, widths = zip(*(boxes[i].shape for i in chosen), strict=True)
        rows, columns = max(heights), max(widths)
        padded = [pad(boxes[i], (0, columns - boxes[i].shape[1], 0, rows - boxes[i].shape[0])) for i in chosen]
        wide = _product(torch.stack(padded).float(), _bicubic(widths, side, views.device))
        views[chosen] = _product(wide.mT, _bicubic(heights, side, views.device)).mT
    return views


def _product(levels: Tensor, weights: Tensor) -> Tensor:
    """The rounded products (n, rows, side) of whole grey levels (n, rows, length) and weights (n, side, length).

    They are those of full float32 where a training takes TF32 as well: its 10 bits hold a grey level, and a weight in
    two parts. `full_float32` would reach the training, in another thread, too.
    """
    coarse = (weights * TF32_UNIT).round() / TF32_UNIT
    return _rounded(levels @ coarse.mT + levels @ (weights - coarse).mT)


def _bicubic(lengths: Sequence[int], side: int, device: torch.device) -> Tensor:
    """Weights (n, side, longest) of `lengths` px in each of `side` px: the cubic with a = -1/2, widened to shrink."""
    length = torch.tensor(lengths, dtype=torch.float32, device=device)[:, None, None]
    scale = length / side
    places = torch.arange(max(lengths), device=device)
    centres = (torch.arange(side, device=device)[:, None] + 0.5) * scale
    x = ((places + 0.5 - centres) / scale.clamp(min=1.0)).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, far) * ((x < 2) & (places < length))
    return weights / weights.sum(-1, keepdim=True)


def _jitter(views: Tensor, contrasts: Tensor, factors: Tensor) -> Tensor:
    """Away from black, or (`contrasts` 1) from the view's mean, by a factor."""
    base = contrasts * (views.mean((1, 2), keepdim=True, dtype=torch.float64) + 0.5).floor().float()
    return (base + factors * (views - base)).clamp(0, 255).floor()


def _blur(views: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur as passes of a box of fractional radius (Gwosdek et al. 2011), the border px repeated."""
    variances = sigmas.double().square() / BLUR_PASSES
    whole = (((12 * variances + 1).sqrt() - 1) / 2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variances) / (6 * (variances - (whole + 1).square()))
    inner = 1 / (2 * (whole + part) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2
    reach, places = int(whole.max()) + 1, torch.arange(views.shape[-1], device=views.device)
    for _ in ("rows", "columns"):
        for _ in range(BLUR_PASSES):
            total = torch.zeros_like(views)
            for shift in range(-reach, reach + 1):
                weights = torch.where(whole >= abs(shift), inner, outer) * (whole + 1 >= abs(shift))
                total += weights.float() * views[..., (places + shift).clamp(0, len(places) - 1)]
            views = _rounded(total)
        views = views.mT
    return views
