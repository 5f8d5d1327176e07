"""A recipe by the values that build its model."""

from plain_values import of_values

from miram.recipe import Recipe

TRAINING = {
    **{"seed": 0, "batch": 4, "accumulate": 1, "epochs": 1, "warmup_epochs": 0, "lr_per_256": 0.1},
    **{"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.95, "crop_scale_min": 0.5, "precision": "32-true"},
    **{"compile": False, "recompute": False, "encoder_init": None},
}
VIEWS = {
    **{"momentum": 0.9, "jitter_brightness": 0.4, "jitter_contrast": 0.4, "jitter_probability": 0.8},
    **{"blur_sigma_min": 0.1, "blur_sigma_max": 2.0},
    **{"blur_probabilities": [1.0, 0.1], "solarise_probabilities": [0.0, 0.2]},
}


def recipe(objective: str, **values) -> Recipe:
    """The recipe of so many values, with some training; of `moco` the three that build the model are enough."""
    moco = values.pop("moco", None)
    return of_values(Recipe, {**TRAINING, "objective": objective, **values, "moco": moco and {**VIEWS, **moco}})
