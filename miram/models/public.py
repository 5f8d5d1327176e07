"""Find the encoder in a checkpoint of a public training program, and rename its weights as in timm.

Known formats: files of timm and MAE; checkpoints of timm's train.py, moco-v3, DINO, DINOv2 and Lightning; prefixes
of DataParallel, FSDP and torch.compile.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from miram.errors import MiramError

# parts of a checkpoint that may hold the weights; the first present one is used, averaged weights before others
PARTS = ("state_dict_ema", "model_ema", "teacher", "model", "state_dict", "module", "encoder", "backbone", "student")
WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")
SECOND = re.compile(r"momentum|student")  # in the prefix of an encoder of which another copy is used
ANCHOR = "patch_embed.proj.weight"  # what follows is the prefix of an encoder
CHUNKED = re.compile(r"^blocks\.\d+\.(\d+\.)")  # DINOv2 groups its blocks, and numbers them through
NORMS = ("norm.weight", "norm.bias")
SCALE = re.compile(r"(?P<block>blocks\.\d+\.)(?P<which>ls[12])\.gamma")  # LayerScale: one factor per output of a layer
SCALED = {"ls1": "attn.proj", "ls2": "mlp.fc2"}
REMEDY = "Give a file of a network's weights by timm's names, bare or as its training program saved them."


def encoder_state(checkpoint: object) -> dict[str, Tensor]:
    """The weights of the encoder in a checkpoint, by timm's names, with other weights of the same part.

    For a fine-tuned MAE `fc_norm` becomes `norm`. LayerScale is merged into the layers before it, which changes only
    rounding. Raises MiramError naming the content of the checkpoint unless there is exactly one encoder.
    """
    state = _unwrapped(checkpoint)
    prefix = _prefix(state, [ANCHOR])
    if prefix is None:
        raise MiramError(f"holds no {ANCHOR}, but {_named(state)}", REMEDY)
    own = {CHUNKED.sub(r"blocks.\1", name): value for name, value in _below(state, prefix).items()}
    for name in NORMS:
        if name not in own and f"fc_{name}" in own:
            own[name] = own.pop(f"fc_{name}")
    return _without_scales(own)


def network_state(checkpoint: object, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights of the network in a checkpoint that has most of `names`, with other weights of the same part.

    Raises MiramError if it holds several such networks, or no weights.
    """
    state = _unwrapped(checkpoint)
    wanted = set(names)
    found = _below(state, _prefix(state, names) or "")
    whole = {name: CHUNKED.sub(r"blocks.\1", name) for name in found}
    return {name if whole[name] not in wanted else whole[name]: value for name, value in found.items()}


def _unwrapped(checkpoint: object) -> dict[str, Tensor]:
    return {WRAPPERS.sub("", name): value for name, value in _weights(checkpoint).items()}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _prefix(state: Collection[str], names: Sequence[str]) -> str | None:
    """What stands before the first of `names`, and before most of them; None where it does not occur."""
    anchor = names[0]
    found = [name.removesuffix(anchor) for name in state if name == anchor or name.endswith(f".{anchor}")]
    rank = {prefix: (sum(prefix + n in state for n in names), not SECOND.search(prefix)) for prefix in found}
    used = [prefix for prefix in found if rank[prefix] == max(rank.values())]
    if len(used) > 1:
        raise MiramError(f"holds several encoders: {', '.join(used)}", REMEDY)
    return used[0] if used else None


def _weights(checkpoint: object) -> dict[str, Tensor]:
    """The innermost part of a checkpoint that holds tensors by name."""
    if not isinstance(checkpoint, Mapping):
        raise MiramError(f"holds a {type(checkpoint).__name__}, no weights by name", REMEDY)
    inner: Mapping[Any, Any] = checkpoint
    while part := next((name for name in PARTS if isinstance(inner.get(name), Mapping)), None):
        inner = inner[part]
    state = {name: value for name, value in inner.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise MiramError(f"holds no weights under its keys {_named(checkpoint)}", REMEDY)
    return state


def _without_scales(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in list(state):
        if scale := SCALE.fullmatch(name):
            gamma, layer = state.pop(name), scale["block"] + SCALED[scale["which"]]
            state[f"{layer}.weight"] = state[f"{layer}.weight"] * gamma[:, None]
            state[f"{layer}.bias"] = state[f"{layer}.bias"] * gamma
    return state


def _named(keys: Mapping[Any, Any]) -> str:
    shown = [str(key) for key in list(keys)[:8]]
    return ", ".join(shown) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "") or "nothing"
