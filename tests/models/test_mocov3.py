from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from benchmarks.mocov3_plain import straightforward_loss
from miram.models.encoder import Encoder
from miram.models.mocov3 import MoCoV3
from miram.planning.kept import kept_bytes


def moco(depth: int = 2, accumulate: int = 1) -> MoCoV3:
    torch.manual_seed(0)
    encoder = Encoder(side=24, patch=8, channels=1, width=16, depth=depth, heads=2, mlp_ratio=2.0, drop_path=0.0)
    return MoCoV3(encoder, projector_width=32, projector_out=8, temperature=0.2, accumulate=accumulate)


def views(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(count, 1, 24, 24, generator=generator) for _ in range(2))


EXACTLY = {"rtol": 1e-9, "atol": 1e-10}


def moved_apart(*models: MoCoV3) -> None:
    """Change the query encoder of each alike, so that the moving average has something to do."""
    for model in models:
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def assert_same(one: MoCoV3, other: MoCoV3) -> None:
    """State, with the key encoder and BatchNorm's statistics, and gradients."""
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), **EXACTLY)
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, **EXACTLY)


def test_equals_the_straightforward_form_in_loss_gradients_and_state() -> None:
    ours, plain = moco().double(), moco().double()
    plain.load_state_dict(ours.state_dict())
    moved_apart(ours, plain)
    first, second = (images.double() for images in views(6))
    loss = ours(first, second, 0.9).loss
    expected = straightforward_loss(plain, first, second, 0.9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, **EXACTLY)
    assert_same(ours, plain)


@pytest.mark.parametrize("accumulate", [2, 3, 12])
def test_a_divided_batch_has_the_loss_gradients_and_state_of_the_whole(accumulate: int) -> None:
    divided, whole = moco(accumulate=accumulate).double(), moco().double()
    moved_apart(divided, whole)
    for first, second in [[images.double() for images in views(6)]] * 2:
        outputs = [model(first, second, 0.9) for model in (divided, whole)]
        for output in outputs:
            output.loss.backward()
        torch.testing.assert_close(outputs[0], outputs[1], **EXACTLY)
    assert_same(divided, whole)


def test_a_divided_batch_keeps_the_activations_of_one_part_alone() -> None:
    first, second = views(32)
    kept = [kept_bytes(partial(moco(accumulate=parts), first, second, 0.9)) for parts in (1, 2, 8)]
    assert kept[1] == kept[2] < kept[0] / 2
    encoded = []
    model = moco(accumulate=4)
    model.encoder.blocks[0].register_forward_hook(lambda block, inputs, output: encoded.append(len(output)))
    model(first, second, 0.9).loss.backward()
    assert encoded == [16] * 8  # forward, and again in the backward pass


def test_the_patch_projection_and_the_key_side_are_frozen_and_the_rest_learns() -> None:
    model = moco()
    model(*views(4), 0.99).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = {name for name, _ in model.named_parameters() if not name.startswith(("key_", "encoder.patch_embed."))}
    assert learning == expected == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_momentum_one_leaves_the_key_encoder_alone_and_less_moves_it() -> None:
    model = moco()
    with torch.no_grad():
        model.encoder.cls_token.add_(1)
    before = model.key_encoder.cls_token.clone()
    model(*views(4), 1.0)
    assert torch.equal(model.key_encoder.cls_token, before)
    model(*views(4), 0.75)
    torch.testing.assert_close(model.key_encoder.cls_token, before + 0.25)


def test_the_spread_is_zero_for_collapsed_features_and_near_one_for_random_ones() -> None:
    model = moco(depth=1)
    with torch.no_grad():
        model.encoder.norm.weight.zero_()
        model.encoder.norm.bias.fill_(1)
    assert model(*views(4), 0.99).feature_std.item() == pytest.approx(0, abs=1e-6)
    model.encoder.class_features = lambda images: torch.randn(len(images), 16)
    assert model(*views(200), 0.99).feature_std.item() == pytest.approx(1, abs=0.1)


def half_a_batch(rank: int, address: str, results: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    # Without batch statistics, which only GPUs share, each process computes what one process would of its half.
    model = moco().eval()
    output = model(*(images.chunk(2)[rank] for images in views(8)), 0.99)
    output.loss.backward()
    torch.save((output.loss.detach(), model.encoder.cls_token.grad), f"{results}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_compare_with_each_others_keys(tmp_path: Path) -> None:
    where = f"file://{tmp_path}/meeting", str(tmp_path)
    multiprocessing.start_processes(half_a_batch, where, nprocs=2, start_method="fork")  # importing torch takes seconds
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    model = moco().eval()
    whole = model(*views(8), 0.99)
    whole.loss.backward()
    torch.testing.assert_close(sum(loss for loss, _ in halves) / 2, whole.loss.detach())
    torch.testing.assert_close(sum(gradient for _, gradient in halves) / 2, model.encoder.cls_token.grad)
