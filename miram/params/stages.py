"""What a preset's values mean for the stages: which jobs there are, and which values decide each."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from miram import kinds, layout
from miram.layout import Cell
from miram.params.schema import IMAGES, Method, Params

EMBEDDED = "embedded"  # the addresses of the archive that comes with this software
TUNING = (  # values of `finetune` that train the encoder
    *("batch", "epochs", "warmup_epochs", "lr", "weight_decay", "layer_decay", "drop_path", "mixup"),
    *("rotation_degrees", "zoom_min", "zoom_max", "intensity_shift"),
)
OWN = (
    "folder",
    "table_csv",
    "levels",
)  # values of `sources.images` that decide a result; the name decides folders alone
WINDOW = ("shape", "margin", "side_min", "bits")  # values of `crops` that images of one's own read
READING = ("catalogue", "crops", "images")  # the stages that read the source
TRAINING = ("pretrain", "finetune", "probe", "explain")  # those that compute on a GPU where there is one
EXAMINED = (*READING, *TRAINING)  # those before which the machine is examined
PROBES = {"linear": ("linear_c", "linear_iterations"), "knn": ("knn_neighbours",)}  # those that do not, by mode


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


def kept(params: Params) -> list[Cell]:
    """The fine-tunings whose network stays on the disk, of the first seed: no other one is looked into or asked."""
    return [cell for cell in cells(params) if cell.mode == layout.FULL and cell.seed == params.finetune.seeds[0]]


def explained(params: Params) -> list[Cell]:
    """The networks that the stage `explain` looks into: fine-tuned, on the headline's task, of the first seed."""
    return [cell for cell in kept(params) if cell[:2] == headline(params)[:2]]


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
    own = {name: getattr(params.sources.images, name) for name in OWN}
    sections = {
        "archive": {"archive": params.archive},
        "catalogue": _source_values(params),
        "images": {"images": own | {name: getattr(params.crops, name) for name in WINDOW}},
        "crops": {**_source_values(params), "crops": asdict(params.crops) | sampling},
        "pack": {"pack": {"extra_images": pretrain.extra_images, "levels": params.sources.images.levels}},
        "audit": {},
        "evaluate": {"statistics": asdict(statistics)},
        "claims": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "power")}},
        "efficiency": {"headline": list(headline(params))},
        "table": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "specificity")}},
        "report": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "bins")}},
        "crate": {},
    }[stage]
    return {name: asdict(value) if is_dataclass(value) else value for name, value in sections.items()}


def final_stages(params: Params) -> tuple[str, ...]:
    """The stages that only the crate follows; images of one's own have no audit, and no claims of a paper."""
    judged = () if params.source == IMAGES else ("audit", "claims")
    return (*judged, "efficiency", "table", "report")


def given_paths(params: Params) -> dict[str, Path]:
    """The user's own files and folders that the parameters name, by their keys."""
    source = asdict(getattr(params.sources, params.source))
    found = {f"sources.{params.source}.{name}": source.get(name) for name in ("folder", "table_csv", "csv_url")}
    found |= {"pretrain.extra_images": params.pretrain.extra_images}
    found |= {"finetune.imagenet_init": params.finetune.imagenet_init}
    found |= {f"methods.{name}.encoder_init": own.pretrain.encoder_init for name, own in params.methods.items()}
    return {name: Path(v) for name, v in found.items() if v is not None and v != EMBEDDED and "://" not in v}


def is_embedded(params: Params) -> bool:
    """Whether the archive is the phantom that comes with this software."""
    return params.source == "tcia" and params.sources.tcia.api_url == EMBEDDED


def _source_values(params: Params) -> dict[str, Any]:
    """The source and its block of params.yaml; as `fallback` source and block of another one, or None."""
    settings = asdict(getattr(params.sources, params.source))
    if settings.get("fallback"):
        other = settings["fallback"]
        own = asdict(getattr(params.sources, other))
        # Whole, as films of TCIA come: the data lock then names the same instances, wherever they came from.
        settings["fallback"] = {"source": other, "settings": own | {"films": "whole"}}
    return {"source": params.source, "settings": settings}


def _pretrain_values(params: Params, method: Method) -> dict[str, Any]:
    read = kinds.OBJECTIVES[method.objective].values
    values = {"objective": method.objective, "encoder": asdict(params.encoder)}
    values |= asdict(method.pretrain) | asdict(params.compute)
    values = {name: value for name, value in values.items() if name in read or name not in kinds.MASKED_ONLY}
    values |= {name: asdict(getattr(params, name)) for name in kinds.SECTIONS if name in read}
    return values | {name: getattr(method, name) for name in kinds.ATTENTION_FIELDS if name in read}


def kinds_of(params: Params) -> dict[str, str]:
    """Each method that is compared -> its kind, which gives its look: its attention or objective, or how it starts."""
    names = dict.fromkeys(cell.method for cell in cells(params))
    return {name: kind_of(params.methods[name]) if name in params.methods else name for name in names}


def kind_of(method: Method) -> str:
    """The attention where the objective has one to choose, and otherwise the objective."""
    return method.attention or method.objective


def _cell_values(params: Params, cell: Cell) -> dict[str, Any]:
    """What every mode reads; from a baseline's start the input side is the common one, a method's is its own."""
    method = params.methods.get(cell.method)
    return {
        **{"task": cell.task, "seed": int(cell.seed), "encoder": asdict(params.encoder)},
        "side": (method.pretrain if method else params.pretrain).side,
        "pool": _pool(method),
        "threshold": params.finetune.threshold,
        **{name: getattr(params.compute, name) for name in ("accelerator", "precision", "threads")},
    }


def _finetune_values(params: Params, cell: Cell) -> dict[str, Any]:
    tuning = params.finetune
    pool = _pool(params.methods.get(cell.method))
    head_init_std = {"class": tuning.head_init_std_mocov3, "mean": tuning.head_init_std}[pool]
    own = {name: getattr(tuning, name) for name in TUNING}
    keep_network = int(cell.seed) == tuning.seeds[0]
    return {**_cell_values(params, cell), "head_init_std": head_init_std, "keep_network": keep_network, **own}


def _probe_values(params: Params, cell: Cell) -> dict[str, Any]:
    own = {name: getattr(params.finetune, name) for name in PROBES[cell.mode]}
    return {**_cell_values(params, cell), "mode": cell.mode, **own}


def _pool(method: Method | None) -> str:
    """The tokens that a classifier reads; those of the masked objectives where nothing was pre-trained."""
    return "mean" if method is None else kinds.OBJECTIVES[method.objective].pool
