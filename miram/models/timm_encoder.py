"""An encoder of timm's, by its name, and the encoders that a classifier may have.

Shapes: B images (B, 3, side, side), D = width.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from miram.errors import MiramError
from miram.models._timm import create_model, get_pretrained_cfg, group_parameters, is_model
from miram.models.encoder import Encoder
from miram.recipe import IMAGENET_MEAN, IMAGENET_STD

CHANNELS = 3


class TimmEncoder(nn.Module):
    """A network of timm without its head, with random weights: nothing is downloaded.

    It takes images as ours do, grey repeated and normalised by ImageNet's statistics, and normalises them again by its
    own, those of timm's pretrained_cfg. A network of a fixed side, such as a ViT, is built for `side`. Without patches
    its `grid` is that of its last feature map. Raises MiramError for a name that timm does not have, and for a side
    that the network cannot take.
    """

    def __init__(self, *, timm: str, side: int, drop_path: float) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"timm": timm, "side": side}
        self.side, self.channels = side, CHANNELS
        self.network = _network(timm, side, drop_path)
        told, stride = self.network.pretrained_cfg, self.network.feature_info[-1]["reduction"]
        self.grid = math.ceil(side / stride)
        given = zip(IMAGENET_MEAN, IMAGENET_STD, told["mean"], told["std"], strict=True)
        scale = [(of_ours / own, (mean - own_mean) / own) for mean, of_ours, own_mean, own in given]
        for name, values in zip(("gain", "shift"), zip(*scale, strict=True), strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.width = self._width(told["input_size"], stride, fixed=told.get("fixed_input_size", False))

    def _width(self, own: tuple[int, int, int], stride: int, *, fixed: bool) -> int:
        """The number of features, by one image without content."""
        what = f"timm's {self.architecture['timm']}"
        remedy = f"Set its `side` under `encoders`; {own[1]} px is its own."
        if own[0] != CHANNELS:
            raise MiramError(f"{what} takes {own[0]} channels; crops are given in {CHANNELS}.", "Name another network.")
        if self.side % stride if fixed else self.grid < 2:
            rule = "not a multiple of" if fixed else "not more than"
            raise MiramError(f"{what}: side {self.side} px is {rule} its stride, {stride} px.", remedy)
        try:
            with torch.no_grad():
                return self.eval()(torch.zeros(1, CHANNELS, self.side, self.side)).shape[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            raise MiramError(f"{what} takes no image of {self.side} px: {error}", remedy) from error
        finally:
            self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Images -> features (B, D), those that timm's own head reads."""
        return self.network(torch.addcmul(self.get_buffer("shift"), images, self.get_buffer("gain")))

    def layers(self) -> dict[str, int]:
        """Trained parameter -> its layer, from 0 for the lowest, as timm groups them."""
        groups = group_parameters(self.network, self.network.group_matcher(coarse=False), reverse=True)
        return {f"network.{name}": layer for name, layer in groups.items()}


def _network(name: str, side: int, drop_path: float) -> Any:
    """A network of timm without a head, with stochastic depth where it has that."""
    if not is_model(name.partition(".")[0]):
        raise MiramError(f"timm has no network {name}.", "`timm.list_models()` has the names; correct `encoders`.")
    try:
        fixed = getattr(get_pretrained_cfg(name), "fixed_input_size", False)
        sized: dict[str, Any] = {"img_size": side} if fixed else {}
        try:
            return create_model(name, num_classes=0, drop_path_rate=drop_path, **sized)
        except TypeError:
            return create_model(name, num_classes=0, **sized)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise MiramError(
            f"timm cannot build {name} for side {side}: {error}", "Correct `timm` or `side` under `encoders`."
        ) from error


AnyEncoder = Encoder | TimmEncoder


def encoder_from(architecture: Mapping[str, Any], drop_path: float) -> AnyEncoder:
    """The encoder of an `architecture`, plain values by name, drawn from torch's generator."""
    kind = TimmEncoder if "timm" in architecture else Encoder
    return kind(**architecture, drop_path=drop_path)


def encoder_of(model: nn.Module) -> AnyEncoder:
    """The encoder of a model that has one, also through Fabric's wrapper, whose attributes have no types."""
    return cast(AnyEncoder, model.encoder)
