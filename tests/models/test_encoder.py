import pytest
import torch

from miram.models._timm import create_model
from miram.models.encoder import Encoder
from miram.models.patches import take

TINY = {"side": 24, "patch": 8, "channels": 3, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 4.0, "drop_path": 0.0}


def encoder(**changes: int) -> Encoder:
    return Encoder(**TINY | changes)


def test_weights_load_into_timm_and_back_and_compute_the_same() -> None:
    ours = Encoder(side=32, patch=16, channels=3, width=192, depth=12, heads=3, mlp_ratio=4.0, drop_path=0.0)
    timms = create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    images = torch.randn(2, 3, 32, 32)
    timms.load_state_dict(ours.state_dict())
    torch.testing.assert_close(timms.forward_features(images), ours(images), rtol=1e-5, atol=1e-4)

    other = create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(other.forward_features(images), ours(images), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_the_papers_encoder_is_timms_vit_base() -> None:
    ours = Encoder(side=224, patch=16, channels=3, width=768, depth=12, heads=12, mlp_ratio=4.0, drop_path=0.0)
    create_model("vit_base_patch16_224", num_classes=0).load_state_dict(ours.state_dict())


def test_kept_patches_get_the_tokens_of_their_places() -> None:
    model = encoder()
    patches = torch.randn(2, 9, 192)
    kept = torch.tensor([[8, 0, 3], [1, 2, 7]])
    everything = model.embed(patches)
    torch.testing.assert_close(model.embed(take(patches, kept), kept)[:, 1:], take(everything[:, 1:], kept))


@pytest.mark.parametrize("depth", [1, 3])
def test_the_class_token_alone_equals_the_full_pass_with_all_gradients(depth: int) -> None:
    model = encoder(depth=depth).double()
    model.pos_embed.normal_()
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    results = []
    for features in (model.class_features(images), model(images)[:, 0]):
        model.zero_grad()
        features.square().sum().backward()
        results.append((features, [parameter.grad.clone() for parameter in model.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("side", "patch", "channels"), [(24, 8, 1), (30, 5, 3), (28, 14, 2)])
def test_takes_any_side_patch_and_channels(side: int, patch: int, channels: int) -> None:
    model = encoder(side=side, patch=patch, channels=channels)
    assert model(torch.randn(1, channels, side, side)).shape == (1, 1 + (side // patch) ** 2, 16)


def test_a_side_that_the_patch_does_not_divide_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="side 50 px is not a multiple of the patch of 8 px"):
        encoder(side=50)


def test_heads_that_do_not_divide_the_width_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="width 16 is not a multiple of 3 heads"):
        encoder(heads=3)


def test_images_of_another_shape_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\(1, 24, 24\); this encoder takes \(3, 24, 24\)"):
        encoder()(torch.zeros(1, 1, 24, 24))


def test_positions_are_saved_but_not_trained() -> None:
    model = encoder()
    assert "pos_embed" in model.state_dict() and "pos_embed" not in dict(model.named_parameters())


def test_drop_path_grows_to_its_value_at_the_last_block() -> None:
    blocks = encoder(depth=3, drop_path=0.1).blocks
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks] == pytest.approx([0.0, 0.05, 0.1])


def test_initialisation_is_that_of_the_public_code() -> None:
    model = encoder(width=64)
    weight = model.blocks[0].attn.qkv.weight
    bound = (6 / sum(weight.shape)) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    assert not model.blocks[0].mlp.fc1.bias.any() and model.patch_embed.proj.bias.any()
    bound = (6 / (64 + 192)) ** 0.5
    assert 0.95 * bound < model.patch_embed.proj.weight.abs().max() <= bound
    assert 0.01 < model.cls_token.std() < 0.03
    assert model.norm.weight.eq(1).all() and model.norm.eps == 1e-6
