"""The only module that imports timm, and what miram uses of it.

timm imports torchvision, which registers fake kernels for its compiled operators. The registry has no CPU build of
torchvision: with a CPU build of torch its compiled extension does not load, the operators' schemas are missing, and
the import fails. Declaring the two missing schemas is enough; nothing here calls the operators.
"""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _extension_loads() -> bool:
    """Try torchvision's compiled extension, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    files = sorted(Path(spec.origin).parent.glob("_C*.so")) if spec and spec.origin else []
    try:
        for file in files:
            torch.ops.load_library(file)
    except OSError:
        return False
    return bool(files)


if not _extension_loads():
    _schemas = torch.library.Library("torchvision", "DEF")  # kept: the schemas exist as long as this object
    for _name in ("nms", "qnms"):
        _schemas.define(_name + _SIGNATURE)

from timm import create_model, get_pretrained_cfg, is_model  # noqa: E402
from timm.layers import resample_abs_pos_embed  # noqa: E402
from timm.models import group_parameters  # noqa: E402
from timm.models.vision_transformer import Attention, Block  # noqa: E402

__all__ = [
    "Attention",
    "Block",
    "create_model",
    "get_pretrained_cfg",
    "group_parameters",
    "is_model",
    "renamed",
    "resample_abs_pos_embed",
]


def renamed(state: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """Weights as their authors name them, by the names of timm's `network`, with positions resampled to its grid."""
    own = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return own(dict(state), network) if own else state
