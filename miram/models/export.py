"""Encoders and classifiers as files: safetensors, an encoder's with timm's names, the architecture in the metadata."""

import argparse
import json
import math
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from miram.errors import MiramError
from miram.files import atomic_path
from miram.models._timm import renamed, resample_abs_pos_embed
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.models.public import encoder_state, network_state
from miram.models.timm_encoder import AnyEncoder, TimmEncoder, encoder_from

ARCHITECTURE_KEY = "miram_encoder"
COMPUTED = ("blocks.", "reg_token", "register_tokens", "dist_token", "norm_pre.", "patch_embed.")  # parts of other ViTs
CLASSIFIER_KEY = "miram_classifier"
PATCHES = "patch_embed.proj.weight"  # which timm would resample to patches of another size


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write the encoder, whole or not at all.

    `timm.create_model("vit_…", num_classes=0, checkpoint_path=path)` loads the file.
    """
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state, metadata={ARCHITECTURE_KEY: json.dumps(encoder.architecture)}))


def load_weights(encoder: AnyEncoder, path: Path) -> None:
    """Load the weights of a file into `encoder`. Raises MiramError as `load_encoder` and `load_timm`."""
    if isinstance(encoder, TimmEncoder):
        load_timm(encoder, path)
    else:
        load_encoder(encoder, path)


def load_timm(encoder: TimmEncoder, path: Path) -> None:
    """Load a public checkpoint of a network (see `miram.models.public`) into timm's, whatever else the file holds.

    Names are made timm's where timm knows how, positions of another side are resampled. Raises MiramError if the file
    is missing, truncated or not understood, or naming what it lacks, has in another shape, or has beyond the network.
    """
    wanted, what = encoder.network.state_dict(), f"the weights of timm's {encoder.architecture['timm']}"
    remedy = "Name the network that they are of as `timm` under `encoders`, or give that network's file."
    found, _ = _read(Path(path), partial(network_state, names=list(wanted)))
    counted = {name: value for name, value in wanted.items() if name.endswith(".num_batches_tracked")}  # absent in old
    try:
        state = {**counted, **renamed(found, encoder.network)}
    except (AssertionError, AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise MiramError(f"{path} cannot be read as {what}: {error!r}", remedy) from error
    parts = {name.partition(".")[0] for name in wanted}
    patches = {name: value for name, value in found.items() if name == PATCHES and value.ndim == 4}
    differences = [
        *_misfits(state | patches, wanted, lambda name, shape: shape == wanted[name].shape),
        *(f"{name} where there is none" for name in state if name.partition(".")[0] in parts and name not in wanted),
    ]
    if differences:
        raise MiramError(f"{path} does not hold {what}: {_shown(differences)}", remedy)
    encoder.network.load_state_dict({name: state[name] for name in wanted})


def load_encoder(encoder: Encoder, path: Path) -> None:
    """Load an exported encoder, or that of a public checkpoint of a ViT (see `miram.models.public`), into `encoder`.

    Other weights (heads, decoders) are left out; positions of another side are resampled (bicubic). A public file does
    not give its number of heads, which cannot be checked. Raises MiramError if the file is missing, truncated, not
    understood, or holds another architecture.
    """
    state, architecture = _read(Path(path), encoder_state)
    wanted = encoder.state_dict()
    architecture = architecture or _sizes(state)
    differences = [
        f"{key} {architecture[key]} instead of {value}"
        for key, value in encoder.architecture.items()
        if key != "side" and architecture.get(key, value) != value
    ] or [
        *_misfits(state, wanted, lambda name, shape: _fits(name, shape, wanted[name].shape)),
        *(f"{name} where there is none" for name in state if name.startswith(COMPUTED) and name not in wanted),
    ]
    if differences:
        raise MiramError(
            f"{path} holds another architecture: {_shown(differences)}",
            "Give a file with the configured patch, channels, width, depth, heads and MLP ratio, or change these.",
        )
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [encoder.grid, encoder.grid])
    encoder.load_state_dict({name: state[name] for name in wanted})


def encoder_of_file(path: Path) -> Encoder:
    """An exported encoder, with the architecture in its file. Raises MiramError if there is none."""
    _, architecture = _read(Path(path), encoder_state)
    if not architecture:
        raise MiramError(f"{path} is not an encoder exported by miram.", "Give a pre-training's encoder.safetensors.")
    encoder = Encoder(**architecture, drop_path=0.0)
    load_encoder(encoder, path)
    return encoder.eval()


class Network(NamedTuple):
    """A classifier from its file, and the file's metadata."""

    model: Classifier
    classes: tuple[str, ...]
    multi_label: bool
    seen: Mapping[str, Any] | None  # how its pictures were read and cut; None in files of older versions


def save_classifier(
    state: dict[str, Tensor],
    path: Path,
    *,
    classes: tuple[str, ...],
    multi_label: bool,
    seen: Mapping[str, Any],
    **architecture: object,
) -> None:
    """Write a classifier's weights, whole or not at all; `architecture`: its encoder's, and its pool."""
    told = {**architecture, "classes": classes, "multi_label": multi_label, "seen": seen}
    with atomic_path(path) as temporary:
        # one entry: safetensors writes several in a random order
        temporary.write_bytes(save(state, {CLASSIFIER_KEY: json.dumps(told)}))


def load_classifier(path: Path) -> Network:
    """A saved classifier. Raises MiramError if there is none, or none that can be built here."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})[CLASSIFIER_KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        encoder = encoder_from(told["encoder"], drop_path=0.0)
        model = Classifier(encoder, classes=len(told["classes"]), pool=told["pool"], head_init_std=0.0)
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MiramError(
            f"{path} holds no classifier that can be built here: {error}",
            "Correct the path, or give a model.safetensors of a fine-tuning.",
        ) from error
    return Network(model.eval(), tuple(told["classes"]), told["multi_label"], told.get("seen"))


def _misfits(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fits: Callable[[str, torch.Size], bool]
) -> Iterable[str]:
    """The wanted weights that are absent or do not fit, in words."""
    for name, value in wanted.items():
        if name not in state or not fits(name, state[name].shape):
            found = tuple(state[name].shape) if name in state else "absent"
            yield f"{name} {found} instead of {tuple(value.shape)}"


def _shown(differences: list[str]) -> str:
    return ", ".join(differences[:4]) + (f" and {len(differences) - 4} more" if len(differences) > 4 else "")


def _fits(name: str, found: torch.Size, wanted: torch.Size) -> bool:
    """Whether a weight can be loaded; positions may be of any square grid."""
    if name != "pos_embed" or len(found) != len(wanted):
        return found == wanted
    patches = found[1] - 1
    return found[2] == wanted[2] and math.isqrt(patches) ** 2 == patches


def _read(path: Path, find: Callable[[object], dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name, as `find` finds them in a public file, and the architecture if the file has it."""
    if not path.is_file():
        raise MiramError(
            f"{path} does not exist", "Give the path of a .safetensors or .pth file of a network's weights."
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                checkpoint = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                if ARCHITECTURE_KEY in metadata:
                    return checkpoint, json.loads(metadata[ARCHITECTURE_KEY])
        else:
            # facebookresearch/mae saves its command line, a Namespace, with the weights.
            with torch.serialization.safe_globals([argparse.Namespace]):
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise MiramError(
            f"{path} cannot be read as a checkpoint: truncated, or not one ({error})",
            "Delete it and run the stage that writes it again, or download the public file again.",
        ) from error
    try:
        return find(checkpoint), {}
    except MiramError as error:
        raise MiramError(f"{path} {error.message}", error.remedy) from error


def _sizes(state: dict[str, Tensor]) -> dict[str, float]:
    """The architecture of a public file, as far as it follows from its shapes."""
    embedding, inner = state["patch_embed.proj.weight"], state.get("blocks.0.mlp.fc1.weight")
    if embedding.ndim != 4:
        return {}
    width, channels, _, patch = embedding.shape
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    sizes: dict[str, float] = {"patch": patch, "channels": channels, "width": width, "depth": len(blocks)}
    return sizes if inner is None else sizes | {"mlp_ratio": inner.shape[0] / width}
