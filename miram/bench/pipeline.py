"""Images per second from the packed store, compared with decoding each PNG."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from miram.bench.timing import interleaved, medians, timed
from miram.recipe import IMAGENET_MEAN, IMAGENET_STD
from miram.train.augment import draw_view, render, stream, to_images
from miram.train.store import INDEX_COLUMNS, Store, pack

SIDES, CROPS, CROP_SIDE = (112, 224), 64, 600  # px


def measure_pipeline(rounds: int) -> list[dict[str, object]]:
    """Random resized crop, flip, normalisation of the same crops, from the store and from PNG files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        crops, store = _example_crops(Path(folder))
        for side in SIDES:
            forms = {"store": timed(partial(_from_store, store, side)), "png": timed(partial(_from_png, crops, side))}
            calls = interleaved(forms, rounds, budget_seconds=60.0)
            speed = {form: CROPS / medians(own)["seconds"] for form, own in calls.items()}
            rows.append({"side": side, "images_per_second": speed, "times_faster": speed["store"] / speed["png"]})
    return rows


def write_store(folder: Path, crops: int) -> tuple[Path, Path]:
    """A store of this many similar crops, and its index."""
    files = folder / "crops.u8", folder / "crops_index.csv"
    crop = _crop(np.random.default_rng(0))
    with open(files[0], "wb") as stream:
        for _ in range(crops):
            stream.write(crop.tobytes())
    rows = [(f"crop_{number}", "lesion", number * crop.size, *crop.shape) for number in range(crops)]
    pd.DataFrame(rows, columns=INDEX_COLUMNS).to_csv(files[1], index=False, lineterminator="\n")
    return files


def _crop(random: np.random.Generator) -> np.ndarray:
    """Smooth noise with grain."""
    coarse = Image.fromarray(random.integers(0, 256, (75, 75), dtype=np.uint8))
    large = np.asarray(coarse.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC), np.int16)
    return np.clip(large + random.integers(-4, 5, large.shape), 0, 255).astype(np.uint8)


def _example_crops(folder: Path) -> tuple[list[Path], Store]:
    """Crops as PNG files, and packed."""
    random = np.random.default_rng(0)
    names = [f"crop_{number:03d}" for number in range(CROPS)]
    for name in names:
        Image.fromarray(_crop(random)).save(folder / f"{name}.png")
    pd.DataFrame({"lesion_id": names}).to_csv(folder / "lesions.csv", index=False, lineterminator="\n")
    files = folder / "crops.u8", folder / "crops_index.csv"
    pd.DataFrame(columns=["background_id"]).to_csv(folder / "backgrounds.csv", index=False, lineterminator="\n")
    pack(
        folder,
        folder / "lesions.csv",
        folder,
        folder / "backgrounds.csv",
        *files,
        folder / "extra.csv",
        extra_images=None,
        levels="data",
    )
    return [folder / f"{name}.png" for name in names], Store(*files)


def _from_store(store: Store, side: int) -> torch.Tensor:
    shapes = [store[i].shape for i in range(len(store))]
    draws = [draw_view(rows, columns, 0.2, stream("view", 0, 0, i)) for i, (rows, columns) in enumerate(shapes)]
    views = [render(store[i], side, draw) for i, draw in enumerate(draws)]
    return to_images(torch.from_numpy(np.stack(views)), 3)


def _from_png(paths: list[Path], side: int) -> torch.Tensor:
    """Like the reference: decode, three channels, crop and resize, flip, tensor, normalise, one by one."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = []
    for number, path in enumerate(paths):
        random = np.random.default_rng(number)
        with Image.open(path) as file:
            image = file.convert("RGB")
        length = int(CROP_SIDE * np.sqrt(random.uniform(0.2, 1)))
        left, top = random.integers(0, CROP_SIDE - length + 1, 2).tolist()
        image = image.crop((left, top, left + length, top + length)).resize((side, side), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        images.append((pixels - mean) / std)
    return torch.stack(images)
