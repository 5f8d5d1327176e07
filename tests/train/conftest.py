"""Twelve small crops, their tables, and recipes of tiny models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plain_values import of_values

from miram.planning.memory import parts_that_fit
from miram.recipe import Recipe
from miram.train.pretrain import pretrain
from miram.train.store import pack

ENCODER = {"patch": 8, "channels": 1, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
MASKED = {
    "mask_ratio": 0.75,
    "loss_on": "removed",
    "decoder": {"width": 16, "depth": 1, "heads": 2, "mlp_ratio": 2.0},
}
MOCO = {
    "projector_width": 16,
    "projector_out": 8,
    "temperature": 0.2,
    "momentum": 0.9,
    "jitter_brightness": 0.4,
    "jitter_contrast": 0.4,
    "jitter_probability": 0.8,
    "blur_sigma_min": 0.1,
    "blur_sigma_max": 2.0,
    "blur_probabilities": [1.0, 0.1],
    "solarise_probabilities": [0.0, 0.2],
}
OBJECTIVES = {
    "mae": {"objective": "mae", **MASKED},
    "performer": {
        "objective": "miram",
        **MASKED,
        "highres": {"scale": 2, "target": "upsampled"},
        "attention": "performer",
        "backend": "fused",
        "options": {"redraw_interval": 2},
    },
    "native": {
        "objective": "miram",
        **MASKED,
        "highres": {"scale": 2, "target": "native"},
        "attention": "full",
        "options": {},
    },
    "mocov3": {"objective": "mocov3", "moco": MOCO},
    "divided": {"objective": "mocov3", "moco": MOCO, "accumulate": 2},
}
PRETRAIN = {
    "encoder": ENCODER,
    "seed": 3,
    "side": 32,
    "batch": 4,
    "accumulate": 1,
    "epochs": 3,
    "warmup_epochs": 1,
    "lr_per_256": 0.3,
    "weight_decay": 0.05,
    "beta1": 0.9,
    "beta2": 0.95,
    "crop_scale_min": 0.5,
    "precision": "32-true",
    "compile": False,
    "recompute": False,
    "encoder_init": None,
}
COMPUTE = {"checkpoint_every_epochs": 1, "accelerator": "cpu", "threads": 1, "devices": 1, "divide": parts_that_fit}


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    """recipe_of(objective, **changes)."""
    return lambda objective, **changes: of_values(Recipe, {**PRETRAIN, **OBJECTIVES[objective], **changes})


@pytest.fixture(scope="session")
def run_pretraining(store_paths, lesion_ids) -> Callable[..., dict]:
    """run_pretraining(folder, objective, **changes) with all crops; `changes` are of the recipe or of COMPUTE."""

    def run(folder: Path, objective: str, **changes) -> dict:
        values = {**PRETRAIN, **OBJECTIVES[objective], **COMPUTE, **changes}
        machine = {name: values.pop(name) for name in COMPUTE}
        return pretrain(folder, *store_paths, lesion_ids, lesion_ids[:2], of_values(Recipe, values), **machine)

    return run


@pytest.fixture(scope="session")
def lesions(tmp_path_factory) -> Path:
    """A folder with crops/, lesions.csv, splits.csv and the store of 6 train, 3 validation, 3 test lesions."""
    folder = tmp_path_factory.mktemp("lesions")
    (folder / "crops").mkdir()
    random = np.random.default_rng(0)
    rows = []
    for i in range(12):
        rough = random.integers(0, 256, (5, 6), dtype=np.uint8)
        crop = Image.fromarray(rough).resize((40 + 3 * i, 60 - 2 * i), Image.Resampling.BICUBIC)
        crop.save(folder / "crops" / f"lesion_{i:02}.png")
        kind = ("mass", "calcification")[i % 2]
        pathology = ("BENIGN", "MALIGNANT")[i // 2 % 2]
        split = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
        margins = ("CIRCUMSCRIBED", "", "SPICULATED-ILL_DEFINED", "")[i % 4]
        rows.append((f"lesion_{i:02}", f"P_{i // 2:05}", kind, pathology, margins, split[i], ""))
    columns = ["lesion_id", "patient_id", "abnormality", "pathology", "mass_margins", "split", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    table.drop(columns=["split", "reason"]).to_csv(folder / "lesions.csv", index=False)
    table[["lesion_id", "patient_id", "split", "reason"]].to_csv(folder / "splits.csv", index=False)
    pd.DataFrame(columns=["background_id"]).to_csv(folder / "backgrounds.csv", index=False)
    images = folder / "crops", folder / "lesions.csv", folder / "backgrounds", folder / "backgrounds.csv"
    pack(
        *images, folder / "crops.u8", folder / "crops_index.csv", folder / "extra.csv", extra_images=None, levels="data"
    )
    return folder


@pytest.fixture(scope="session")
def store_paths(lesions) -> tuple[Path, Path]:
    return lesions / "crops.u8", lesions / "crops_index.csv"


@pytest.fixture(scope="session")
def lesion_ids(lesions) -> list[str]:
    return pd.read_csv(lesions / "lesions.csv")["lesion_id"].tolist()
