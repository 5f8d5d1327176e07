"""Networks of timm, with random weights in local files."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from miram.errors import MiramError
from miram.models._timm import create_model
from miram.models.classifier import Classifier
from miram.models.export import load_weights
from miram.models.timm_encoder import TimmEncoder
from miram.train.augment import to_images

VIT, RESNET = "test_vit", "test_resnet.r160_in1k"
State = dict[str, Tensor]


def encoder(name: str, side: int = 64) -> TimmEncoder:
    return TimmEncoder(timm=name, side=side, drop_path=0.0).eval()


def stirred(network: nn.Module) -> nn.Module:
    """The network, none of its weights as they begin: some are 0, of which others then learn nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return network.eval()


def drawn(name: str, **changes: int) -> nn.Module:
    """A network of timm with its head and random weights."""
    return stirred(create_model(name, **changes))


@pytest.mark.parametrize(("name", "width", "grid"), [(VIT, 64, 4), (RESNET, 96, 2)])
def test_features_are_those_before_timms_head_of_images_normalised_as_timm_does(
    tmp_path: Path, name: str, width: int, grid: int
) -> None:
    network = drawn(name, num_classes=7, **({"img_size": 64} if name == VIT else {}))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    found = encoder(name)
    load_weights(found, tmp_path / "weights.safetensors")
    assert (found.width, found.grid, found.architecture) == (width, grid, {"timm": name, "side": 64})
    grey = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    own = (grey[:, None].float() / 255 - 0.5) / 0.5  # the mean and deviation of either name
    expected = network.forward_head(network.forward_features(own.expand(-1, 3, -1, -1)), pre_logits=True)
    torch.testing.assert_close(found(to_images(grey, 3)), expected, rtol=1e-4, atol=1e-4)


def names_of(module: str) -> Callable[[State], dict[str, object]]:
    return lambda state: {f"{module}{name}": value for name, value in state.items()}


MORE = {"epoch": 7, "args": argparse.Namespace(lr=1.0)}
FORMS: dict[str, Callable[[State], dict[str, object]]] = {
    "bare": lambda state: dict(state),
    "MAE": lambda state: (
        {"model": {**state, "mask_token": torch.zeros(1), "decoder_pred.weight": torch.zeros(1)}} | MORE
    ),
    "DataParallel": lambda state: {"state_dict": names_of("module.")(state)},
    "teacher beside student": lambda state: {
        "teacher": names_of("backbone.")(state),
        "student": names_of("module.backbone.")({name: value + 1 for name, value in state.items()}),
    },
    "momentum encoder beside its base": lambda state: {
        "state_dict": names_of("module.base_encoder.")(state)
        | names_of("module.momentum_encoder.")({name: value + 1 for name, value in state.items()})
    },
    "compiled": names_of("_orig_mod."),
}


@pytest.mark.parametrize("name", [VIT, RESNET])
@pytest.mark.parametrize("form", FORMS)
def test_files_are_read_as_training_programs_save_them(tmp_path: Path, name: str, form: str) -> None:
    state = drawn(name, num_classes=7).state_dict()
    torch.save(FORMS[form](state), tmp_path / "weights.pth")
    found = encoder(name, 160)
    load_weights(found, tmp_path / "weights.pth")
    own = found.network.state_dict()
    assert own and all(torch.equal(value, state[key]) for key, value in own.items())


def test_layer_scale_and_register_tokens_of_dino_v2_stay_what_they_are(tmp_path: Path) -> None:
    state = drawn("vit_small_patch14_reg4_dinov2", depth=2, embed_dim=24, num_heads=2, num_classes=0).state_dict()
    theirs = {key.replace("reg_token", "register_tokens"): value for key, value in state.items()}
    theirs["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), theirs["pos_embed"]], 1)  # a class token's position
    torch.save({**theirs, "mask_token": torch.zeros(1, 24)}, tmp_path / "dino.pth")
    found = encoder(VIT)
    found.network = create_model(
        "vit_small_patch14_reg4_dinov2", depth=2, embed_dim=24, num_heads=2, num_classes=0, img_size=28
    )
    load_weights(found, tmp_path / "dino.pth")
    own = found.network.state_dict()
    assert torch.equal(own["reg_token"], state["reg_token"])
    assert torch.equal(own["blocks.1.ls1.gamma"], state["blocks.1.ls1.gamma"])


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({}, "holds no weights"),
        ({"norm.bias": None}, "norm.bias absent instead of (64,)"),
        ({"norm.bias": torch.zeros(5)}, "norm.bias (5,) instead of (64,)"),
        ({"blocks.9.norm1.weight": torch.zeros(64)}, "blocks.9.norm1.weight where there is none"),
        ({"patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)}, "patch_embed.proj.weight (64, 3, 8, 8) instead of"),
    ],
)
def test_a_file_that_does_not_fit_names_what_does_not(tmp_path: Path, held: dict[str, Tensor], named: str) -> None:
    state = {**drawn(VIT).state_dict(), **held} if held else {}
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "weights.pth")
    with pytest.raises(MiramError, match=r"weights\.pth") as fault:
        load_weights(encoder(VIT), tmp_path / "weights.pth")
    assert named in fault.value.message
    assert not held or "does not hold the weights of timm's test_vit" in fault.value.message
    assert not held or "as `timm` under `encoders`" in fault.value.remedy


@pytest.mark.parametrize(("name", "other"), [(VIT, RESNET), (RESNET, VIT)])
def test_a_file_of_another_kind_of_network_is_refused(tmp_path: Path, name: str, other: str) -> None:
    torch.save(drawn(other).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(MiramError, match="does not hold the weights of timm's"):
        load_weights(encoder(name), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "side", "named"),
    [
        ("nonesuch", 64, "timm has no network nonesuch"),
        ("hf-hub:timm/resnet50.a1_in1k", 64, "timm has no network hf-hub:timm/resnet50.a1_in1k"),
        ("resnet50.nonesuch", 64, r"Invalid pretrained tag \(nonesuch\)"),
        (VIT, 50, "side 50 px is not a multiple of its stride, 16 px"),
        (RESNET, 32, "side 32 px is not more than its stride, 32 px"),
    ],
)
def test_a_name_or_a_side_that_timm_cannot_build_is_refused(name: str, side: int, named: str) -> None:
    with pytest.raises(MiramError, match=named):
        encoder(name, side)


@pytest.mark.parametrize("name", [VIT, RESNET])
def test_a_classifier_learns_in_every_parameter_and_its_layers_go_from_the_images_to_the_head(name: str) -> None:
    model = Classifier(encoder(name), classes=4, pool="own", head_init_std=1.0)
    stirred(model.encoder.network)
    nn.functional.cross_entropy(model(torch.rand(3, 3, 64, 64)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    layers = model.encoder.layers()
    assert layers.keys() == {key for key, _ in model.encoder.named_parameters()}
    last = "network.blocks.5.mlp.fc2.weight" if name == VIT else "network.layer4.0.conv2.weight"
    first = "network.patch_embed.proj.weight" if name == VIT else "network.conv1.0.weight"
    assert layers[first] == 0 and layers[last] == max(layers.values()) == (6 if name == VIT else 4)
