import pytest
import torch
from torch.nn import functional as F

from miram.models.classifier import Classifier
from miram.models.encoder import Encoder


def encoder() -> Encoder:
    return Encoder(side=24, patch=8, channels=1, width=16, depth=2, heads=2, mlp_ratio=2.0, drop_path=0.0)


def test_mean_pools_the_patch_tokens_before_a_norm_of_its_own() -> None:
    images, start = torch.rand(2, 1, 24, 24), encoder()
    tokens = start.blocks(start.embed(start.patchify(images)))
    model = Classifier(start, classes=4, pool="mean", head_init_std=1.0)
    expected = model.head(F.layer_norm(tokens[:, 1:].mean(1), (16,), eps=1e-6))
    torch.testing.assert_close(model(images), expected)


def test_class_takes_the_normalised_class_token() -> None:
    images, start = torch.rand(2, 1, 24, 24), encoder()
    model = Classifier(start, classes=4, pool="class", head_init_std=1.0)
    torch.testing.assert_close(model(images), model.head(start(images)[:, 0]))


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_every_parameter_learns(pool: str) -> None:
    model = Classifier(encoder(), classes=4, pool=pool, head_init_std=1.0)
    F.cross_entropy(model(torch.rand(3, 1, 24, 24)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_the_head_starts_at_the_given_spread_without_bias() -> None:
    head = Classifier(encoder(), classes=400, pool="mean", head_init_std=2e-5).head
    assert head.weight.std().item() == pytest.approx(2e-5, rel=0.1) and not head.bias.any()


def test_another_pool_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="pool 'max': one of mean, class"):
        Classifier(encoder(), classes=4, pool="max", head_init_std=1.0)
