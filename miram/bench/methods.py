"""What our methods cost beside their references: `python -m miram.bench.methods`, on an idle machine.

Writes results/bench/methods.{json,md}: (a) a whole step of pre-training, (b) one attention layer against the number of
tokens, (c) the input pipeline. Ratios of interleaved calls in one run, medians; kept memory is what autograd saves.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from miram.bench.memory import kept_bytes
from miram.bench.mocov3_plain import straightforward_loss
from miram.bench.timing import interleaved_seconds, machine, medians
from miram.files import atomic_path
from miram.models.attention import build_stack
from miram.models.build import build_pretrainer
from miram.train.augment import draw_view, render, stream, to_images
from miram.train.pretrain import parameter_groups
from miram.train.store import Store, pack

VIT_B = {"patch": 16, "channels": 3, "width": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}
DECODER = {"width": 512, "depth": 8, "heads": 16, "mlp_ratio": 4.0}
MOCO = {"projector_width": 4096, "projector_out": 256, "temperature": 0.2}
KINDS = {
    "full": {},
    "linformer": {"rank": 128},
    "performer": {"redraw_interval": 0},
    "nystrom": {"landmarks": 64, "pinv_iterations": 6, "pinv_init": "matrix", "residual_kernel": 33},
}
ATTENTION = {  # where the first attention lies in a stack
    "full": "0.attn",
    "linformer": "net.layers.0.0.fn",
    "performer": "net.layers.0.0.fn",
    "nystrom": "layers.0.0.fn",
}
TOKENS = (197, 785, 3137, 12545)
STEP_SIDE, STEP_BATCH = 112, 16
PIPELINE_SIDES, PIPELINE_CROPS, PIPELINE_CROP_SIDE = (112, 224), 64, 600  # px
MIB = 2**20


def main() -> None:
    """Run all three parts and write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved calls of each form (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results", "bench"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results = {
        "command": f"python -m miram.bench.methods --rounds {arguments.rounds}",
        "machine": machine(),
        "rounds": arguments.rounds,
        "steps": measure_steps(arguments.rounds),
        "layers": measure_layers(arguments.rounds),
        "pipeline": measure_pipeline(arguments.rounds),
    }
    with atomic_path(arguments.out / "methods.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    with atomic_path(arguments.out / "methods.md") as temporary:
        temporary.write_text(as_markdown(results))
    print(as_markdown(results))


def options_of(kind: str, backend: str | None) -> dict[str, object]:
    """The options of a kind; the package of the Nystrom kind knows one start of its pseudo-inverse only."""
    return {**KINDS[kind], "pinv_init": "batch"} if (kind, backend) == ("nystrom", "package") else KINDS[kind]


def measure_steps(rounds: int) -> list[dict[str, object]]:
    """Forward, backward and optimiser of a ViT-B/16 in two forms each: ours and the reference recipe."""
    rows = []
    pairs = {"mocov3": ("ours", "straightforward")} | dict.fromkeys(
        [f"miram-{kind}" for kind in KINDS if kind != "full"], ("fused", "package")
    )
    for method, (ours, reference) in pairs.items():
        forms = {ours: _step(method, ours, fused_adamw=True), reference: _step(method, reference, fused_adamw=False)}
        kept = {form: kept_bytes(forward) / MIB for form, (forward, _) in forms.items()}
        seconds = medians(interleaved_seconds({form: step for form, (_, step) in forms.items()}, rounds))
        rows.append(
            {
                "method": method,
                "form": ours,
                "reference": reference,
                "seconds": seconds[ours],
                "reference_seconds": seconds[reference],
                "time_ratio": seconds[ours] / seconds[reference],
                "kept_mib": kept[ours],
                "reference_kept_mib": kept[reference],
                "kept_ratio": kept[ours] / kept[reference],
            }
        )
    return rows


def _step(method: str, form: str, fused_adamw: bool) -> tuple[Callable, Callable]:
    """The forward pass of a method, and its whole training step."""
    objective, _, kind = method.partition("-")
    model = build_pretrainer(
        objective,
        side=STEP_SIDE,
        encoder=VIT_B,
        decoder=DECODER,
        attention=kind or None,
        backend=form if kind else None,
        options=options_of(kind, form) if kind else None,
        scale=2,
        target="upsampled",
        loss_on="removed",
        mask_ratio=0.75,
        moco=MOCO,
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-4, betas=(0.9, 0.95), fused=fused_adamw)
    images = torch.randn(2, STEP_BATCH, VIT_B["channels"], STEP_SIDE, STEP_SIDE)
    if objective == "mocov3":
        loss = partial(straightforward_loss, model) if form == "straightforward" else lambda *a: model(*a).loss
        forward = partial(loss, images[0], images[1], 0.99)
    else:
        noise = torch.rand(STEP_BATCH, (STEP_SIDE // VIT_B["patch"]) ** 2)
        forward = lambda: model(images[0], noise).loss  # noqa: E731

    def step() -> None:
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    return forward, step


def measure_layers(rounds: int) -> list[dict[str, object]]:
    """One attention of width 512 with 16 heads, forward and backward, batch 1, for each kind and number of tokens."""
    rows = []
    for tokens in TOKENS:
        x = torch.randn(1, tokens, DECODER["width"], requires_grad=True)
        layers = {kind: _attention(kind, tokens) for kind in KINDS}
        runs = {kind: partial(_forward_backward, layer, x) for kind, layer in layers.items()}
        seconds = medians(interleaved_seconds(runs, rounds))
        for kind, layer in layers.items():
            rows.append(
                {
                    "kind": kind,
                    "tokens": tokens,
                    "seconds": seconds[kind],
                    "times_faster_than_full": seconds["full"] / seconds[kind],
                    "kept_mib": kept_bytes(partial(layer, x)) / MIB,
                }
            )
    return rows


def _attention(kind: str, tokens: int) -> torch.nn.Module:
    backend = None if kind == "full" else "fused"
    width, heads = DECODER["width"], DECODER["heads"]
    stack = build_stack(
        kind, backend=backend, dim=width, depth=1, heads=heads, tokens=tokens, **options_of(kind, backend)
    )
    return stack.get_submodule(ATTENTION[kind])


def _forward_backward(layer: torch.nn.Module, x: torch.Tensor) -> None:
    layer(x).sum().backward()


def measure_pipeline(rounds: int) -> list[dict[str, object]]:
    """Images a second of the packed store beside decoding each PNG: random resized crop, flip, normalisation."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        crops, store = _example_crops(Path(folder))
        for side in PIPELINE_SIDES:
            forms = {"store": partial(_from_store, store, side), "png": partial(_from_png, crops, side)}
            seconds = medians(interleaved_seconds(forms, rounds))
            speed = {form: PIPELINE_CROPS / value for form, value in seconds.items()}
            rows.append({"side": side, "images_per_second": speed, "times_faster": speed["store"] / speed["png"]})
    return rows


def _example_crops(folder: Path) -> tuple[list[Path], Store]:
    """Crops of smooth noise as PNG files, and packed."""
    random = np.random.default_rng(0)
    names = [f"crop_{number:03d}" for number in range(PIPELINE_CROPS)]
    for name in names:
        coarse = Image.fromarray(random.integers(0, 256, (75, 75), dtype=np.uint8))
        large = np.asarray(coarse.resize((PIPELINE_CROP_SIDE, PIPELINE_CROP_SIDE), Image.Resampling.BICUBIC), np.int16)
        grainy = np.clip(large + random.integers(-4, 5, large.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{name}.png")
    pd.DataFrame({"lesion_id": names}).to_csv(folder / "lesions.csv", index=False)
    files = folder / "crops.u8", folder / "crops_index.csv"
    pack(folder, folder / "lesions.csv", *files)
    return [folder / f"{name}.png" for name in names], Store(*files)


def _from_store(store: Store, side: int) -> torch.Tensor:
    draws = [draw_view(*store[i].shape, 0.2, stream("view", 0, 0, i)) for i in range(len(store))]
    views = [render(store[i], side, draw) for i, draw in enumerate(draws)]
    return to_images(torch.from_numpy(np.stack(views)), 3)


def _from_png(paths: list[Path], side: int) -> torch.Tensor:
    """As the reference does it: decode, three channels, crop and resize, flip, tensor, normalise, one by one."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = []
    for number, path in enumerate(paths):
        random = np.random.default_rng(number)
        with Image.open(path) as image:
            image = image.convert("RGB")
        length = int(PIPELINE_CROP_SIDE * np.sqrt(random.uniform(0.2, 1)))
        left, top = random.integers(0, PIPELINE_CROP_SIDE - length + 1, 2).tolist()
        image = image.crop((left, top, left + length, top + length)).resize((side, side), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        images.append((pixels - mean) / std)
    return torch.stack(images)


def as_markdown(results: dict[str, object]) -> str:
    """The three tables, with what was measured and where."""
    host = results["machine"]
    steps = pd.DataFrame(results["steps"]).round(
        {"seconds": 2, "reference_seconds": 2, "time_ratio": 2, "kept_ratio": 2}
    )
    steps = steps.round({"kept_mib": 0, "reference_kept_mib": 0})
    layers = pd.DataFrame(results["layers"]).round({"seconds": 4, "times_faster_than_full": 2, "kept_mib": 1})
    pipeline = pd.DataFrame(
        [{"side": r["side"], **r["images_per_second"], "times_faster": r["times_faster"]} for r in results["pipeline"]]
    ).round(1)
    parts = [
        "# What the methods cost beside their references",
        f"`{results['command']}`, medians of {results['rounds']} interleaved calls on {host['processor']}, "
        f"{host['threads']} threads, torch {host['torch']}. Ratios travel, absolute times do not.",
        f"## A step of pre-training: ViT-B/16, side {STEP_SIDE}, batch {STEP_BATCH}",
        "Reference: the libraries' own attention (MoCo-v3: its straightforward form) with AdamW that is not fused.",
        steps.to_markdown(index=False),
        "## One attention layer: width 512, 16 heads, batch 1, forward and backward",
        "`full` is scaled_dot_product_attention; the others are ours (`fused`).",
        layers.to_markdown(index=False),
        f"## The input pipeline: images/s, {PIPELINE_CROPS} crops of {PIPELINE_CROP_SIDE} px",
        pipeline.to_markdown(index=False),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
