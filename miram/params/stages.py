"""The jobs of a preset, and the values that decide each."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from miram import kinds
from miram.data.crop_rules import WINDOW, Cutting, Taking
from miram.layout import Cell
from miram.params.cells import (
    cells,
    conditions_of,
    encoder_of,
    explained,
    further_references,
    headline,
    pretrain_seed,
    pretrainings,
    side_of,
    trivial_cells,
)
from miram.params.schema import IMAGES, Archive, Params
from miram.recipe import Classifying, Explaining, LinearProbe, NeighbourProbe, Recipe, Trivial, Tuning
from miram.stages import STAGES, Stage

Place = tuple[int | str, ...]  # of a job among those of its stage
Placed = tuple[Stage, Place]  # a job
Part = tuple[Stage, Cell]  # a classifier, of a job of `classify`
ARCHIVE = "archive"  # the value of `crops.from` for the archive's own crops
EMBEDDED = "embedded"  # the addresses of the archive that comes with this software
# values of `sources.images` that decide the crops; the name decides folders alone, and the positive class is read late
OWN = ("folder", "table_csv", "levels", "set_aside_max")
GROUPED = (  # values of `statistics` that decide the metrics of groups
    *("resamples", "seed", "confidence", "min_draws_share", "specificity", "threshold", "bins", "compared"),
)


def stage_values(params: Params, stage: str, *place: int | str) -> dict[str, Any]:
    """The values that decide a stage's result, by name: its record holds them, and a change makes it run again.

    `place` identifies the job, as in `Stage.place`.
    """
    if stage == "splits":
        values = asdict(params.splits)
        del values["protocols"], values["further"]  # one job each
        return {"protocol": place[0], **values}
    if stage == "pretrain":
        return _pretrain_values(params, str(place[1]), int(place[2]))
    if stage == "classify":
        return {}  # each classifier has values, and a record, of its own
    if stage in ("finetune", "probe"):
        cell = Cell(*map(str, place))
        return asdict(tuning_of(params, cell) if stage == "finetune" else probe_of(params, cell))
    pretrain, statistics = params.pretrain, params.statistics
    if stage == "trivial":
        return asdict(trivial_of(params, str(place[1])))
    if stage == "explain":
        return asdict(explaining_of(params))
    images = params.sources.images
    own = {name: getattr(images, name) for name in OWN}
    positive = {"positive": [images.positive] if images.positive else []} if params.source == IMAGES else {}
    sections = {
        "archive": {"archive": params.archive},
        "catalogue": _source_values(params),
        "images": {"images": own | {name: getattr(params.crops, name) for name in (*WINDOW, "bits")}},
        "crops": {**_source_values(params), "crops": asdict(crops_of(params))},
        "pack": {"pack": {"extra_images": pretrain.extra_images, "levels": images.levels}},
        "audit": {},
        "evaluate": {
            "statistics": asdict(statistics),
            "conditions": conditions_of(params),
            "further": further_references(params),
            **positive,
        },
        "cohort": {
            "headline": list(headline(params)),
            "statistics": {name: value for name, value in asdict(statistics).items() if name in GROUPED},
            **positive,
        },
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


def jobs(params: Params) -> list[Placed]:
    """Every job of a run of a preset, and every classifier: its stage, and its place among those of that stage."""
    places: dict[str, list[Place]] = {
        "splits": [(protocol,) for protocol in params.splits.protocols],
        "pretrain": [*pretrainings(params)],
        "classify": list(dict.fromkeys((cell.protocol, cell.task, cell.method) for cell in cells(params))),
        "trivial": list(dict.fromkeys(cell[:2] for cell in trivial_cells(params))),
    }
    found: list[Placed] = []
    for stage in stages_of(params):
        if stage.modes:
            found += [(stage, cell) for cell in cells(params) if cell.mode in stage.modes]
        else:
            found += [(stage, place) for place in places.get(stage.name, [()])]
    return found


def parts(params: Params, stage: str, *place: int | str) -> list[Part]:
    """What a job makes that has records of its own, in this order: of `classify` its classifiers, else nothing."""
    return [
        (row, cell)
        for row, cell in jobs(params)
        if row.within == stage and isinstance(cell, Cell) and (cell.protocol, cell.task, cell.method) == place
    ]


def headline_jobs(params: Params) -> list[Placed]:
    """The trainings of the headline's protocol and task: every method, mode and seed; the whole has them too."""
    protocol, task, _ = headline(params)
    return [
        (stage, place)
        for stage, place in jobs(params)
        if place[:2] == (protocol, task) or (stage.name == "pretrain" and place[0] == protocol)
    ]


def crops_of(params: Params) -> Cutting | Taking:
    """What decides the crops: how they are cut, and the background patches of pre-training; or how they are taken."""
    crops, pretrain = params.crops, params.pretrain
    if crops.from_ == ARCHIVE:
        return Taking(bits=crops.bits, doubtful=crops.doubtful)
    return Cutting(
        **{name: getattr(crops, name) for name in (*WINDOW, "bits", "air")},
        backgrounds_per_film=pretrain.backgrounds_per_film,
        backgrounds_seed=pretrain.backgrounds_seed,
    )


def given_paths(params: Params) -> dict[str, Path]:
    """The user's own files and folders that the parameters name, by their keys."""
    source = asdict(getattr(params.sources, params.source))
    found = {f"sources.{params.source}.{name}": source.get(name) for name in ("folder", "table_csv", "csv_url")}
    found |= {"pretrain.extra_images": params.pretrain.extra_images}
    found |= {f"encoders.{name}.weights": own.weights for name, own in params.encoders.items()}
    found |= {f"methods.{name}.encoder_init": own.pretrain.encoder_init for name, own in params.methods.items()}
    return {name: Path(v) for name, v in found.items() if v is not None and v != EMBEDDED and "://" not in v}


def is_embedded(params: Params) -> bool:
    """Whether the archive is the phantom that comes with this software."""
    return params.source == "tcia" and params.sources.tcia.api_url == EMBEDDED


def _source_values(params: Params) -> dict[str, Any]:
    """The source and its block of params.yaml; as `fallback` source and block of another one, or None.

    `crops_from` is in the block where the crops are the archive's own.
    """
    settings = asdict(getattr(params.sources, params.source))
    if settings.get("fallback"):
        other = settings["fallback"]
        own = asdict(getattr(params.sources, other))
        # Whole, like films from TCIA: the data lock then names the same instances for either source.
        settings["fallback"] = {"source": other, "settings": own | {"films": "whole"}}
    if params.crops.from_ == ARCHIVE:
        settings["crops_from"] = ARCHIVE
    return {"source": params.source, "settings": settings}


def recipe_of(params: Params, name: str, seed: int | None = None) -> Recipe:
    """What decides the pre-trained weights of the method `name`; without `seed` those of its first pre-training."""
    method = params.methods[name]
    own, read = method.pretrain, kinds.OBJECTIVES[method.objective].values
    return Recipe(
        objective=method.objective,
        encoder=params.encoder,
        seed=params.pretrain.seeds[0] if seed is None else seed,
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


def _pretrain_values(params: Params, name: str, seed: int) -> dict[str, Any]:
    """The recipe without unread values, the device, and the interval of checkpoints."""
    recipe, compute = recipe_of(params, name, seed), params.compute
    unread = {*kinds.SECTIONS, *kinds.MASKED_ONLY, *kinds.ATTENTION_FIELDS}
    unread -= set(kinds.OBJECTIVES[recipe.objective].values)
    return {
        **{key: value for key, value in asdict(recipe).items() if key not in unread},
        **{key: getattr(compute, key) for key in ("accelerator", "threads", "devices")},
        "checkpoint_every_epochs": params.methods[name].pretrain.checkpoint_every_epochs,
    }


def tuning_of(params: Params, cell: Cell) -> Tuning:
    """What decides a fine-tuning."""
    own, shared = params.finetune, _classifying(params, cell)
    return Tuning(
        **vars(shared),
        head_init_std=own.head_init_std if shared.pool == "mean" else own.head_init_std_mocov3,
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


def trivial_of(params: Params, task: str) -> Trivial:
    """What decides the trivial classifiers of a task."""
    own = params.finetune
    return Trivial(
        task=task,
        seed=own.seeds[0],
        threshold=own.threshold,
        bins=params.trivial.bins,
        rounds=params.trivial.rounds,
        linear_c=own.linear_c,
        linear_iterations=own.linear_iterations,
        threads=params.compute.threads,
    )


def explaining_of(params: Params) -> Explaining:
    """What decides the stage `explain`."""
    compute = params.compute
    return Explaining(headline(params)[1], compute.accelerator, compute.precision, compute.threads)


def _classifying(params: Params, cell: Cell) -> Classifying:
    """The values of all modes; without pre-training the tokens are those of the masked objectives."""
    method, compute = params.methods.get(cell.method), params.compute
    unpooled = "own" if cell.method in params.encoders else "mean"
    return Classifying(
        task=cell.task,
        seed=int(cell.seed),
        encoder=encoder_of(params, cell.method),
        side=side_of(params, cell.method),
        pool=unpooled if method is None else kinds.OBJECTIVES[method.objective].pool,
        threshold=params.finetune.threshold,
        accelerator=compute.accelerator,
        precision=compute.precision,
        threads=compute.threads,
        pretrain_seed=pretrain_seed(params, cell),
    )
