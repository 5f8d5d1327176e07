"""What the numbers of the comparison mean, in words."""

from collections.abc import Sequence


def about(confidence: float, specificity: float, positive: Sequence[str] | None, reach: str) -> str:
    """What the numbers of the table mean; `reach`: see `pretrainings.extent`."""
    if positive is None:
        sensitivity = (
            f"sensitivity is that of malignancy, or the mean of the classes', at a specificity of {specificity:.0%}"
        )
    elif positive:
        sensitivity = f"sensitivity is that of {' or '.join(positive)}, at a specificity of {specificity:.0%}"
    else:
        sensitivity = "sensitivity is not measured, as sources.images.positive names no class"
    return (
        f"All is measured on the test split: the mean over the seeds, in brackets its {confidence:.0%} interval "
        "for other patients, and ± the sample standard deviation over the seeds, which tells what another fine-tuning "
        f"would change. {reach} A frozen encoder has one seed a pre-training. AP is average "
        "precision, AUC the area under the ROC curve, each class against the rest; macro is the mean over classes, "
        "micro counts all pairs of lesion and class. Balanced accuracy is the mean recall of the classes; "
        f"{sensitivity}; "
        "ECE is the expected calibration error and Brier the mean squared error of the probabilities: the lower "
        "the better. How methods differ: differences.csv."
        + ("" if positive is not None else " What follows for the paper's claims: claims.md.")
    )
