"""The commands about a machine: whether it suffices, what fits on it, what all trainings cost there."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from miram import layout, params
from miram.cli.stage import classifiers, pretrainings, store_of
from miram.errors import MiramError
from miram.stages import STAGES

if TYPE_CHECKING:
    import pandas as pd

    from miram.planning.hours import Images


def doctor(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Examine this machine before the stages of `arguments` start; it writes no record, as it has no outputs."""
    from miram.planning.doctor import all_made_gb, examine, held_gb
    from miram.train.device import check_precision, usable_accelerator

    stages, methods = arguments.stages, pretrainings(chosen)
    reads = not params.is_embedded(chosen) and any(STAGES[name].reads_source for name in stages)
    each = len(chosen.splits.protocols) * len(chosen.pretrain.seeds)
    counts = {"pretrainings": each, "networks": len(params.kept(chosen))}
    crops_bytes = _crops_bytes(chosen)
    all_made = all_made_gb(methods, encoder=chosen.encoder, **counts, crops_bytes=crops_bytes)
    made_in = [layout.runs(chosen.name), store_of(chosen)[0]]
    made_in += [layout.data(chosen.name) / name for name in ("crops", "backgrounds")]
    facts = {
        "source": chosen.source,
        "settings": params.stage_values(chosen, "catalogue")["settings"] if reads else {},
        "methods": methods if "pretrain" in stages else {},
        "accelerator": chosen.compute.accelerator if any(STAGES[name].on_gpu for name in stages) else None,
        "devices": chosen.compute.devices if "pretrain" in stages else 1,
        "elsewhere": arguments.elsewhere,
        "preset": chosen.preset,
        "crops_bytes": crops_bytes,
        "made_gb": max(0.0, all_made - sum(map(held_gb, made_in))),
        "keep_dicom": chosen.transfer.keep_dicom,
        "timeout_seconds": chosen.transfer.timeout_seconds,
        "hours": _hours(chosen),
    }
    examine(layout.data(chosen.name), **facts)
    if facts["accelerator"] is not None and not arguments.elsewhere:
        check_precision(chosen.compute.precision, usable_accelerator(chosen.compute.accelerator))


def _crops_bytes(chosen: params.Params) -> float:
    """Bytes of the packed crops; before packing an estimate, for own images from the pixels in their headers."""
    from miram.data.cbis_ddsm.cases import carried_lesions
    from miram.data.own_images.table import pixels_of_lesions
    from miram.data.pictures.reader import count_pixels
    from miram.planning.doctor import CROP_BYTES

    store = store_of(chosen)[0]
    if store.exists():
        return store.stat().st_size
    images = chosen.sources.images
    own = sum(map(count_pixels, layout.extra_files(chosen.pretrain.extra_images)))
    if chosen.source == params.IMAGES:
        own += pixels_of_lesions(Path(images.table_csv), Path(images.folder))
    of_cbis = not (chosen.source == params.IMAGES or params.is_embedded(chosen))
    cut = 0
    if of_cbis:
        films = carried_lesions()["film_uid"]
        cut = len(films) + films.nunique() * chosen.pretrain.backgrounds_per_film
    return CROP_BYTES * cut + own


def fit_memory(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the memory of each method's pre-training, and how its batch fits."""
    from miram.planning.memory import as_table

    print(
        as_table(
            pretrainings(chosen), arguments.vram * 1e9, devices=chosen.compute.devices, crops_bytes=_crops_bytes(chosen)
        )
    )


def plan_hours(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the hours of every training of the preset."""
    from miram.planning.hours import as_text

    seeds = {"pretrain_seeds": len(chosen.pretrain.seeds), "finetune_seeds": len(chosen.finetune.seeds)}
    print(as_text(_plans(chosen), chosen.compute.devices, **seeds))


def _plans(chosen: params.Params) -> "dict[str, pd.DataFrame]":
    """The result of `miram.planning.hours.hours` for all trainings of a preset."""
    from miram.planning.hours import classifier_job, hours, pretraining_job

    extra = len(layout.extra_files(chosen.pretrain.extra_images))
    images: dict[str, Images] = {protocol: _images(chosen, protocol) for protocol in chosen.splits.protocols}
    jobs = []
    for protocol, own in images.items():
        seen = own.lesions + own.backgrounds + extra
        for name, recipe in pretrainings(chosen).items():
            for seed in chosen.pretrain.seeds:
                path = layout.record("pretrain", chosen.name, protocol, name, seed)
                jobs.append(pretraining_job(name, recipe, seen, chosen.compute.devices, path))
    for cell, path in classifiers(chosen).items():
        side = params.side_of(chosen, cell.method)
        rates = 1 if params.chooser(chosen, cell) else len(getattr(chosen.finetune.lr, cell.protocol))
        jobs.append(classifier_job(cell, side, images[cell.protocol], chosen.finetune.epochs * rates, path))
    return hours(jobs, chosen.encoder, layout.benches())


def _images(chosen: params.Params, protocol: str) -> "Images":
    """The number of images that the trainings under a protocol see: from the splits, or from the case lists."""
    from miram.planning.hours import count_images, listed_images

    folder = layout.data(chosen.name)
    tables = folder / "lesions.csv", layout.splits(chosen.name, protocol), folder / "backgrounds.csv"
    if all(table.exists() for table in tables):
        return count_images(*tables, chosen.finetune.tasks)
    if chosen.source == params.IMAGES or params.is_embedded(chosen):
        raise MiramError(
            f"The lesions of preset {chosen.preset} have no splits yet.", "Run the workflow, or its stage `splits`."
        )
    division = {name: getattr(chosen.splits, name) for name in ("validation_fraction", "candidates", "seed")}
    per_film = chosen.pretrain.backgrounds_per_film
    return listed_images(protocol, chosen.finetune.tasks, backgrounds_per_film=per_film, **division)


def _hours(chosen: params.Params) -> dict[str, str]:
    """The hours of all trainings on each measured device, in words; nothing if the images are unknown."""
    from miram.planning.hours import totals

    try:
        return totals(_plans(chosen))
    except MiramError:
        return {}


def measure(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Run the bench at the sizes of the preset."""
    from miram.bench.efficiency import bench

    flags = [f"--device {arguments.device}"] + ["--quick"] * arguments.quick
    command = " ".join([f"miram --preset {chosen.preset} bench", *flags])
    print(f"written: {bench(pretrainings(chosen), arguments.out, arguments.device, arguments.quick, command)}")
