"""How much memory a step of pre-training takes, in closed form, and the batch that fits.

Letters: B images at once, N tokens (class token included), D width, H heads, R MLP ratio, L patches of P values,
K kept patches, m landmarks, k rank, r random features. Counts are of numbers, sizes in bytes. `values` are those of
the stage `pretrain`, with the names of params.yaml.

What is kept for the backward pass follows from what each operation of `miram.models` saves; tests hold it against
measured saved tensors. Adam's moments, gradients and weights are 4 bytes a number in every precision.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from miram.errors import MiramError

USABLE = 0.9  # of a GPU's memory: the rest is for CUDA's context and the allocator's gaps
FULL, HALF = 4, 2  # bytes of a number
STATISTICS = 4  # a token and block: mean and deviation of two LayerNorms
LOSS_WORKSPACE = 4  # times the pixels of the last decoder, measured
WORKSPACE = 6  # times the input of the largest block: what its backward pass makes and drops, measured


class Kept(NamedTuple):
    """Numbers kept: those that stay in 32 bits, and those of matrix products, halved by a mixed precision."""

    wide: float
    narrow: float

    def bytes(self, precision: str) -> float:
        """Their size."""
        return self.wide * FULL + self.narrow * (FULL if precision == "32-true" else HALF)


class Memory(NamedTuple):
    """Bytes of one step on one device."""

    weights: float
    gradients: float
    moments: float
    kept: float  # activations, from the forward to the backward pass
    workspace: float  # what lives within one block

    @property
    def peak(self) -> float:
        """Gradients appear while activations go: the larger of the two ends of the backward pass decides."""
        return self.weights + self.moments + max(self.kept + self.workspace, self.gradients)


class Fit(NamedTuple):
    """How a batch is divided."""

    images: int  # at once on one device
    accumulate: int
    memory: Memory


def memory_of(values: dict[str, Any], images: int) -> Memory:
    """What a step takes with `images` at once on one device. ValueError for attention of backend `package`."""
    if values.get("backend") == "package":
        raise ValueError("backend 'package': what the libraries' own layers keep is not modelled")
    trained, frozen = parameters(values)
    kept, workspace = (_moco_activations if values["objective"] == "mocov3" else _masked_activations)(values, images)
    return Memory(FULL * (trained + frozen), FULL * trained, 2 * FULL * trained, kept, workspace)


def fit(values: dict[str, Any], vram_bytes: float, *, devices: int, crops_bytes: float) -> Fit:
    """The fewest micro-batches of the batch that fit into `vram_bytes` on each of so many devices.

    A GPU keeps all crops at native size beside them, `crops_bytes`. Raises MiramError where not even one image fits.
    """
    share = values["batch"] // devices
    least = least_images(values)
    for accumulate in range(1, share // least + 1):
        if share % accumulate:
            continue
        memory = memory_of(values, share // accumulate)
        if memory.peak + crops_bytes <= USABLE * vram_bytes:
            return Fit(share // accumulate, accumulate, memory)
    needed = (memory_of(values, least).peak + crops_bytes) / USABLE / 1e9
    raise MiramError(
        f"{least} image(s) at side {values['side']}, with all crops, take {needed:.1f} GB, and there are "
        f"{vram_bytes / 1e9:.1f}.",
        "Set pretrain.recompute: true, lower pretrain.side, or take a linear attention.",
    )


def least_images(values: dict[str, Any]) -> int:
    """Images at once that a method needs: two where BatchNorm takes their statistics."""
    return 2 if values["objective"] == "mocov3" else 1


def as_table(methods: Mapping[str, dict[str, Any]], vram_bytes: float, *, devices: int, crops_bytes: float) -> str:
    """What each method takes with the batch divided so that it fits, with recomputed activations and without."""
    rows = []
    for name, values in methods.items():
        if values.get("backend") == "package":
            continue
        for recompute in (False, True):
            row = {"method": name, "side": values["side"], "recompute": "yes" if recompute else "no"}
            try:
                found = fit({**values, "recompute": recompute}, vram_bytes, devices=devices, crops_bytes=crops_bytes)
            except MiramError:
                rows.append({**row, "at once": "does not fit"})
                continue
            sizes = {part: f"{size / 1e9:.2f}" for part, size in found.memory._asdict().items()}
            divided = {"batch": values["batch"], "at once": found.images, "accumulate": found.accumulate}
            rows.append({**row, **divided, **sizes, "peak": f"{found.memory.peak / 1e9:.2f}"})
    precision = next(iter(methods.values()))["precision"]
    return (
        f"Pre-training in {precision} on {devices} device(s) of {vram_bytes / 1e9:g} GB (1e9 bytes), of which "
        f"{USABLE:.0%} are counted on, {crops_bytes / 1e9:.2f} GB of it for the crops; predicted GB.\n"
        "Set pretrain.accumulate, or a method's own, to the value below: batch and learning rate stay as they are.\n"
        "Only MoCo-v3 sees it: it contrasts what is at once.\n\n"
        + pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
    )


def parameters(values: dict[str, Any]) -> tuple[int, int]:
    """Trained and frozen parameters; buffers are small and left out."""
    encoder, patch_values = values["encoder"], _patch_values(values)
    width = encoder["width"]
    embedding = patch_values * width + width
    network = encoder_parameters(encoder) - embedding
    if values["objective"] == "mocov3":
        hidden, out = values["moco"]["projector_width"], values["moco"]["projector_out"]
        projector = width * hidden + hidden**2 + hidden * out + 4 * hidden
        predictor = out * hidden + hidden * out + 2 * hidden
        return network + projector + predictor, 2 * embedding + network + projector
    decoder = values["decoder"]
    narrow = decoder["width"]
    head = 2 * narrow + narrow * patch_values + patch_values
    total = embedding + network + width * narrow + narrow + narrow  # with the decoder's embedding and the mask token
    total += decoder["depth"] * _block_parameters(narrow, decoder["mlp_ratio"]) + head
    if values["objective"] == "miram":
        tokens = 1 + _patches(values) * values["highres"]["scale"] ** 2
        total += decoder["depth"] * _stack_parameters(values, tokens) + head
    return total, 0


def encoder_parameters(encoder: dict[str, Any]) -> int:
    """Of the encoder alone: what a pre-training hands on, and a classifier but for its head."""
    width, patch_values = encoder["width"], encoder["patch"] ** 2 * encoder["channels"]
    blocks = encoder["depth"] * _block_parameters(width, encoder["mlp_ratio"])
    return patch_values * width + width + blocks + 3 * width  # with the class token and the last norm


def checkpoint_bytes(values: dict[str, Any]) -> float:
    """Size of checkpoint.pt: weights, and Adam's moments of the trained ones."""
    trained, frozen = parameters(values)
    return FULL * (3 * trained + frozen)


def _block_parameters(width: int, mlp_ratio: float) -> int:
    hidden = int(width * mlp_ratio)
    return 4 * width**2 + 4 * width + 2 * hidden * width + hidden + width + 4 * width


def _stack_parameters(values: dict[str, Any], tokens: int) -> int:
    """Of one block of the high-resolution decoder."""
    width, heads = values["decoder"]["width"], values["decoder"]["heads"]
    rest = 8 * width**2 + 5 * width + 4 * width  # MLP and norms
    options = values["options"] or {}
    return {
        "full": lambda: _block_parameters(width, 4.0),
        "linformer": lambda: rest + 2 * width**2 + width + width * width // heads + tokens * options["rank"],
        "performer": lambda: rest + 4 * width**2 + 4 * width,
        "nystrom": lambda: rest + 4 * width**2 + width + heads * options["residual_kernel"],
    }[values["attention"]]()


def _masked_activations(values: dict[str, Any], images: int) -> tuple[float, float]:
    encoder, decoder, precision = values["encoder"], values["decoder"], values["precision"]
    patches, patch_values = _patches(values), _patch_values(values)
    visible = int(patches * (1 - values["mask_ratio"]))
    stacks = [  # blocks, what one keeps, inputs that it keeps if the rest is recomputed, numbers of an input
        (part["depth"], _full_block(images, tokens, **_sizes(part)), 1, images * tokens * part["width"])
        for part, tokens in ((encoder, 1 + visible), (decoder, 1 + patches))
    ]
    pixels = largest = images * patches * patch_values  # the errors of the predictions
    if values["objective"] == "miram":
        tokens = 1 + patches * values["highres"]["scale"] ** 2
        inputs = 1 if values["attention"] == "full" else 2  # attention and MLP apart
        block = _highres_block(values, images, tokens)
        stacks.append((decoder["depth"], block, inputs, images * tokens * decoder["width"]))
        largest = images * (tokens - 1) * patch_values
        pixels += largest
    kept, workspace = 0.0, 0.0
    for depth, block, inputs, numbers in stacks:
        ends = Kept(numbers, numbers).bytes(precision)  # the last norm and what the projection takes
        inner = block.bytes(precision)
        kept += depth * (inputs * FULL * numbers if values["recompute"] else inner) + ends
        workspace = max(workspace, WORKSPACE * FULL * numbers, inner if values["recompute"] else 0.0)
    embedded = images * visible * patch_values * (FULL if precision == "32-true" else HALF)
    return kept + embedded + FULL * pixels + _weight_copies(values), max(workspace, LOSS_WORKSPACE * FULL * largest)


def _moco_activations(values: dict[str, Any], images: int) -> tuple[float, float]:
    """Both views at once; the last block computes the class token alone."""
    encoder, precision = values["encoder"], values["precision"]
    width, tokens, views = encoder["width"], 1 + _patches(values), 2 * images
    block = _full_block(views, tokens, **_sizes(encoder))
    numbers = views * tokens * width
    hidden, out = values["moco"]["projector_width"], values["moco"]["projector_out"]
    token = width * (2 * encoder["heads"] + 6 + 2 * encoder["mlp_ratio"])  # of the last block, which computes one token
    heads = views * (token + width + 2 * 3 * hidden + 4 * out)
    statistics = 6 * (3 * hidden + 2 * out)  # of BatchNorm
    inner, last = block.bytes(precision), Kept(numbers, numbers).bytes(precision)
    kept = (
        (encoder["depth"] - 1) * (FULL * numbers if values["recompute"] else inner) + last + FULL * (heads + statistics)
    )
    gradients = FULL * (3 * hidden**2 + 6 * hidden * out)  # of the heads: of each view, and their sum
    workspace = max(WORKSPACE * FULL * numbers, gradients, inner if values["recompute"] else 0.0)
    return kept + _weight_copies(values), workspace


def _full_block(images: int, tokens: int, width: int, heads: int, mlp_ratio: float) -> Kept:
    """Softmax attention through the fused kernel: two inputs; two norms' results, q, k, v, mixed values, MLP twice."""
    numbers = images * tokens * width
    return Kept(2 * numbers + images * tokens * (STATISTICS + heads), (6 + 2 * mlp_ratio) * numbers)


def _highres_block(values: dict[str, Any], images: int, tokens: int) -> Kept:
    """One block of the high-resolution decoder; the MLPs of the linear kinds keep their hidden layer once."""
    width, heads = values["decoder"]["width"], values["decoder"]["heads"]
    head, options = width // heads, values["options"] or {}
    numbers = images * tokens * width
    wide, mlp = (
        2 * numbers + images * tokens * STATISTICS,
        5 * numbers,
    )  # inputs; second norm, hidden layer
    if values["attention"] == "full":
        return _full_block(images, tokens, width, heads, mlp_ratio=4.0)
    if values["attention"] == "linformer":  # norm, queries, and the shared keys before and after their projection
        return Kept(wide, mlp + 2 * numbers + images * head * (tokens + options["rank"]))
    if values["attention"] == "performer":  # norm, q, k, v; sums over the keys
        features = int(head * math.log(head))
        return Kept(wide + images * heads * (features * (head + 1) + 1) + features * head, mlp + 4 * numbers)
    size = -(-tokens // options["landmarks"])
    marks = -(-tokens // size)
    blanks = (size * options["landmarks"] - tokens) // size > 0  # landmarks of padding alone count as one
    rows = marks + blanks
    order = rows + -rows % 4
    matrices = images * heads * (order**2 * (options["pinv_iterations"] + 2) + marks**2 + 2 * marks)
    return Kept(wide + matrices, mlp + 4 * numbers + images * width * (5 * marks + rows * blanks))


def _weight_copies(values: dict[str, Any]) -> float:
    """A mixed precision keeps the matrices of the trained side a second time, in half the bytes."""
    return 0.0 if values["precision"] == "32-true" else HALF * parameters(values)[0]


def _sizes(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in ("width", "heads", "mlp_ratio")}


def _patches(values: dict[str, Any]) -> int:
    return (values["side"] // values["encoder"]["patch"]) ** 2


def _patch_values(values: dict[str, Any]) -> int:
    return values["encoder"]["patch"] ** 2 * values["encoder"]["channels"]
