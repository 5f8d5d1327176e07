"""What the numbers of the comparison are called and mean, in words, and which columns show them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from miram.layout import FINETUNE

METRICS = {  # metric -> heading, meaning; in the order of the columns
    "accuracy": ("accuracy", "share of lesions whose answer is right"),
    "balanced_accuracy": (
        "balanced acc.",
        "mean recall of the classes; where a lesion may have several, mean of (sensitivity + specificity) / 2",
    ),
    "macro_auc": ("macro AUC", "area under the ROC curve, mean over classes"),
    "micro_auc": ("micro AUC", "area under the ROC curve, over all pairs of lesion and class"),
    "macro_ap": ("macro AP", "average precision, mean over classes"),
    "micro_ap": ("micro AP", "average precision, over all pairs of lesion and class"),
    "sensitivity": ("sensitivity", "share found at the specificity that params.yaml fixes: {}"),
    "ece": ("calibration error", "how far confidence and share of right answers lie apart; lower is better"),
    "brier": ("Brier score", "mean squared error of the probabilities; lower is better"),
}
MAIN = ("accuracy", "macro_auc")  # metrics that have a figure
MODES = {
    FINETUNE: "fine-tuning of the whole network",
    "linear": "linear probe on frozen features",
    "knn": "nearest neighbours among frozen features",
}
EFFORTS = {  # heading -> column of comparison.csv, how many make one of what is shown, format
    **{"side, px": ("side", 1, ".0f"), "batch": ("pretrain_batch", 1, ".0f")},
    **{"optimiser steps": ("pretrain_steps", 1, ".0f"), "images seen, M": ("pretrain_images", 1e6, ".3g")},
    "pre-training, PFLOP": ("pretrain_flops", 1e15, ".3g"),
    "one fine-tuning, PFLOP": ("finetune_flops", 1e15, ".3g"),
    "parameters, M": ("pretrain_parameters", 1e6, ".2f"),
}
NOTHING = "-"
MALIGNANCY = "of malignancy, or the mean of the classes'"


def headings(positive: Sequence[str] | None) -> dict[str, tuple[str, str]]:
    """METRICS, where sensitivity is that of the positive classes, or left out where there is none."""
    of_what = MALIGNANCY if positive is None else f"of class {' or '.join(positive)}"
    told = {metric: (heading, meaning.format(of_what)) for metric, (heading, meaning) in METRICS.items()}
    return {metric: heads for metric, heads in told.items() if metric != "sensitivity" or positive is None or positive}


def formatted(value: float | str | None, form: str) -> str:
    """A value in a format; NOTHING where there is none."""
    return NOTHING if pd.isna(value) else format(value, form)


def efforts(row: Mapping[Hashable, Any] | pd.Series) -> dict[str, str]:
    """What the trainings of a row of comparison.csv see and compute."""
    return {heading: formatted(row[column] / unit, form) for heading, (column, unit, form) in EFFORTS.items()}


def about(confidence: float, specificity: float, positive: Sequence[str] | None, reach: str) -> str:
    """What the numbers of the table mean; `reach`: see `pretrainings.extent`."""
    if positive is None:
        sensitivity = f"sensitivity is that {MALIGNANCY}, at a specificity of {specificity:.0%}"
    elif positive:
        sensitivity = f"sensitivity is that of {' or '.join(positive)}, at a specificity of {specificity:.0%}"
    else:
        sensitivity = "sensitivity is not measured, as sources.images.positive names no class"
    return (
        f"All is measured on the test split: the mean over the seeds, in brackets its {confidence:.0%} interval "
        "for other patients, and ± the sample standard deviation over the seeds: what another training would change; "
        f"variance.csv tells it by source. {reach} A frozen encoder has one seed a pre-training. AP is average "
        "precision, AUC the area under the ROC curve, each class against the rest; macro is the mean over classes, "
        "micro counts all pairs of lesion and class. Balanced accuracy is the mean recall of the classes or, where "
        "a lesion may have several, the mean of (sensitivity + specificity) / 2; "
        f"{sensitivity}; "
        "the calibration error is the expected one (ECE), the Brier score the mean squared error of the probabilities: "
        "the lower the better. How methods differ: differences.csv."
        + ("" if positive is not None else " What follows for the paper's claims: claims.md.")
    )
