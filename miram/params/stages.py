"""The jobs of a preset, and the values that decide each."""

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from miram import kinds, layout
from miram.data.crop_rules import WINDOW, Cutting
from miram.layout import Cell
from miram.params.schema import IMAGES, Archive, Method, Params
from miram.recipe import Classifying, Explaining, LinearProbe, NeighbourProbe, Recipe, Tuning
from miram.stages import STAGES, Stage

EMBEDDED = "embedded"  # the addresses of the archive that comes with this software
# values of `sources.images` that decide the crops; the name decides folders alone, and the positive class is read late
OWN = ("folder", "table_csv", "levels", "set_aside_max")


def cells(params: Params) -> list[Cell]:
    """Every fine-tuning of a preset, in the order of the table's rows.

    Modes with a frozen encoder have no randomness: they run once, with the first seed.
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
    """Protocol, task and mode of the headline: the first of each list."""
    return params.splits.protocols[0], params.finetune.tasks[0], params.finetune.modes[0]


def kept(params: Params) -> list[Cell]:
    """The fine-tunings whose network is kept, those of the first seed: only they are explained or used to predict."""
    return [cell for cell in cells(params) if cell.mode == layout.FINETUNE and cell.seed == params.finetune.seeds[0]]


def chooser(params: Params, cell: Cell) -> Cell | None:
    """The fine-tuning that chooses the learning rate of this one, with the first seed; None if it has its own."""
    first = cell._replace(seed=params.finetune.seeds[0])
    several = cell.mode == layout.FINETUNE and len(getattr(params.finetune.lr, cell.protocol)) > 1
    return first if several and int(cell.seed) != first.seed else None


def explained(params: Params) -> list[Cell]:
    """The networks that the stage `explain` reads: fine-tuned, on the headline's task, of the first seed."""
    return [cell for cell in kept(params) if cell[:2] == headline(params)[:2]]


def stage_values(params: Params, stage: str, *place: int | str) -> dict[str, Any]:
    """The values that decide a stage's result, by name: its record holds them, and a change makes it run again.

    `place` identifies the job, as in `Stage.place`.
    """
    if stage == "splits":
        values = asdict(params.splits)
        del values["protocols"]  # one job each
        return {"protocol": place[0], **values}
    if stage == "pretrain":
        return _pretrain_values(params, str(place[1]))
    if stage in ("finetune", "probe"):
        cell = Cell(*map(str, place))
        return asdict(tuning_of(params, cell) if stage == "finetune" else probe_of(params, cell))
    pretrain, statistics = params.pretrain, params.statistics
    if stage == "explain":
        return asdict(explaining_of(params))
    images = params.sources.images
    own = {name: getattr(images, name) for name in OWN}
    positive = {"positive": [images.positive] if images.positive else []} if params.source == IMAGES else {}
    sections = {
        "archive": {"archive": params.archive},
        "catalogue": _source_values(params),
        "images": {"images": own | {name: getattr(params.crops, name) for name in (*WINDOW, "bits")}},
        "crops": {**_source_values(params), "crops": asdict(cutting_of(params))},
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


def stages_of(params: Params) -> list[Stage]:
    """The stages that a run of a preset has; own images have no audit and no claims of a paper."""
    own = params.source == IMAGES
    has = {"": True, "embedded": is_embedded(params), "films": not own, "images": own}
    has["networks"] = bool(explained(params))
    return [stage for stage in STAGES.values() if has[stage.only]]


def jobs(params: Params) -> list[tuple[Stage, tuple[int | str, ...]]]:
    """Every job of a run of a preset: its stage, and its place among the jobs of that stage."""
    values = {"protocol": params.splits.protocols, "method": params.methods}
    found: list[tuple[Stage, tuple[int | str, ...]]] = []
    for stage in stages_of(params):
        if stage.modes:
            found += [(stage, cell) for cell in cells(params) if cell.mode in stage.modes]
        else:
            found += [(stage, place) for place in product(*(values[name] for name in stage.place))]
    return found


def cutting_of(params: Params) -> Cutting:
    """What decides the crops, and the background patches of pre-training."""
    pretrain = params.pretrain
    return Cutting(
        **vars(params.crops),
        backgrounds_per_film=pretrain.backgrounds_per_film,
        backgrounds_seed=pretrain.backgrounds_seed,
    )


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
        # Whole, like films from TCIA: the data lock then names the same instances for either source.
        settings["fallback"] = {"source": other, "settings": own | {"films": "whole"}}
    return {"source": params.source, "settings": settings}


def recipe_of(params: Params, name: str) -> Recipe:
    """What decides the pre-trained weights of the method `name`."""
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
    """The recipe without unread values, the device, and the interval of checkpoints."""
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
    """The attention if the objective has a choice of it, otherwise the objective."""
    return method.attention or method.objective


def side_of(params: Params, method: str) -> int:
    """Side in px of what a classifier of a method sees; that of `pretrain` where nothing was pre-trained."""
    return (params.methods[method].pretrain if method in params.methods else params.pretrain).side


def tuning_of(params: Params, cell: Cell) -> Tuning:
    """What decides a fine-tuning."""
    own, shared = params.finetune, _classifying(params, cell)
    return Tuning(
        **vars(shared),
        head_init_std={"class": own.head_init_std_mocov3, "mean": own.head_init_std}[shared.pool],
        keep_network=shared.seed == own.seeds[0],
        batch=own.batch,
        epochs=own.epochs,
        warmup_epochs=own.warmup_epochs,
        lr=getattr(own.lr, cell.protocol),
        weight_decay=own.weight_decay,
        layer_decay=own.layer_decay,
        drop_path=own.drop_path,
        mixup=own.mixup,
        rotation_degrees=own.rotation_degrees,
        zoom_min=own.zoom_min,
        zoom_max=own.zoom_max,
        intensity_shift=own.intensity_shift,
    )


def probe_of(params: Params, cell: Cell) -> LinearProbe | NeighbourProbe:
    """What decides a probe of the cell's mode."""
    own, shared = params.finetune, _classifying(params, cell)
    if cell.mode == "knn":
        return NeighbourProbe(**vars(shared), knn_neighbours=own.knn_neighbours)
    return LinearProbe(**vars(shared), linear_c=own.linear_c, linear_iterations=own.linear_iterations)


def explaining_of(params: Params) -> Explaining:
    """What decides the stage `explain`."""
    compute = params.compute
    return Explaining(headline(params)[1], params.encoder, compute.accelerator, compute.precision, compute.threads)


def _classifying(params: Params, cell: Cell) -> Classifying:
    """The values of all modes; without pre-training the tokens are those of the masked objectives."""
    method, compute = params.methods.get(cell.method), params.compute
    return Classifying(
        task=cell.task,
        seed=int(cell.seed),
        encoder=params.encoder,
        side=side_of(params, cell.method),
        pool="mean" if method is None else kinds.OBJECTIVES[method.objective].pool,
        threshold=params.finetune.threshold,
        accelerator=compute.accelerator,
        precision=compute.precision,
        threads=compute.threads,
    )
