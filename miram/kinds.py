"""What can be pre-trained: one entry per attention kind and per objective, which every other module iterates over.

To add a kind, write a module whose function builds it, and an entry here that names that function. Nothing here imports
torch, as the workflow reads these entries at every parse.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Options = Mapping[str, Any]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # precisions, as Fabric names them
AskedPrecision = Literal["auto", Precision]  # auto: what the device is good at, see `miram.train.device`
Parts = Literal["auto"] | Count  # of a batch, one at a time on the device; auto: as few as its free memory allows

FULL = "full"  # the attention that the others are compared with
OURS, PACKAGE, NAIVE = "fused", "package", "naive"  # forms of attention: ours, the library's, the one of 2022
ATTENTION_FIELDS = ("attention", "backend", "options")  # of a method, where its objective reads `attention`
SECTIONS = ("decoder", "highres", "moco")  # of params.yaml, read only by some objectives
MASKED_ONLY = ("mask_ratio", "loss_on")  # values of `pretrain` that only some objectives read


@dataclass(frozen=True)
class Drawing:
    """Colour, marker and line of a kind in every figure, as matplotlib names them."""

    colour: str
    marker: str
    dashes: tuple[float, ...] = ()  # lengths on and off, in line widths; empty: solid


@dataclass(frozen=True)
class Setting:
    """Where an attention kind is used: the second argument of its `faults`."""

    tokens: int  # of the high-resolution decoder, with the class token
    head_width: int
    backend: str | None


def no_faults(options: Options, setting: Setting) -> Iterable[str]:
    """All combinations of options are allowed."""
    return ()


@dataclass(frozen=True)
class Attention:
    """An attention kind of the high-resolution decoder.

    `build` is "module:function", called with backend, dim, depth, heads, tokens and the options. `forms` are what the
    bench compares; a kind with the form `package` has a backend to choose. `first_layer` is the path of a stack's
    first attention without the MLP. `faults` lists errors in combinations of valid options;
    `package_options` replace options for the backend `package`.
    """

    build: str
    options: type
    drawing: Drawing
    first_layer: str
    forms: tuple[str, ...] = (OURS,)
    faults: Callable[[Options, Setting], Iterable[str]] = no_faults
    package_options: Options = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Objective:
    """An objective of pre-training.

    `build` is "module:class", called with an encoder and, by name, the values in `reads`: sections of params.yaml
    (SECTIONS), values of `pretrain` (MASKED_ONLY) and `attention`, which stands for ATTENTION_FIELDS. One whose loss
    compares the images of a batch reads `accumulate` as well: it gets the whole batch and divides it itself. The model
    returns a `loss`. It is called with images and masking noise where `masked`; otherwise with two views, as the
    section `moco` has them, and the momentum, and returns `feature_std` as well. `drawing` is None where the
    attention's is used.
    """

    build: str
    reads: tuple[str, ...]
    masked: bool
    drawing: Drawing | None
    pool: Literal["mean", "class"] = "mean"  # tokens of the encoder that a classifier reads
    least_images: int = 1  # of a batch on one device; 2 where BatchNorm takes their statistics

    @property
    def values(self) -> tuple[str, ...]:
        """The names of `reads` with `attention` spelt out."""
        attention = ATTENTION_FIELDS if "attention" in self.reads else ()
        return (*(name for name in self.reads if name != "attention"), *attention)


@checked_dataclass(frozen=True, config=STRICT)
class NoOptions:
    """A kind without options."""


@checked_dataclass(frozen=True, config=STRICT)
class LinformerOptions:
    """Options of attention `linformer`."""

    rank: Count


@checked_dataclass(frozen=True, config=STRICT)
class PerformerOptions:
    """Options of attention `performer`."""

    redraw_interval: Whole


@checked_dataclass(frozen=True, config=STRICT)
class NystromOptions:
    """Options of attention `nystrom`."""

    landmarks: Count
    pinv_iterations: Count
    pinv_init: Literal["matrix", "batch"]
    residual_kernel: Count


def _performer_faults(options: Options, setting: Setting) -> Iterable[str]:
    if setting.head_width < 2:
        yield f"a Performer needs heads of width 2, but decoder has {setting.head_width}"


def _nystrom_faults(options: Options, setting: Setting) -> Iterable[str]:
    landmarks, taps, init = (options[name] for name in ("landmarks", "residual_kernel", "pinv_init"))
    if landmarks > setting.tokens:
        yield f"landmarks {landmarks} exceeds the {setting.tokens} tokens"
    if taps % 2 == 0:
        yield f"residual_kernel {taps} is even: it must have a middle"
    if setting.backend == PACKAGE and init != "batch":
        yield f"pinv_init {init} is for backend fused, not package"


ATTENTION: dict[str, Attention] = {
    FULL: Attention(
        build="miram.models.attention.full:build",
        options=NoOptions,
        drawing=Drawing("#7a7a7a", "o"),
        first_layer="0.attn",
        forms=(OURS, NAIVE),
    ),
    "linformer": Attention(
        build="miram.models.attention.linformer:build",
        options=LinformerOptions,
        drawing=Drawing("#E69F00", "s", (5, 1.5)),
        first_layer="net.layers.0.0.fn",
        forms=(OURS, PACKAGE),
    ),
    "performer": Attention(
        build="miram.models.attention.performer:build",
        options=PerformerOptions,
        drawing=Drawing("#0072B2", "^", (1.5, 1.5)),
        first_layer="net.layers.0.0.fn",
        forms=(OURS, PACKAGE),
        faults=_performer_faults,
    ),
    "nystrom": Attention(
        build="miram.models.attention.nystrom:build",
        options=NystromOptions,
        drawing=Drawing("#009E73", "D"),
        first_layer="layers.0.0.fn",
        forms=(OURS, PACKAGE),
        faults=_nystrom_faults,
        package_options=MappingProxyType({"pinv_init": "batch"}),  # the only initialisation that the package has
    ),
}

OBJECTIVES: dict[str, Objective] = {
    "mae": Objective(
        build="miram.models.mae:MAE",
        reads=("decoder", "mask_ratio", "loss_on"),
        masked=True,
        drawing=Drawing("#CC79A7", "v", (6, 1.5, 1.5, 1.5)),
    ),
    "miram": Objective(
        build="miram.models.miram:MIRAM",
        reads=("decoder", "highres", "mask_ratio", "loss_on", "attention"),
        masked=True,
        drawing=None,
    ),
    "mocov3": Objective(
        build="miram.models.mocov3:build",
        reads=("moco", "accumulate"),
        masked=False,
        drawing=Drawing("#D55E00", "P", (5, 1.5)),
        pool="class",
        least_images=2,
    ),
}


def load(build: str) -> Callable[..., Any]:
    """The function or class that an entry names as "module:name"."""
    module, _, name = build.partition(":")
    return getattr(import_module(module), name)
