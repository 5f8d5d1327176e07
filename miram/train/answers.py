"""What a classifier answers about lesions.

Shapes: N lesions, C classes; logits and probabilities (N, C) float32.
"""

import numpy as np
import torch
from torch import Tensor, nn

from miram.errors import MiramError
from miram.models.timm_encoder import encoder_of
from miram.train.augment import to_images
from miram.train.classifiers import Split

EVALUATION_BATCH = 64  # images; decides memory, not results


@torch.no_grad()
def outputs(model: nn.Module, views: np.ndarray) -> Tensor:
    """What a network gives for unaugmented views (N, side, side) uint8: (N, …) on the CPU."""
    model.eval()
    device, channels = next(model.parameters()).device, encoder_of(model).channels
    parts = torch.from_numpy(views).split(EVALUATION_BATCH)
    return torch.cat([model(to_images(part.to(device), channels)).cpu() for part in parts])


def evaluated(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, C) of a split's unaugmented views, on the CPU. Raises MiramError if one is not finite."""
    logits = outputs(model, split.views).float()
    if not logits.isfinite().all():
        lesion = split.lesions["lesion_id"][int((~logits.isfinite()).any(1).nonzero()[0])]
        raise MiramError(
            f"The classifier's output for lesion {lesion} is not finite.",
            "Lower finetune.lr, or use precision 32-true.",
        )
    return logits


def probabilities(logits: Tensor, multi_label: bool) -> np.ndarray:
    """Logits (N, C) as probabilities: independent per class (`multi_label`), or of sum 1."""
    return (logits.sigmoid() if multi_label else logits.softmax(1)).numpy()
