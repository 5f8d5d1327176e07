"""The models against tensors of the public implementations; `MIRAM_GOLDEN_DIR` names another folder of such files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from miram.models.build import build_pretrainer
from miram.models.patches import random_masking, take

FOLDER = Path(os.environ.get("MIRAM_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
TOLERANCE = 1e-4  # of the largest value of each tensor

# Names of the reference -> ours, by the first prefix that fits. None: weights that it never uses, or holds twice.
NAMES = {
    "masked": [
        ("highres_mask_token", None),
        ("highres_decoder_embed.", None),
        ("highres_decoder.proj_updater.instance.", None),
        ("highres_decoder_pos_embed", "highres.pos_embed"),
        ("highres_decoder_blocks.", "highres.stack."),
        ("highres_decoder_norm.", "highres.norm."),
        ("highres_decoder_pred.", "highres.pred."),
        ("highres_decoder.", "highres.stack."),
        ("decoder_embed.", "decoder_embed."),
        ("decoder_pos_embed", "lowres.pos_embed"),
        ("decoder_blocks.", "lowres.stack."),
        ("decoder_norm.", "lowres.norm."),
        ("decoder_pred.", "lowres.pred."),
        ("mask_token", "mask_token"),
        ("", "encoder."),
    ],
    "mocov3": [
        ("base_encoder.head.", "projector."),
        ("base_encoder.", "encoder."),
        ("momentum_encoder.head.", "key_projector."),
        ("momentum_encoder.", "key_encoder."),
        ("predictor.", "predictor."),
    ],
}
# Options of each kind: our name -> the reference's. Constants of the public code stand in the test below.
OPTIONS = {
    "full": {},
    "linformer": {"rank": "k"},
    "performer": {},
    "nystrom": {
        "landmarks": "num_landmarks",
        "pinv_iterations": "pinv_iterations",
        "pinv_init": "pinv_init",
        "residual_kernel": "conv_kernel",
    },
}


def section(file: Path, prefix: str) -> dict[str, Tensor]:
    with np.load(file) as arrays:
        return {name[len(prefix) :]: torch.from_numpy(arrays[name]) for name in arrays if name.startswith(prefix)}


def config_of(file: Path) -> dict:
    with np.load(file) as arrays:
        return json.loads(str(arrays["config"]))


def objective_of(config: dict) -> str:
    return "mocov3" if "projector_hidden" in config else "miram" if "highres_attention" in config else "mae"


def cases() -> list:
    """Each file, with the backends that its configuration is possible in."""
    found = []
    for file in sorted(FOLDER.glob("*.npz")):
        kind = config_of(file).get("highres_attention", "full")
        backends = [None] if kind == "full" else ["fused", "package"]
        if config_of(file).get("pinv_init") == "matrix":
            backends.remove("package")
        found += [pytest.param(file, backend, id="-".join(filter(None, (file.stem, backend)))) for backend in backends]
    return found or [
        pytest.param(
            None,
            None,
            marks=pytest.mark.skip(reason=f"no golden files in {FOLDER}; MIRAM_GOLDEN_DIR names their folder"),
        )
    ]


def build(config: dict, backend: str | None) -> nn.Module:
    kind = config.get("highres_attention")
    options = {ours: config[theirs] for ours, theirs in OPTIONS.get(kind, {}).items()}
    if kind == "performer":
        options["redraw_interval"] = 0
    return build_pretrainer(
        objective_of(config),
        side=config["img_size"],
        encoder={
            "patch": config["patch_size"],
            "channels": config["in_chans"],
            "width": config["embed_dim"],
            "depth": config["depth"],
            "heads": config["num_heads"],
            "mlp_ratio": config["mlp_ratio"],
        },
        decoder={
            "width": config.get("decoder_embed_dim"),
            "depth": config.get("decoder_depth"),
            "heads": config.get("decoder_num_heads"),
            "mlp_ratio": config["mlp_ratio"],
        },
        attention=kind,
        backend=backend,
        options=options,
        highres={"scale": config.get("scale"), "target": config.get("highres_target")},
        encoder_init=None,
        loss_on=config.get("loss_on"),
        mask_ratio=config.get("mask_ratio"),
        moco={
            "projector_width": config.get("projector_hidden"),
            "projector_out": config.get("projector_out"),
            "temperature": config.get("temperature"),
        },
        recompute=False,
    )


def our_name(name: str, objective: str) -> str | None:
    pairs = NAMES["mocov3" if objective == "mocov3" else "masked"]
    theirs, ours = next(pair for pair in pairs if name.startswith(pair[0]))
    return None if ours is None else ours + name[len(theirs) :]


def renamed(tensors: dict[str, Tensor], objective: str) -> dict[str, Tensor]:
    named = {our_name(name, objective): value for name, value in tensors.items()}
    named.pop(None, None)
    return named


def assert_near(actual: Tensor, expected: Tensor, what: str) -> None:
    largest = expected.abs().max().item()
    error = (actual.detach() - expected).abs().max().item()
    assert actual.shape == expected.shape and error <= TOLERANCE * largest, f"{what}: off by {error} of {largest}"


@pytest.mark.parametrize(("file", "backend"), cases())
def test_reproduces_the_reference(file: Path, backend: str | None) -> None:
    config, inputs, outputs = config_of(file), section(file, "in/"), section(file, "out/")
    assert config["norm_eps"] == 1e-6 and config.get("norm_pix_loss", True) and config.get("share_kv", True)
    objective = objective_of(config)
    model = build(config, backend)
    built = {name: value.clone() for name, value in model.named_buffers()}
    state = renamed(section(file, "state/"), objective)
    model.load_state_dict(state)

    if objective == "mocov3":
        result = model(inputs["x1"], inputs["x2"], inputs["momentum"].item())
    else:
        for name in ("encoder.pos_embed", "lowres.pos_embed"):
            assert_near(built[name], state[name], name)
        result = model(inputs["imgs"], inputs["noise"])
        assert torch.equal(result.mask, outputs["mask"])
        kept = random_masking(inputs["noise"], config["mask_ratio"])[0]
        latent = model.encoder.encode(take(model.encoder.patchify(inputs["imgs"]), kept), kept)
        assert_near(latent, outputs["latent"], "latent")
        assert_near(result.lowres_pred, outputs["pred"], "lowres_pred")
    if objective == "miram":
        assert_near(built["highres.pos_embed"], state["highres.pos_embed"], "highres.pos_embed")
        assert_near(result.highres_pred, outputs["highres_pred"], "highres_pred")
    assert_near(result.loss, outputs["loss"], "loss")

    result.loss.backward()
    parameters = dict(model.named_parameters())
    gradients = {name: value.grad for name, value in parameters.items() if value.grad is not None}
    assert_near(nn.utils.get_total_norm(gradients.values()), outputs["grad_norm"], "grad_norm")
    expected_gradients = renamed(section(file, "grad/"), objective)
    assert expected_gradients
    for name, value in expected_gradients.items():
        assert_near(gradients[name], value, f"gradient of {name}")
    for name, value in renamed(section(file, "after/"), objective).items():
        assert_near(parameters[name], value, f"{name} after the step")
