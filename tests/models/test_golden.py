"""The models against tensors of the public implementations (golden/README.md).

`MIRAM_GOLDEN_DIR` names a folder of such files to read instead.
"""

import io
import json
import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recipe import recipe
from torch import Tensor, nn

from miram.models.build import build_pretrainer
from miram.models.patches import random_masking, take

ARCHIVE = Path(__file__).parent / "golden" / "golden.tar.xz"
FOLDER = os.environ.get("MIRAM_GOLDEN_DIR")
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


@cache
def golden_files() -> dict[str, bytes]:
    """The files of numbers, by the name of their configuration."""
    if FOLDER:
        return {file.stem: file.read_bytes() for file in sorted(Path(FOLDER).glob("*.npz"))}
    with tarfile.open(ARCHIVE) as archive:
        return {Path(member.name).stem: archive.extractfile(member).read() for member in archive}


def section(name: str, prefix: str) -> dict[str, Tensor]:
    with np.load(io.BytesIO(golden_files()[name])) as arrays:
        return {key[len(prefix) :]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(prefix)}


def config_of(name: str) -> dict:
    with np.load(io.BytesIO(golden_files()[name])) as arrays:
        return json.loads(str(arrays["config"]))


def objective_of(config: dict) -> str:
    return "mocov3" if "projector_hidden" in config else "miram" if "highres_attention" in config else "mae"


def cases() -> list:
    """Each configuration, with the backends that it is possible in."""
    found = []
    for name in golden_files():
        kind = config_of(name).get("highres_attention", "full")
        backends = [None] if kind == "full" else ["fused", "package"]
        if config_of(name).get("pinv_init") == "matrix":
            backends.remove("package")
        found += [pytest.param(name, backend, id="-".join(filter(None, (name, backend)))) for backend in backends]
    return found


def build(config: dict, backend: str | None) -> nn.Module:
    kind = config.get("highres_attention")
    options = {ours: config[theirs] for ours, theirs in OPTIONS.get(kind, {}).items()}
    if kind == "performer":
        options["redraw_interval"] = 0
    objective = objective_of(config)
    shared = {"mlp_ratio": config["mlp_ratio"]}
    values = {
        "encoder": shared
        | {
            "patch": config["patch_size"],
            "channels": config["in_chans"],
            "width": config["embed_dim"],
            "depth": config["depth"],
            "heads": config["num_heads"],
        }
    }
    if objective == "mocov3":
        names = {"projector_width": "projector_hidden", "projector_out": "projector_out", "temperature": "temperature"}
        values["moco"] = {ours: config[theirs] for ours, theirs in names.items()}
    else:
        sizes = {"width": "decoder_embed_dim", "depth": "decoder_depth", "heads": "decoder_num_heads"}
        values["decoder"] = shared | {ours: config[theirs] for ours, theirs in sizes.items()}
        values |= {name: config[name] for name in ("loss_on", "mask_ratio")}
    if objective == "miram":
        values["highres"] = {"scale": config["scale"], "target": config["highres_target"]}
        values |= {"attention": kind, "backend": backend, "options": options}
    return build_pretrainer(recipe(objective, side=config["img_size"], **values))


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


@pytest.mark.skipif(FOLDER is not None, reason="MIRAM_GOLDEN_DIR names other files")
def test_every_method_of_the_paper_has_its_reference_here() -> None:
    assert set(golden_files()) == {"mae", "full", "linformer", "performer", "nystrom", "mocov3"}


@pytest.mark.skipif(FOLDER is not None, reason="MIRAM_GOLDEN_DIR names other files")
def test_the_numbers_are_those_that_the_reference_gave(shared: Path) -> None:
    for file in (shared / "golden").glob("*.npz"):
        with np.load(file) as theirs, np.load(io.BytesIO(golden_files()[file.stem])) as ours:
            assert all(theirs[key].tobytes() == ours[key].tobytes() for key in theirs) and theirs.files == ours.files


@pytest.mark.parametrize(("name", "backend"), cases())
def test_reproduces_the_reference(name: str, backend: str | None) -> None:
    config, inputs, outputs = config_of(name), section(name, "in/"), section(name, "out/")
    assert config["norm_eps"] == 1e-6 and config.get("norm_pix_loss", True) and config.get("share_kv", True)
    objective = objective_of(config)
    model = build(config, backend)
    built = {key: value.clone() for key, value in model.named_buffers()}
    state = renamed(section(name, "state/"), objective)
    model.load_state_dict(state)

    if objective == "mocov3":
        result = model(inputs["x1"], inputs["x2"], inputs["momentum"].item())
    else:
        for embedding in ("encoder.pos_embed", "lowres.pos_embed"):
            assert_near(built[embedding], state[embedding], embedding)
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
    gradients = {key: value.grad for key, value in parameters.items() if value.grad is not None}
    assert_near(nn.utils.get_total_norm(gradients.values()), outputs["grad_norm"], "grad_norm")
    expected_gradients = renamed(section(name, "grad/"), objective)
    assert expected_gradients
    for key, value in expected_gradients.items():
        assert_near(gradients[key], value, f"gradient of {key}")
    for key, value in renamed(section(name, "after/"), objective).items():
        assert_near(parameters[key], value, f"{key} after the step")
