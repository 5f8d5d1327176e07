"""The sections of params.yaml as frozen, strict dataclasses: every key, its type and its range, and no default."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from miram import kinds
from miram.kinds import STRICT, AskedPrecision, Count, Parts, Whole
from miram.recipe import Decoder, Encoder, Fraction, GivenEncoder, Highres, LearningRates, Moco, NonNegative, Positive

DEMO = "demo"  # the preset of the phantom archive
IMAGES = "images"  # the source of own images, the only one whose task is `label`
SMALL = "small"  # the preset of small networks on the archive's own crops; it alone may replace shared values
Preset = Literal["demo", "paper", "paper-448", "paper-896", "small"]
PRESETS: tuple[str, ...] = get_args(Preset)
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Several = Field(min_length=1)  # of a list
Metric = Literal[  # those of miram.evaluate.scores; a test compares them
    "accuracy",
    "balanced_accuracy",
    "macro_ap",
    "micro_ap",
    "macro_auc",
    "micro_auc",
    "sensitivity",
    "ece",
    "brier",
]
Task = Literal["pathology_4class", "pathology", "mass_margins", "mass_shape", "calc_type", "calc_distribution", "label"]


@dataclass(frozen=True, config=STRICT)
class Tcia:
    """TCIA by its NBIA API: base addresses, or `embedded`; `csv_url` may be a folder here and in the other sources.

    `fallback`: the source of series that this one does not deliver.
    """

    collection: str
    api_url: str
    csv_url: str
    fallback: Literal["idc"] | None


@dataclass(frozen=True, config=STRICT)
class Idc:
    """The Imaging Data Commons."""

    collection: str
    bucket_urls: Annotated[list[str], Several]
    csv_url: str
    films: Literal["rows", "whole"]


@dataclass(frozen=True, config=STRICT)
class Local:
    """A folder that holds the archive."""

    folder: str
    csv_url: str


@dataclass(frozen=True, config=STRICT)
class Images:
    """Own images, their table, and the name of the folders for their results."""

    name: str
    folder: str
    table_csv: str
    levels: Literal["stored", "data", "image", "window"]
    positive: str | None
    set_aside_max: Fraction


@dataclass(frozen=True, config=STRICT)
class Sources:
    """One block per kind of source."""

    tcia: Tcia
    idc: Idc
    local: Local
    images: Images


@dataclass(frozen=True, config=STRICT)
class Transfer:
    """How the archive is transferred, and whether it is kept."""

    workers: Count
    attempts: Count
    timeout_seconds: Positive
    backoff_seconds: Positive
    keep_dicom: bool


@dataclass(frozen=True, config=STRICT)
class Archive:
    """The phantom archive of the demo."""

    patients: Annotated[int, Field(ge=40)]
    films_rows: Annotated[int, Field(ge=256)]
    films_columns: Annotated[int, Field(ge=192)]
    seed: Whole


@dataclass(frozen=True, config=STRICT)
class Crops:
    """Whose crops are used, and how a lesion is cut from its film."""

    from_: Annotated[Literal["films", "archive"], Field(alias="from")]
    doubtful: Literal["keep", "set_aside"]
    component: Literal["union", "largest"]
    shape: Literal["square", "tight"]
    margin: NonNegative
    side_min: Count
    bits: Literal[8, 16]
    air: OpenFraction


@dataclass(frozen=True, config=STRICT)
class Splits:
    """How lesions are divided."""

    protocols: Annotated[list[Literal["strict", "published"]], Several]
    further: Literal["all", "main"]
    validation_fraction: OpenFraction
    test_fraction: OpenFraction
    candidates: Count
    seed: Whole


@dataclass(frozen=True, config=STRICT)
class Pretrain:
    """Pre-training; a method may replace values for itself."""

    side: Count
    batch: Count
    accumulate: Parts
    epochs: Count
    warmup_epochs: Whole
    lr_per_256: Positive
    weight_decay: NonNegative
    beta1: OpenFraction
    beta2: OpenFraction
    mask_ratio: OpenFraction
    loss_on: Literal["removed", "all"]
    crop_scale_min: Annotated[float, Field(gt=0, le=1)]
    recompute: bool
    encoder_init: str | None
    checkpoint_every_epochs: Count


@dataclass(frozen=True, config=STRICT)
class CommonPretrain(Pretrain):
    """What is the same for all methods: the seeds, and the images that they see in addition to the lesions."""

    seeds: Annotated[list[Whole], Several]
    backgrounds_per_film: Whole
    backgrounds_seed: Whole
    extra_images: str | None


@dataclass(frozen=True, config=STRICT)
class Finetune:
    """Fine-tuning and its augmentation."""

    tasks: Annotated[list[Task], Several]
    modes: Annotated[list[Literal["finetune", "linear", "knn"]], Several]
    seeds: Annotated[list[Whole], Several]
    batch: Count
    epochs: Count
    warmup_epochs: Whole
    lr: LearningRates
    weight_decay: NonNegative
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    drop_path: Fraction
    mixup: NonNegative
    head_init_std: Positive
    head_init_std_mocov3: Positive
    rotation_degrees: NonNegative
    zoom_min: Positive
    zoom_max: Positive
    intensity_shift: NonNegative
    threshold: OpenFraction
    linear_c: Annotated[list[Positive], Several]
    linear_iterations: Count
    knn_neighbours: Count


@dataclass(frozen=True, config=STRICT)
class TrivialFit:
    """The classifiers that see no lesion; `bins` divides the 256 grey levels."""

    bins: Literal[8, 16, 32, 64, 128, 256]
    rounds: Annotated[list[Count], Several]


@dataclass(frozen=True, config=STRICT)
class Statistics:
    """Intervals, tests and verdicts; see `miram.evaluate`."""

    resamples: Annotated[int, Field(ge=2000)]  # with fewer only a handful of draws are beyond Holm's limits
    seed: Whole
    confidence: OpenFraction
    min_draws_share: OpenFraction
    power: OpenFraction
    specificity: Fraction
    threshold: OpenFraction
    bins: Count
    compared: Annotated[list[Metric], Several]
    reference: str


@dataclass(frozen=True, config=STRICT)
class Compute:
    """Device, precision, compilation, threads."""

    accelerator: Literal["auto", "cpu", "cuda"]
    precision: AskedPrecision
    compile: bool
    threads: Count
    devices: Count


def _entry_of(registry: Mapping[str, object]) -> AfterValidator:
    """A check that a name is in the registry, whose entries may change."""

    def check(name: str) -> str:
        if name not in registry:
            raise PydanticCustomError("entry", "Input should be {known}", {"known": ", ".join(map(repr, registry))})
        return name

    return AfterValidator(check)


@dataclass(frozen=True, config=STRICT)
class WrittenMethod:
    """What is pre-trained. The three fields of attention are None unless the objective reads `attention`."""

    objective: Annotated[str, _entry_of(kinds.OBJECTIVES)]
    attention: Annotated[str, _entry_of(kinds.ATTENTION)] | None = None
    backend: Literal["fused", "package"] | None = None
    options: dict[str, Any] | None = None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Method(WrittenMethod):
    """A method with all its values."""

    pretrain: Pretrain  # with this method's overrides applied


@dataclass(frozen=True, config=STRICT)
class WrittenParams:
    """One preset, its sections merged."""

    preset: Preset
    source: Literal["tcia", "idc", "local", "images"]
    sources: Sources
    transfer: Transfer
    archive: Archive | None
    crops: Crops
    splits: Splits
    encoder: Encoder
    decoder: Decoder
    highres: Highres
    methods: Mapping[str, WrittenMethod]
    encoders: Mapping[str, GivenEncoder]
    moco: Moco
    pretrain: CommonPretrain
    finetune: Finetune
    trivial: TrivialFit
    statistics: Statistics
    compute: Compute


@dataclass(frozen=True, config=STRICT)
class Params(WrittenParams):
    """One preset, resolved."""

    methods: Mapping[str, Method]

    @property
    def name(self) -> str:
        """The name of the run and its folders: the preset's, or that of an own data set."""
        return self.sources.images.name if self.source == IMAGES else self.preset

    @property
    def title(self) -> str:
        """The subject of the results for `miram.evaluate.markdown.subject`: the preset and the name of the run."""
        return f"{self.preset} on {self.name}" if self.source == IMAGES else self.preset
