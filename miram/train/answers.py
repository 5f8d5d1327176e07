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


def _logits(model: nn.Module, views: Tensor) -> Tensor:
    return model(to_images(views, encoder_of(model).channels)).float()


@torch.no_grad()
def evaluated(model: nn.Module, split: Split) -> Tensor:
    """Logits (N, C) of a split's unaugmented views, on the CPU. Raises MiramError if one is not finite."""
    model.eval()
    device = next(model.parameters()).device
    views = torch.from_numpy(split.views).split(EVALUATION_BATCH)
    logits = torch.cat([_logits(model, part.to(device)).cpu() for part in views])
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
