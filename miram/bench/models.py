"""The forms and sizes of what is measured, and an attention layer at the sizes of a preset."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from miram import kinds
from miram.bench.timing import Phases, clock
from miram.models.attention import build_stack
from miram.recipe import Recipe


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
        make_naive(layer)
    return layer


def make_naive(layer: nn.Module) -> None:
    """Have full attention store the matrix of all pairs of tokens."""
    layer.fused_attn = False  # type: ignore[assignment]  # timm's switch, which torch's types do not know


def forward_and_backward(layer: Callable[[Tensor], Tensor], x: Tensor) -> Phases:
    """Seconds of both passes."""
    start = clock()
    output = layer(x).sum()
    middle = clock()
    output.backward()
    return {"forward": middle - start, "backward": clock() - middle}
