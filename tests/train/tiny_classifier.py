"""A classifier as small as it gets, as a file."""

import torch

from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.models.export import save_classifier

TINY = {"patch": 4, "channels": 3, "width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
FOUR = ("BENIGN_MASS", "MALIGNANT_MASS", "BENIGN_CALC", "MALIGNANT_CALC")


SEEN = {
    "levels": "data",
    "ranges": None,
    "films": True,
    "component": "union",
    "shape": "square",
    "margin": 0.0,
    "side_min": 1,
}


def saved_classifier(path, pool="mean", multi_label=False, seen=SEEN, classes=FOUR):
    """Write one with weights drawn from a fixed seed, and give it."""
    torch.manual_seed(0)
    model = Classifier(Encoder(side=16, **TINY, drop_path=0.0), classes=4, pool=pool, head_init_std=0.5)
    told = {
        "encoder": model.encoder.architecture,
        "pool": pool,
        "classes": classes,
        "multi_label": multi_label,
    }
    save_classifier(model.state_dict(), path, seen=seen, **told)
    return model.eval()
