"""What is pre-trained, fine-tuned, probed and explained, and how: params builds it and train reads it.

Names, units and sources are those of params.yaml. Neither room imports the other.
"""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from miram import kinds
from miram.kinds import STRICT, AskedPrecision, Count, Parts

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# mean and deviation of grey levels in [0, 1] that images are normalised by, one for each of three channels
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pair = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


@dataclass(frozen=True, config=STRICT)
class Encoder:
    """The Vision Transformer that is pre-trained; sizes in tokens' widths and px."""

    patch: Count
    channels: Literal[1, 3]
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive

    def architecture(self, side: int) -> dict[str, Any]:
        """The keywords of `models.encoder.Encoder` for images of `side` px."""
        return {"side": side, **dataclasses.asdict(self)}


@dataclass(frozen=True, config=STRICT)
class Timm:
    """A network of timm by its name, and the file of its weights; None: random ones."""

    timm: str
    weights: str | None

    def architecture(self, side: int) -> dict[str, Any]:
        """The keywords of `models.timm_encoder.TimmEncoder` for images of `side` px."""
        return {"timm": self.timm, "side": side}


@dataclass(frozen=True, config=STRICT)
class GivenEncoder(Timm):
    """A row that no pre-training here made; without a `side` it has that of `pretrain`."""

    side: Count | None = None


@dataclass(frozen=True, config=STRICT)
class Decoder:
    """The low-resolution decoder; the high-resolution one has the same sizes."""

    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive


@dataclass(frozen=True, config=STRICT)
class Highres:
    """The high-resolution decoder of MIRAM."""

    scale: Literal[2, 4]
    target: Literal["upsampled", "native"]


@dataclass(frozen=True, config=STRICT)
class Moco:
    """MoCo-v3: its heads, its loss, its views."""

    projector_width: Count
    projector_out: Count
    temperature: Positive
    momentum: Fraction
    jitter_brightness: NonNegative
    jitter_contrast: NonNegative
    jitter_probability: Fraction
    blur_sigma_min: Positive
    blur_sigma_max: Positive
    blur_probabilities: Pair
    solarise_probabilities: Pair


@dataclass(frozen=True, config=STRICT)
class LearningRates:
    """Peak learning rates of fine-tuning under each protocol; of several, validation chooses with the first seed."""

    strict: Annotated[list[Positive], Field(min_length=1)]
    published: Annotated[list[Positive], Field(min_length=1)]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the pre-trained weights of a method; None: the objective does not read it."""

    objective: str
    encoder: Encoder
    seed: int
    side: int
    batch: int  # images per optimiser step, over all micro-batches and devices
    accumulate: Parts
    epochs: int
    warmup_epochs: int
    lr_per_256: float
    weight_decay: float
    beta1: float
    beta2: float
    crop_scale_min: float
    precision: AskedPrecision
    compile: bool
    recompute: bool
    encoder_init: str | None
    mask_ratio: float | None = None
    loss_on: str | None = None
    decoder: Decoder | None = None
    highres: Highres | None = None
    attention: str | None = None
    backend: str | None = None
    options: dict[str, Any] | None = None
    moco: Moco | None = None

    def __hash__(self) -> int:
        return hash(repr(self))  # `options` has no hash of its own

    @property
    def name(self) -> str:
        """Objective and attention, for messages."""
        return "-".join(filter(None, (self.objective, self.attention)))

    @property
    def masked(self) -> bool:
        """Whether the model reconstructs masked patches; otherwise it gets two views of an image."""
        return kinds.OBJECTIVES[self.objective].masked

    @property
    def divides_batch(self) -> bool:
        """Whether the model gets a whole batch and divides it by `accumulate` itself."""
        return "accumulate" in kinds.OBJECTIVES[self.objective].reads

    @property
    def micro_batches(self) -> int:
        """The parts of a batch that have a loss each, once `accumulate` is a number."""
        return 1 if self.divides_batch else self.parts

    @property
    def parts(self) -> int:
        """`accumulate`, once it is a number."""
        assert isinstance(self.accumulate, int)
        return self.accumulate

    @property
    def fewest_parts(self) -> int:
        """`accumulate`, or where it is auto what it takes if all fits: 1."""
        return self.accumulate if isinstance(self.accumulate, int) else 1

    @property
    def lr(self) -> float:
        """Peak learning rate: `lr_per_256` refers to a batch of 256."""
        return self.lr_per_256 * self.batch / 256

    @property
    def patches(self) -> int:
        """Patches of an input image."""
        return (self.side // self.encoder.patch) ** 2

    @property
    def native_scale(self) -> int | None:
        """Side of the native high-resolution image / side of the input; None where the target is not native."""
        return self.highres.scale if self.highres and self.highres.target == "native" else None

    @property
    def view_side(self) -> int:
        """Side of a view in px: that of the input, or of the native high-resolution image."""
        return self.side * (self.native_scale or 1)

    @property
    def moco_views(self) -> list[dict[str, float]]:
        """The keywords of `augment.draw_moco_view` for the first and for the second view."""
        assert self.moco is not None
        shared = {
            name: value
            for name, value in dataclasses.asdict(self.moco).items()
            if name.startswith(("jitter_", "blur_sigma_"))
        }
        blur, solarise = self.moco.blur_probabilities, self.moco.solarise_probabilities
        return [
            {**shared, "blur_probability": p_blur, "solarise_probability": p_solarise}
            for p_blur, p_solarise in zip(blur, solarise, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Classifying:
    """What decides every classifier of lesions, and its device."""

    task: str
    seed: int
    encoder: Encoder | Timm
    side: int
    pool: str
    threshold: float
    accelerator: str
    precision: AskedPrecision
    threads: int
    pretrain_seed: int | None = dataclasses.field(
        default=None, kw_only=True
    )  # of its start; None: not pre-trained here


@dataclasses.dataclass(frozen=True)
class Tuning(Classifying):
    """What decides a fine-tuning."""

    head_init_std: float
    keep_network: bool
    batch: int
    epochs: int
    warmup_epochs: int
    lr: list[float]  # at the peak; validation chooses one
    weight_decay: float
    layer_decay: float  # 1: off
    drop_path: float
    mixup: float  # 0: off
    rotation_degrees: float
    zoom_min: float
    zoom_max: float
    intensity_shift: float

    @property
    def augmentation(self) -> dict[str, float]:
        """The keywords of `augment.finetune_view`."""
        names = ("rotation_degrees", "zoom_min", "zoom_max", "intensity_shift")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class LinearProbe(Classifying):
    """What decides a linear classifier of frozen features."""

    linear_c: list[float]
    linear_iterations: int
    mode: Literal["linear"] = "linear"


@dataclasses.dataclass(frozen=True)
class NeighbourProbe(Classifying):
    """What decides a classification by the nearest neighbours among frozen features."""

    knn_neighbours: int
    mode: Literal["knn"] = "knn"


@dataclasses.dataclass(frozen=True)
class Trivial:
    """What decides the classifiers that see no lesion."""

    task: str
    seed: int  # of the trees
    threshold: float
    bins: int
    rounds: list[int]
    linear_c: list[float]
    linear_iterations: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Explaining:
    """What decides the relevance maps and the maps of features, and where they are computed."""

    task: str
    accelerator: str
    precision: AskedPrecision
    threads: int
