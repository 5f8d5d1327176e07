"""What is measured: an attention layer, a step of pre-training, a step of fine-tuning, at the sizes of a preset."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from miram import kinds
from miram.bench.timing import Phases, clock
from miram.models.attention import build_stack
from miram.models.build import build_pretrainer
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.recipe import Recipe
from miram.train.loop import parameter_groups
from miram.train.recipe import random_inputs

CLASSES = 4  # of the fine-tuning step


def forms_of(recipe: Recipe) -> tuple[str, ...]:
    """The forms of a method's attention that can be compared; for a method without a choice, ours."""
    return kinds.ATTENTION[recipe.attention].forms if recipe.attention else (kinds.OURS,)


def in_form(recipe: Recipe, form: str) -> Recipe:
    """The recipe with the attention of the libraries (`package`) or ours (`fused`)."""
    if form != kinds.PACKAGE or recipe.attention is None or form not in forms_of(recipe):
        return recipe
    options = {**(recipe.options or {}), **kinds.ATTENTION[recipe.attention].package_options}
    return replace(recipe, backend=kinds.PACKAGE, options=options)


def shrunk(recipe: Recipe) -> Recipe:
    """The method at a size that trains on any CPU within a second."""
    return replace(
        recipe,
        side=min(recipe.side, 7 * recipe.encoder.patch),
        encoder=replace(recipe.encoder, width=64, depth=2, heads=2),
        decoder=recipe.decoder and replace(recipe.decoder, width=32, depth=1, heads=2),
        moco=recipe.moco and replace(recipe.moco, projector_width=64, projector_out=32),
        accumulate=1,
    )


def attention_layer(recipe: Recipe, form: str, tokens: int, device: str) -> nn.Module:
    """One attention of the high-resolution decoder, without the MLP; `naive` stores the matrix of all pairs."""
    recipe = in_form(recipe, form)
    assert recipe.attention is not None and recipe.decoder is not None
    stack = build_stack(
        recipe.attention,
        backend=recipe.backend,
        dim=recipe.decoder.width,
        depth=1,
        heads=recipe.decoder.heads,
        tokens=tokens,
        **(recipe.options or {}),
    )
    layer = stack.get_submodule(kinds.ATTENTION[recipe.attention].first_layer).to(device)
    if form == kinds.NAIVE:
        _make_naive(layer)
    return layer


def _make_naive(layer: nn.Module) -> None:
    layer.fused_attn = False  # type: ignore[assignment]  # timm's switch, which torch's types do not know


def loss_of(model: nn.Module, *inputs: Tensor | float) -> Tensor:
    """The loss of a model on its inputs."""
    return model(*inputs).loss


def forward_and_backward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Phases:
    """Seconds of both passes."""
    start = clock()
    output = layer(x).sum()
    middle = clock()
    output.backward()
    return {"forward": middle - start, "backward": clock() - middle}


def pretraining_step(
    recipe: Recipe,
    images: int,
    device: str,
    *,
    loss: Callable[..., Tensor] = loss_of,
    fused_adamw: bool = True,
    naive: bool = False,
    accumulate: int = 1,
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """The forward pass of a method on this many random images, and its whole training step.

    `loss` is called with the model and its inputs. With `naive` the high-resolution decoder's full attention stores the
    matrices of all pairs of tokens. A model that divides its batch itself does so by `accumulate`.
    """
    model = build_pretrainer(replace(recipe, accumulate=accumulate)).to(device)
    if naive:
        for block in model.get_submodule("highres").get_submodule("stack").children():
            _make_naive(block.get_submodule("attn"))
    groups = parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(recipe.beta1, recipe.beta2), fused=fused_adamw)
    inputs = random_inputs(recipe, images, device)

    def forward() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            return loss(model, *inputs)

    def step() -> None:
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    return forward, step


def finetuning_step(recipe: Recipe, images: int, device: str) -> Callable[[], None]:
    """A training step of the classifier on this many random images."""
    encoder = Encoder(side=recipe.side, **asdict(recipe.encoder), drop_path=0.1)
    model = Classifier(encoder, classes=CLASSES, pool="mean", head_init_std=0.01).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    pixels = torch.randn(images, recipe.encoder.channels, recipe.side, recipe.side, device=device)
    labels = torch.randint(CLASSES, (images,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            loss = cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
