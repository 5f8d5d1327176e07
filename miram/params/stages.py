"""What a preset's values mean for the stages: which jobs there are, and which values decide each."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from miram import kinds, layout
from miram.layout import Cell
from miram.params.schema import IMAGES, Archive, Method, Params
from miram.recipe import Recipe, Tuning

EMBEDDED = "embedded"  # the addresses of the archive that comes with this software
UNPROBED = (  # values of a fine-tuning that train the encoder or its head
    *("batch", "epochs", "warmup_epochs", "lr", "weight_decay", "layer_decay", "drop_path", "mixup"),
    *("rotation_degrees", "zoom_min", "zoom_max", "intensity_shift", "head_init_std", "keep_network"),
)
# values of `sources.images` that decide the crops; the name decides folders alone, and the positive class is read late
OWN = ("folder", "table_csv", "levels", "set_aside_max")
WINDOW = ("component", "shape", "margin", "side_min", "bits")  # values of `crops` that images of one's own read
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
        for seed in (tuning.seeds if mode == layout.FINETUNE else tuning.seeds[:1])
    ]


def headline(params: Params) -> tuple[str, str, str]:
    """Protocol, task and mode of what is shown first: the first of each list."""
    return params.splits.protocols[0], params.finetune.tasks[0], params.finetune.modes[0]


def kept(params: Params) -> list[Cell]:
    """The fine-tunings whose network stays on the disk, of the first seed: no other one is looked into or asked."""
    return [cell for cell in cells(params) if cell.mode == layout.FINETUNE and cell.seed == params.finetune.seeds[0]]


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
        return _pretrain_values(params, str(place[1]))
    if stage in ("finetune", "probe"):
        cell = Cell(*map(str, place))
        return asdict(tuning_of(params, cell)) if stage == "finetune" else _probe_values(params, cell)
    pretrain, statistics = params.pretrain, params.statistics
    sampling = {name: getattr(pretrain, name) for name in ("backgrounds_per_film", "backgrounds_seed")}
    if stage == "explain":
        machine = {name: getattr(params.compute, name) for name in ("accelerator", "precision", "threads")}
        return {"task": headline(params)[1], "encoder": asdict(params.encoder), **machine}
    images = params.sources.images
    own = {name: getattr(images, name) for name in OWN}
    positive = {"positive": [images.positive] if images.positive else []} if params.source == IMAGES else {}
    sections = {
        "archive": {"archive": params.archive},
        "catalogue": _source_values(params),
        "images": {"images": own | {name: getattr(params.crops, name) for name in WINDOW}},
        "crops": {**_source_values(params), "crops": asdict(params.crops) | sampling},
        "pack": {"pack": {"extra_images": pretrain.extra_images, "levels": images.levels}},
        "audit": {},
        "evaluate": {"statistics": asdict(statistics), **positive},
        "claims": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "power")}},
        "efficiency": {"headline": list(headline(params))},
        "table": {
            "statistics": {name: getattr(statistics, name) for name in ("confidence", "specificity")},
            **positive,
        },
        "report": {"statistics": {name: getattr(statistics, name) for name in ("confidence", "bins")}, **positive},
        "crate": {},
    }[stage]
    return {name: asdict(value) if isinstance(value, Archive) else value for name, value in sections.items()}


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


def recipe_of(params: Params, name: str) -> Recipe:
    """What decides the weights that pre-training of the method `name` ends with."""
    method = params.methods[name]
    own, read = method.pretrain, kinds.OBJECTIVES[method.objective].values
    return Recipe(
        objective=method.objective,
        encoder=params.encoder,
        seed=own.seed,
        side=own.side,
        batch=own.batch,
        accumulate=own.accumulate,
        epochs=own.epochs,
        warmup_epochs=own.warmup_epochs,
        lr_per_256=own.lr_per_256,
        weight_decay=own.weight_decay,
        beta1=own.beta1,
        beta2=own.beta2,
        crop_scale_min=own.crop_scale_min,
        precision=params.compute.precision,
        compile=params.compute.compile,
        recompute=own.recompute,
        encoder_init=own.encoder_init,
        mask_ratio=own.mask_ratio if "mask_ratio" in read else None,
        loss_on=own.loss_on if "loss_on" in read else None,
        decoder=params.decoder if "decoder" in read else None,
        highres=params.highres if "highres" in read else None,
        attention=method.attention if "attention" in read else None,
        backend=method.backend if "backend" in read else None,
        options=method.options if "options" in read else None,
        moco=params.moco if "moco" in read else None,
    )


def _pretrain_values(params: Params, name: str) -> dict[str, Any]:
    """The recipe without what its objective does not read, where it is computed, and how often it is saved."""
    recipe, compute = recipe_of(params, name), params.compute
    unread = {*kinds.SECTIONS, *kinds.MASKED_ONLY, *kinds.ATTENTION_FIELDS}
    unread -= set(kinds.OBJECTIVES[recipe.objective].values)
    return {
        **{key: value for key, value in asdict(recipe).items() if key not in unread},
        **{key: getattr(compute, key) for key in ("accelerator", "threads", "devices")},
        "checkpoint_every_epochs": params.methods[name].pretrain.checkpoint_every_epochs,
    }


def kinds_of(params: Params) -> dict[str, str]:
    """Each method that is compared -> its kind, which gives its look: its attention or objective, or how it starts."""
    names = dict.fromkeys(cell.method for cell in cells(params))
    return {name: kind_of(params.methods[name]) if name in params.methods else name for name in names}


def kind_of(method: Method) -> str:
    """The attention where the objective has one to choose, and otherwise the objective."""
    return method.attention or method.objective


def tuning_of(params: Params, cell: Cell) -> Tuning:
    """What decides a fine-tuning."""
    own, compute, method = params.finetune, params.compute, params.methods.get(cell.method)
    pool, seed = _pool(method), int(cell.seed)
    return Tuning(
        task=cell.task,
        seed=seed,
        encoder=params.encoder,
        side=(method.pretrain if method else params.pretrain).side,
        pool=pool,
        threshold=own.threshold,
        accelerator=compute.accelerator,
        precision=compute.precision,
        threads=compute.threads,
        head_init_std={"class": own.head_init_std_mocov3, "mean": own.head_init_std}[pool],
        keep_network=seed == own.seeds[0],
        batch=own.batch,
        epochs=own.epochs,
        warmup_epochs=own.warmup_epochs,
        lr=own.lr,
        weight_decay=own.weight_decay,
        layer_decay=own.layer_decay,
        drop_path=own.drop_path,
        mixup=own.mixup,
        rotation_degrees=own.rotation_degrees,
        zoom_min=own.zoom_min,
        zoom_max=own.zoom_max,
        intensity_shift=own.intensity_shift,
    )


def _probe_values(params: Params, cell: Cell) -> dict[str, Any]:
    """Those of a fine-tuning that do not train the encoder, and what the mode reads."""
    shared = {name: value for name, value in asdict(tuning_of(params, cell)).items() if name not in UNPROBED}
    own = {name: getattr(params.finetune, name) for name in PROBES[cell.mode]}
    return {**shared, "mode": cell.mode, **own}


def _pool(method: Method | None) -> str:
    """The tokens that a classifier reads; those of the masked objectives where nothing was pre-trained."""
    return "mean" if method is None else kinds.OBJECTIVES[method.objective].pool
