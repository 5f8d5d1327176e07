"""params.yaml as strict, frozen values: one preset resolved, every key known, every value of its type and range.

A parameter keeps one name on its way: key in params.yaml -> field here -> keyword of the stage's function -> argument
of the operation. There is no default in code for what stands in the file.
"""

import json
import re
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from miram import layout
from miram.errors import ParameterError
from miram.layout import Cell

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
PRESETS = ("demo", "paper", "paper-448", "paper-896")
TRAINING = ("highres", "methods", "pretrain", "finetune", "compute")  # sections that a preset with a base may set
IMAGES = "images"  # the source of one's own images, the only one whose task is `label`
EMBEDDED = "embedded"  # the addresses of the archive that comes with this software
UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's names of the fault
MASKED_ONLY = ("mask_ratio", "loss_on")  # values of `pretrain` that MoCo-v3 does not read
TUNING = (  # values of `finetune` that train the encoder
    *("batch", "epochs", "warmup_epochs", "lr", "weight_decay", "layer_decay", "drop_path", "mixup"),
    *("rotation_degrees", "zoom_min", "zoom_max", "intensity_shift"),
)
WINDOW = ("shape", "margin", "side_min", "bits")  # values of `crops` that images of one's own read
PROBES = {"linear": ("linear_c", "linear_iterations"), "knn": ("knn_neighbours",)}  # those that do not, by mode

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Several = Field(min_length=1)  # of a list
Metric = Literal[  # those of miram.evaluate.scores, as a test holds
    *("accuracy", "balanced_accuracy", "macro_ap", "micro_ap", "macro_auc", "micro_auc", "sensitivity", "ece", "brier")
]
Pair = Annotated[list[Fraction], Field(min_length=2, max_length=2)]
Task = Literal["pathology_4class", "pathology", "mass_margins", "mass_shape", "calc_type", "calc_distribution", "label"]


@dataclass(frozen=True, config=STRICT)
class Tcia:
    """TCIA by its NBIA API: base addresses, or `embedded`; `csv_url` may be a folder here and in the other sources."""

    collection: str
    api_url: str
    csv_url: str


@dataclass(frozen=True, config=STRICT)
class Idc:
    """The Imaging Data Commons."""

    collection: str
    bucket_url: str
    csv_url: str
    films: Literal["rows", "whole"]


@dataclass(frozen=True, config=STRICT)
class Local:
    """A folder that holds the archive."""

    folder: str
    csv_url: str


@dataclass(frozen=True, config=STRICT)
class Images:
    """Images of one's own, and the table of them."""

    folder: str
    table_csv: str


@dataclass(frozen=True, config=STRICT)
class Sources:
    """A block for each kind of source."""

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
    """How a lesion is cut from its film."""

    component: Literal["union", "largest"]
    shape: Literal["square", "tight"]
    margin: NonNegative
    side_min: Count
    bits: Literal[8, 16]
    air: OpenFraction


@dataclass(frozen=True, config=STRICT)
class Splits:
    """How lesions are divided."""

    protocols: Annotated[list[Literal["strict", "paper"]], Several]
    validation_fraction: OpenFraction
    test_fraction: OpenFraction
    seed: Whole


@dataclass(frozen=True, config=STRICT)
class Encoder:
    """The Vision Transformer that is pre-trained; sizes in tokens' widths and px."""

    patch: Count
    channels: Literal[1, 3]
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive


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
class Pretrain:
    """Pre-training; a method may replace values for itself."""

    seed: Whole
    side: Count
    batch: Count
    accumulate: Count
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
    """What all methods share beside it: the images that they see beside the lesions."""

    backgrounds_per_film: Whole
    backgrounds_seed: Whole
    extra_images: str | None


@dataclass(frozen=True, config=STRICT)
class Finetune:
    """Fine-tuning and its augmentation."""

    tasks: Annotated[list[Task], Several]
    modes: Annotated[list[Literal["full", "linear", "knn"]], Several]
    seeds: Annotated[list[Whole], Several]
    imagenet_init: str | None
    batch: Count
    epochs: Count
    warmup_epochs: Whole
    lr: Positive
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
    linear_c: Annotated[list[Positive], Several]
    linear_iterations: Count
    knn_neighbours: Count


@dataclass(frozen=True, config=STRICT)
class Statistics:
    """Intervals, tests and verdicts; see `miram.evaluate`."""

    resamples: Annotated[int, Field(ge=2000)]  # fewer leave a handful of draws beyond Holm's limits
    seed: Whole
    confidence: OpenFraction
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
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    compile: bool
    threads: Count
    devices: Count


@dataclass(frozen=True, config=STRICT)
class NoOptions:
    """Full attention has no options."""


@dataclass(frozen=True, config=STRICT)
class LinformerOptions:
    """Options of attention `linformer`."""

    rank: Count


@dataclass(frozen=True, config=STRICT)
class PerformerOptions:
    """Options of attention `performer`."""

    redraw_interval: Whole


@dataclass(frozen=True, config=STRICT)
class NystromOptions:
    """Options of attention `nystrom`."""

    landmarks: Count
    pinv_iterations: Count
    pinv_init: Literal["matrix", "batch"]
    residual_kernel: Count


ATTENTION_OPTIONS = {
    "full": NoOptions,
    "linformer": LinformerOptions,
    "performer": PerformerOptions,
    "nystrom": NystromOptions,
}


@dataclass(frozen=True, config=STRICT)
class Method:
    """What is pre-trained. The four fields of attention are None unless the objective is `miram`."""

    objective: Literal["mae", "mocov3", "miram"]
    attention: Literal["full", "linformer", "performer", "nystrom"] | None = None
    backend: Literal["fused", "package"] | None = None
    options: dict[str, Any] | None = None
    pretrain: Pretrain | None = None  # this method's own, its overrides applied; filled in by `load`


@dataclass(frozen=True, config=STRICT)
class Params:
    """One preset, resolved."""

    preset: Literal[PRESETS]
    source: Literal["tcia", "idc", "local", "images"]
    sources: Sources
    transfer: Transfer
    archive: Archive | None
    crops: Crops
    splits: Splits
    encoder: Encoder
    decoder: Decoder
    highres: Highres
    methods: dict[str, Method]
    moco: Moco
    pretrain: CommonPretrain
    finetune: Finetune
    statistics: Statistics
    compute: Compute


class UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, where YAML's own rule keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As the parent, after a look at the keys."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path, preset: str | None = None) -> Params:
    """Read a parameter file; `preset` replaces the file's own choice.

    All presets are checked, so that a slip in another one does not wait for the day it is used. Raises
    ParameterError with the key, its value and what is allowed.
    """
    path = Path(path)
    try:
        document = yaml.load(path.read_text(), UniqueKeys)
    except FileNotFoundError as error:
        raise ParameterError(
            f"There is no parameter file {path}.", "Run in the project's folder, or name it: --params FILE."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {error}", "Mend the line that it names.") from error
    if not isinstance(document, dict) or not isinstance(document.get("presets"), dict):
        raise ParameterError(f"{path} has no mapping `presets`.", "Start from the project's own params.yaml.")
    chosen = document.get("preset") if preset is None else preset
    if chosen not in PRESETS:
        raise ParameterError(f"preset: {chosen!r} in {path}", f"Allowed: {', '.join(PRESETS)}.")
    if set(document["presets"]) != set(PRESETS):
        raise ParameterError(
            f"presets: {sorted(document['presets'])} in {path}", f"It holds exactly: {', '.join(PRESETS)}."
        )
    return {name: _resolve(document, name, path) for name in PRESETS}[chosen]


def cells(params: Params) -> list[Cell]:
    """Every fine-tuning of a preset, in the order of the table's rows.

    Nothing is drawn on the features of a frozen encoder: those modes are done once, with the first seed.
    """
    tuning = params.finetune
    baselines = [layout.FROM_SCRATCH, *([layout.IMAGENET] if tuning.imagenet_init else [])]
    return [
        Cell(protocol, task, mode, method, seed)
        for task in tuning.tasks
        for protocol in params.splits.protocols
        for mode in tuning.modes
        for method in [*baselines, *params.methods]
        for seed in (tuning.seeds if mode == layout.FULL else tuning.seeds[:1])
    ]


def headline(params: Params) -> tuple[str, str, str]:
    """Protocol, task and mode of what is shown first: the first of each list."""
    return params.splits.protocols[0], params.finetune.tasks[0], params.finetune.modes[0]


def explained(params: Params) -> list[Cell]:
    """The networks that the stage `explain` looks into: fine-tuned, on the headline's task, of the first seed."""
    wanted = (*headline(params)[:2], layout.FULL)
    return [cell for cell in cells(params) if cell[:3] == wanted and cell.seed == params.finetune.seeds[0]]


def stage_values(params: Params, stage: str, *place: int | str) -> dict[str, Any]:
    """The values that decide a stage's result, by name: its record holds them, and a change makes it run again.

    `place` is what tells the stage's jobs apart, as in `layout.PLACES`.
    """
    if stage == "splits":
        values = asdict(params.splits)
        del values["protocols"]  # a job each
        return {"protocol": place[0], **values}
    if stage == "pretrain":
        return _pretrain_values(params, params.methods[place[1]])
    if stage in ("finetune", "probe"):
        return {"finetune": _finetune_values, "probe": _probe_values}[stage](params, Cell(*place))
    pretrain, statistics = params.pretrain, params.statistics
    sampling = {name: getattr(pretrain, name) for name in ("backgrounds_per_film", "backgrounds_seed")}
    if stage == "explain":
        machine = {name: getattr(params.compute, name) for name in ("accelerator", "precision", "threads")}
        return {"task": headline(params)[1], "encoder": asdict(params.encoder), **machine}
    methods = {name: _pretrain_values(params, method) for name, method in params.methods.items()}
    sections = {
        "archive": {"archive": params.archive},
        "doctor": {**_source_values(params), "methods": methods, "compute": asdict(params.compute)},
        "catalogue": _source_values(params),
        "images": {"images": asdict(params.sources.images) | {name: getattr(params.crops, name) for name in WINDOW}},
        "crops": {**_source_values(params), "crops": asdict(params.crops) | sampling},
        "pack": {"pack": {"extra_images": pretrain.extra_images}},
        "audit": {},
        "evaluate": {"statistics": asdict(statistics)},
        "claims": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "power")}},
        "table": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "specificity")}},
        "report": {"statistics": {"confidence": statistics.confidence}},
        "crate": {},
    }[stage]
    return {name: asdict(value) if is_dataclass(value) else value for name, value in sections.items()}


def name_of(params: Params) -> str:
    """What the results are of: the preset's archive, or images of one's own."""
    return IMAGES if params.source == IMAGES else params.preset


def final_stages(params: Params) -> tuple[str, ...]:
    """The stages that only the crate follows; images of one's own have no audit, and no claims of a paper."""
    return ("table", "report") if params.source == IMAGES else ("audit", "claims", "table", "report")


def is_embedded(params: Params) -> bool:
    """Whether the archive is the phantom that comes with this software."""
    return params.source == "tcia" and params.sources.tcia.api_url == EMBEDDED


def _source_values(params: Params) -> dict[str, Any]:
    return {"source": params.source, "settings": asdict(getattr(params.sources, params.source))}


def _pretrain_values(params: Params, method: Method) -> dict[str, Any]:
    values = {"objective": method.objective, "encoder": asdict(params.encoder)}
    values |= asdict(method.pretrain) | asdict(params.compute)
    if method.objective == "mocov3":
        return {name: value for name, value in values.items() if name not in MASKED_ONLY} | {
            "moco": asdict(params.moco)
        }
    values["decoder"] = asdict(params.decoder)
    if method.objective == "miram":
        attention = {name: getattr(method, name) for name in ("attention", "backend", "options")}
        values |= {"highres": asdict(params.highres), **attention}
    return values


def _cell_values(params: Params, cell: Cell) -> dict[str, Any]:
    """What every mode reads; from a baseline's start the input side is the common one, a method's is its own."""
    method = params.methods.get(cell.method)
    return {
        **{"task": cell.task, "seed": int(cell.seed), "encoder": asdict(params.encoder)},
        "side": (method.pretrain if method else params.pretrain).side,
        "pool": "class" if _is_moco(method) else "mean",
        **{name: getattr(params.compute, name) for name in ("accelerator", "precision", "threads")},
    }


def _finetune_values(params: Params, cell: Cell) -> dict[str, Any]:
    tuning = params.finetune
    moco = _is_moco(params.methods.get(cell.method))
    head_init_std = tuning.head_init_std_mocov3 if moco else tuning.head_init_std
    own = {name: getattr(tuning, name) for name in TUNING}
    return {**_cell_values(params, cell), "head_init_std": head_init_std, **own}


def _probe_values(params: Params, cell: Cell) -> dict[str, Any]:
    own = {name: getattr(params.finetune, name) for name in PROBES[cell.mode]}
    return {**_cell_values(params, cell), "mode": cell.mode, **own}


def _is_moco(method: Method | None) -> bool:
    return method is not None and method.objective == "mocov3"


def _resolve(document: dict[str, Any], preset: str, path: Path) -> Params:
    document = deepcopy(document)
    own_values = _preset_values(document.pop("presets"), preset)
    merged = _merge({**document, "preset": preset}, own_values, f"presets.{preset}", "")
    pretrain_names = {field.name for field in fields(Pretrain)}
    methods = merged.get("methods")
    own = {}
    if isinstance(methods, dict):
        for name, values in methods.items():
            if isinstance(values, dict):
                own[name] = {key: values.pop(key) for key in list(values) if key in pretrain_names}
    params = _validated(Params, merged, path, "")
    resolved = {}
    for name, method in params.methods.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name in (layout.FROM_SCRATCH, layout.IMAGENET):
            raise ParameterError(
                f"methods.{name} in {path}",
                f"A method's name holds a-z, 0-9 and -; {layout.FROM_SCRATCH} and {layout.IMAGENET} are taken.",
            )
        place = f"methods.{name}"
        shared = {key: value for key, value in merged["pretrain"].items() if key in pretrain_names}
        pretrain = _validated(Pretrain, {**shared, **own[name]}, path, place)
        _check_attention(method, path, place)
        resolved[name] = {**{f.name: getattr(method, f.name) for f in fields(Method)}, "pretrain": pretrain}
    values = {f.name: getattr(params, f.name) for f in fields(Params)}
    checked = Params(**{**values, "methods": {name: Method(**method) for name, method in resolved.items()}})
    _check_together(checked, path)
    return checked


def _preset_values(presets: dict[str, Any], preset: str) -> Any:
    """What a preset sets; `paper-448` starts from `paper`, by its name, replaces its values and uses its data."""
    base, is_based, _ = preset.partition("-")
    own = presets[preset]
    if not is_based:
        return own
    if not isinstance(own, dict) or not set(own) <= set(TRAINING):
        raise ParameterError(f"presets.{preset} is {own!r}", f"Beside its base it sets {', '.join(TRAINING)} at most.")
    return _replaced(presets[base], own)


def _replaced(base: Any, own: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    return base | {key: _replaced(base.get(key), value) for key, value in own.items()}


def _check_attention(method: Method, path: Path, place: str) -> None:
    given = {name: getattr(method, name) for name in ("attention", "backend", "options")}
    if method.objective != "miram":
        for name, value in given.items():
            if value is not None:
                raise ParameterError(
                    f"{place}.{name}: {value!r} in {path}", f"Only objective miram has {name}; remove the line."
                )
        return
    if method.attention is None:
        raise ParameterError(f"{place}.attention is missing in {path}", f"Allowed: {', '.join(ATTENTION_OPTIONS)}.")
    if (method.backend is None) != (method.attention == "full"):
        raise ParameterError(
            f"{place}.backend: {method.backend!r} in {path}",
            "Allowed: fused, package; attention full has one form and no backend.",
        )
    _validated(ATTENTION_OPTIONS[method.attention], method.options or {}, path, f"{place}.options")


def _check_together(params: Params, path: Path) -> None:
    """What no field can tell by itself."""
    finetune, moco, tcia = params.finetune, params.moco, params.sources.tcia
    embedded = [url == EMBEDDED for url in (tcia.api_url, tcia.csv_url)]
    widths = [(part, getattr(params, part)) for part in ("encoder", "decoder")]
    lists = {f"finetune.{name}": getattr(finetune, name) for name in ("tasks", "modes", "seeds", "linear_c")}
    own = [task == "label" for task in finetune.tasks]
    lists["splits.protocols"] = params.splits.protocols
    faults = {
        **{f"{part}: heads {v.heads} do not divide width {v.width}": v.width % v.heads for part, v in widths},
        f"finetune: warmup_epochs {finetune.warmup_epochs} exceeds epochs {finetune.epochs}": (
            finetune.warmup_epochs > finetune.epochs
        ),
        f"finetune: zoom_min {finetune.zoom_min} exceeds zoom_max {finetune.zoom_max}": (
            finetune.zoom_min > finetune.zoom_max
        ),
        **{f"{name}: {values} names one twice": len(set(values)) < len(values) for name, values in lists.items()},
        f"moco: blur_sigma_min {moco.blur_sigma_min} exceeds blur_sigma_max {moco.blur_sigma_max}": (
            moco.blur_sigma_min > moco.blur_sigma_max
        ),
        f"statistics.reference: {params.statistics.reference!r} is no method": (
            params.statistics.reference not in params.methods
        ),
        "sources.tcia: api_url and csv_url are `embedded` both, with an archive section, or neither": (
            set(embedded) != {params.archive is not None}
        ),
        f"finetune.tasks: {finetune.tasks} with source {params.source}; [label] goes with images, and with no other": (
            set(own) != {params.source == IMAGES}
        ),
        "sources.idc: films `rows` leaves no films for transfer.keep_dicom true to keep; `whole` does": (
            params.source == "idc" and params.sources.idc.films == "rows" and params.transfer.keep_dicom
        ),
    }
    for name, method in params.methods.items():
        own, place = method.pretrain, f"methods.{name}"
        patches = (own.side // params.encoder.patch) ** 2
        faults |= {
            f"{place}: side {own.side} is not a multiple of encoder.patch {params.encoder.patch}": (
                own.side % params.encoder.patch
            ),
            f"{place}: warmup_epochs {own.warmup_epochs} exceeds epochs {own.epochs}": own.warmup_epochs > own.epochs,
            f"{place}: batch {own.batch} is not a multiple of accumulate {own.accumulate} times devices": (
                own.batch % (own.accumulate * params.compute.devices)
            ),
            f"{place}: mask_ratio {own.mask_ratio} keeps none of {patches} patches": (
                int(patches * (1 - own.mask_ratio)) < 1
            ),
        }
    wrong = next((text for text, is_wrong in faults.items() if is_wrong), None)
    if wrong:
        raise ParameterError(f"{wrong}; in {path}, preset {params.preset}", "Change one of the values that it names.")


def _merge(shared: dict[str, Any], own: Any, place: str, prefix: str) -> dict[str, Any]:
    """`shared` with the preset's own keys added; a key that stands in both is refused."""
    if not isinstance(own, dict):
        raise ParameterError(f"{place} is {own!r}", "A mapping of sections belongs there.")
    merged = dict(shared)
    for key, value in own.items():
        name = f"{prefix}{key}"
        if key not in merged:
            merged[key] = value
        elif isinstance(merged[key], dict) and isinstance(value, dict):
            merged[key] = _merge(merged[key], value, place, f"{name}.")
        else:
            raise ParameterError(
                f"{name} stands twice: shared, and under {place}", "Each value has one place: remove one of them."
            )
    return merged


def _validated(kind: type, values: Any, path: Path, place: str) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        # a slip in a name also leaves the right one missing: name the slip
        faults = sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN_KEY)
        raise _explained(faults[0], path, place) from error


def _explained(fault: dict[str, Any], path: Path, place: str) -> ParameterError:
    key = ".".join([place, *map(str, fault["loc"])] if place else map(str, fault["loc"]))
    if fault["type"] in UNKNOWN_KEY:
        return ParameterError(f"Unknown key {key} (value {fault['input']!r}) in {path}", "Remove it, or mend its name.")
    if fault["type"] in ("missing", "missing_argument"):
        return ParameterError(f"{key} is missing in {path}", "Add it, shared or under the presets.")
    hint = f"Allowed: {fault['msg'].removeprefix('Input should be ')}."
    value = fault["input"]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        hint += f" YAML reads {value} as text: write a decimal point, such as {value.lower().replace('e', '.0e', 1)}."
    return ParameterError(f"{key}: {value!r} in {path}", hint)
