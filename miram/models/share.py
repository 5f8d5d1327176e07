"""An encoder as folders that other libraries load: `timm` by path, and Hugging Face's `transformers` as a ViT.

Key names and fields are those that `ViTModel.save_pretrained` of transformers 5.24 writes and that timm 1.0 reads from
a local folder. Images (B, C, side, side), normalised as in training, give the tokens of `Encoder.forward`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from miram.files import atomic_path
from miram.models.blocks import NORM_EPS
from miram.models.encoder import Encoder
from miram.models.export import encoder_of_file

TIMM_BASE = "vit_base_patch16_224"  # the model of timm whose sizes `model_args` replace
EMBEDDINGS = {  # timm's name -> that of transformers
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
LAYERS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


def share_encoder(encoder_file: Path, out: Path, *, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Write `out`/timm and `out`/transformers, each with config.json and model.safetensors; returns the architecture.

    `mean` and `std` of grey levels in [0, 1] are those of training, one for each of three channels; a single channel
    takes their averages. Raises MiramError if the file is not an exported encoder.
    """
    encoder = encoder_of_file(encoder_file)
    if encoder.channels == 1:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    _write(out / "timm", timm_config(encoder, mean, std), state)
    folder = out / "transformers"
    _write(folder, vit_config(encoder), vit_state(state))
    _write_json(folder / "preprocessor_config.json", _preprocessing(encoder, mean, std))
    return encoder.architecture


def timm_config(encoder: Encoder, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """The config of timm: `create_model("local-dir:FOLDER", pretrained=True)`."""
    sizes = encoder.architecture
    return {
        "architecture": TIMM_BASE,
        "num_classes": 0,
        "num_features": encoder.width,
        "model_args": {
            **{"img_size": sizes["side"], "patch_size": sizes["patch"], "in_chans": sizes["channels"]},
            **{"embed_dim": sizes["width"], "depth": sizes["depth"], "num_heads": sizes["heads"]},
            "mlp_ratio": sizes["mlp_ratio"],
        },
        "pretrained_cfg": {
            **{"input_size": [encoder.channels, encoder.side, encoder.side], "fixed_input_size": True},
            **{"interpolation": "bicubic", "crop_pct": 1.0, "mean": list(mean), "std": list(std)},
            **{"num_classes": 0, "first_conv": "patch_embed.proj", "classifier": "head"},
        },
    }


def vit_config(encoder: Encoder) -> dict[str, Any]:
    """The config of transformers: `ViTModel.from_pretrained(FOLDER, add_pooling_layer=False)`."""
    sizes = encoder.architecture
    return {
        **{"architectures": ["ViTModel"], "model_type": "vit", "dtype": "float32"},
        **{"image_size": sizes["side"], "patch_size": sizes["patch"], "num_channels": sizes["channels"]},
        **{"hidden_size": sizes["width"], "num_hidden_layers": sizes["depth"], "num_attention_heads": sizes["heads"]},
        "intermediate_size": round(sizes["width"] * sizes["mlp_ratio"]),
        **{"hidden_act": "gelu", "qkv_bias": True, "layer_norm_eps": NORM_EPS},
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    }


def vit_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by timm's names renamed for transformers' ViT, whose queries, keys and values are separate."""
    found = {new: state[name] for name, new in EMBEDDINGS.items()}
    for name, value in state.items():
        if name in EMBEDDINGS:
            continue
        block = BLOCK.fullmatch(name)
        assert block is not None, f"{name} is not part of a block"
        number, layer, end = block.groups()
        prefix = ".".join(("encoder", "layer", number))
        if layer == "attn.qkv":
            for part, own in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[f"{prefix}.attention.attention.{part}.{end}"] = own.contiguous()
        else:
            found[f"{prefix}.{LAYERS[layer]}.{end}"] = value
    return found


def _preprocessing(encoder: Encoder, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    return {
        **{"image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": 3},  # bicubic
        "size": {"height": encoder.side, "width": encoder.side},
        **{"do_rescale": True, "rescale_factor": 1 / 255},
        **{"do_normalize": True, "image_mean": list(mean), "image_std": list(std)},
    }


def _write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    _write_json(folder / "config.json", config)
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(state, metadata={"format": "pt"}))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
