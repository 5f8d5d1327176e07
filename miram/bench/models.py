"""What is measured: an attention layer, a step of pre-training, a step of fine-tuning, at the sizes of a preset.

`values` are those of the stage `pretrain` of one method, with the names of params.yaml.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.mocov3_plain import straightforward_loss
from miram.bench.timing import Phases, clock
from miram.models.attention import build_stack
from miram.models.classifier import Classifier
from miram.models.encoder import Encoder
from miram.train.pretrain import parameter_groups
from miram.train.recipe import Recipe

FIRST_ATTENTION = {  # where the first attention lies in a stack
    "full": "0.attn",
    "linformer": "net.layers.0.0.fn",
    "performer": "net.layers.0.0.fn",
    "nystrom": "layers.0.0.fn",
}
CLASSES = 4  # of the fine-tuning step


def forms_of(values: dict[str, Any]) -> list[str]:
    """The forms of a method's attention that can be compared."""
    return ["fused", "naive"] if values["attention"] == "full" else ["fused", "package"]


def in_form(values: dict[str, Any], form: str) -> dict[str, Any]:
    """`values` with attention as the libraries make it (`package`) or as we do (`fused`)."""
    if form != "package" or values.get("attention") in (None, "full"):
        return values
    start = {"pinv_init": "batch"} if values["attention"] == "nystrom" else {}  # the only one that the package knows
    return {**values, "backend": "package", "options": values["options"] | start}


def attention_layer(values: dict[str, Any], form: str, tokens: int, device: str) -> Callable[[Tensor], Tensor]:
    """One attention of the high-resolution decoder, without the MLP; `naive` holds the matrix of all pairs."""
    values, decoder = in_form(values, form), values["decoder"]
    kind = values["attention"]
    stack = build_stack(
        kind,
        backend=values["backend"],
        dim=decoder["width"],
        depth=1,
        heads=decoder["heads"],
        tokens=tokens,
        **(values["options"] or {}),
    )
    layer = stack.get_submodule(FIRST_ATTENTION[kind]).to(device)
    if form == "naive":
        layer.fused_attn = False
    if (kind, form) == ("nystrom", "package"):  # as in training: without a mask its padding would count as tokens
        return partial(layer, mask=torch.ones(1, tokens, dtype=torch.bool, device=device))
    return layer


def forward_and_backward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Phases:
    """Seconds of both passes."""
    start = clock()
    output = layer(x).sum()
    middle = clock()
    output.backward()
    return {"forward": middle - start, "backward": clock() - middle}


def pretraining_step(
    values: dict[str, Any],
    images: int,
    device: str,
    *,
    straightforward: bool = False,
    fused_adamw: bool = True,
    naive: bool = False,
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """The forward pass of a method on so many random images, and its whole training step.

    With `naive` the high-resolution decoder's full attention holds the matrices of all pairs of tokens.
    """
    fields = {field.name for field in dataclasses.fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in values.items() if name in fields})
    model = recipe.build().to(device)
    if naive:
        for block in model.highres.stack:
            block.attn.fused_attn = False
    groups = parameter_groups(model, recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(recipe.beta1, recipe.beta2), fused=fused_adamw)
    pixels = torch.randn(2, images, recipe.encoder["channels"], recipe.side, recipe.side, device=device)
    if recipe.objective == "mocov3":
        loss = partial(straightforward_loss, model) if straightforward else lambda *views: model(*views).loss
        compute = partial(loss, *pixels, recipe.moco["momentum"])
    else:
        noise = torch.rand(images, recipe.patches, device=device)
        compute = lambda: model(pixels[0], noise).loss  # noqa: E731

    def forward() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            return compute()

    def step() -> None:
        forward().backward()
        optimizer.step()
        optimizer.zero_grad()

    return forward, step


def finetuning_step(values: dict[str, Any], images: int, device: str) -> Callable[[], None]:
    """A training step of the classifier on so many random images."""
    encoder = Encoder(side=values["side"], **values["encoder"], drop_path=0.1)
    model = Classifier(encoder, classes=CLASSES, pool="mean", head_init_std=0.01).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    pixels = torch.randn(images, values["encoder"]["channels"], values["side"], values["side"], device=device)
    labels = torch.randint(CLASSES, (images,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=values["precision"] == "bf16-mixed"):
            loss = cross_entropy(model(pixels), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
