"""The commands about a machine: whether it suffices, what fits on it, what all trainings cost there."""

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from miram import layout, params
from miram.cli.stage import check_known, recipes, store_of
from miram.errors import MiramError
from miram.stages import STAGES

if TYPE_CHECKING:
    import pandas as pd

    from miram.planning.hours import Images, Job


def doctor(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Examine this machine before the stages of `arguments` start; it writes no record, as it has no outputs."""
    from miram.planning.doctor import all_made_gb, examine, held_gb
    from miram.train.device import usable_accelerator, usable_precision

    stages, methods = arguments.stages, recipes(chosen)
    reads = not params.is_embedded(chosen) and any(STAGES[name].reads_source for name in stages)
    count = len(params.pretrainings(chosen)) // len(methods)
    networks = [
        (params.encoder_of(chosen, cell.method), params.side_of(chosen, cell.method)) for cell in params.kept(chosen)
    ]
    crops_bytes = _crops_bytes(chosen)
    all_made = all_made_gb(methods, pretrainings=count, networks=networks, crops_bytes=crops_bytes)
    made_in = [layout.runs(chosen.name), store_of(chosen)[0]]
    made_in += [layout.data(chosen.name) / name for name in ("crops", "backgrounds")]
    facts = {
        "source": chosen.source,
        "settings": params.stage_values(chosen, "catalogue")["settings"] if reads else {},
        "methods": methods if "pretrain" in stages else {},
        "accelerator": chosen.compute.accelerator if any(STAGES[name].on_gpu for name in stages) else None,
        "devices": chosen.compute.devices if "pretrain" in stages else 1,
        "elsewhere": arguments.elsewhere,
        "encoder": chosen.encoder,
        "crops_bytes": crops_bytes,
        "made_gb": max(0.0, all_made - sum(map(held_gb, made_in))),
        "keep_dicom": chosen.transfer.keep_dicom,
        "timeout_seconds": chosen.transfer.timeout_seconds,
        "hours": _hours(chosen),
    }
    examine(layout.data(chosen.name), **facts)
    if facts["accelerator"] is not None and not arguments.elsewhere:
        usable_precision(chosen.compute.precision, usable_accelerator(chosen.compute.accelerator))


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
            recipes(chosen), arguments.vram * 1e9, devices=chosen.compute.devices, crops_bytes=_crops_bytes(chosen)
        )
    )


def plan_hours(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Print the hours of every training of the preset, on measured devices or on a card by its name."""
    from miram.planning.hours import as_text

    if arguments.card:
        print(_of_cards(chosen, arguments.card))
        return
    seeds = {"pretrain_seeds": len(chosen.pretrain.seeds), "finetune_seeds": len(chosen.finetune.seeds)}
    print(as_text(_plans(chosen, params.jobs(chosen)), chosen.compute.devices, **seeds))
    headline = _totals(chosen, params.headline_jobs(chosen))
    print("\n".join(f"Of it the headline, on {device}: {words}." for device, words in headline.items()))


def _of_cards(chosen: params.Params, name: str) -> str:
    """The predicted hours of the headline and of all trainings, on the card of that name or on all of them."""
    from miram.planning import cards
    from miram.planning.flops import finetuning_flops, pretraining_flops

    check_known("card", name, [*cards.CARDS, "all"])
    placed = {"headline": params.headline_jobs(chosen), "whole": params.jobs(chosen)}
    scopes = {scope: _jobs(chosen, jobs, devices=1) for scope, jobs in placed.items()}
    own = recipes(chosen)
    flops = {(f"pre-training {method}", recipe.side): pretraining_flops(recipe) for method, recipe in own.items()}
    for side in {recipe.side for recipe in own.values()} | {chosen.pretrain.side}:
        flops |= {(what, side): finetuning_flops(chosen.encoder, side) for what in ("fine-tuning", "probes")}
    for row in chosen.encoders:
        side, kind = params.side_of(chosen, row), params.encoder_of(chosen, row)
        flops |= {(f"{what} {row}", side): finetuning_flops(kind, side) for what in ("fine-tuning", "probes")}
    named = cards.CARDS if name == "all" else {name: cards.CARDS[name]}
    measured = cards.measured_hours(scopes, chosen.encoder, layout.benches(), named)
    return cards.as_text({scope: cards.operations(jobs, flops) for scope, jobs in scopes.items()}, named, measured)


def _plans(chosen: params.Params, jobs: Iterable[params.Placed]) -> "dict[str, pd.DataFrame]":
    """The result of `miram.planning.hours.hours` for the trainings among these jobs."""
    from miram.planning.hours import hours

    return hours(_jobs(chosen, jobs, chosen.compute.devices), chosen.encoder, layout.benches())


def _jobs(chosen: params.Params, jobs: Iterable[params.Placed], devices: int) -> "list[Job]":
    """The trainings among the jobs of a preset, a pre-training on so many devices, for `miram.planning.hours`."""
    from miram.planning.hours import classifier_job, pretraining_job

    extra = len(layout.extra_files(chosen.pretrain.extra_images))
    images: dict[str, Images] = {protocol: count_images_of(chosen, protocol) for protocol in chosen.splits.protocols}
    found = []
    for stage, place in jobs:
        path = layout.record(stage.name, chosen.name, *place)
        if stage.modes:
            cell = layout.Cell(*place)  # type: ignore[arg-type]
            side = params.side_of(chosen, cell.method)
            rates = 1 if params.chooser(chosen, cell) else len(getattr(chosen.finetune.lr, cell.protocol))
            epochs = chosen.finetune.epochs * rates
            other = cell.method if cell.method in chosen.encoders else ""
            found.append(classifier_job(cell, side, images[cell.protocol], epochs, path, other))
        elif stage.name == "pretrain":
            protocol, name, seed = str(place[0]), str(place[1]), int(place[2])
            seen = images[protocol].lesions + images[protocol].backgrounds + extra
            recipe = params.recipe_of(chosen, name, seed)
            like = params.first_like(chosen, name)
            found.append(pretraining_job(name, recipe, seen, devices, path, like))
    return found


def count_images_of(chosen: params.Params, protocol: str) -> "Images":
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
    try:
        return _totals(chosen, params.jobs(chosen))
    except MiramError:
        return {}


def _totals(chosen: params.Params, jobs: Iterable[params.Placed]) -> dict[str, str]:
    from miram.planning.hours import totals

    return totals(_plans(chosen, jobs))


def measure(chosen: params.Params, arguments: argparse.Namespace) -> None:
    """Run the bench at the sizes of the preset: all of it, or in so many minutes what decides on the device."""
    command = f"miram --preset {chosen.preset} bench --device {arguments.device}"
    if arguments.minutes is None:
        from miram.bench.efficiency import bench

        path = bench(recipes(chosen), arguments.out, arguments.device, command)
    else:
        from miram.bench.device import measure_device

        command += f" --minutes {arguments.minutes:g}"
        given = recipes(chosen), partial(_headline_hours, chosen), arguments.out, arguments.device
        path = measure_device(*given, arguments.minutes, command)
    print(f"written: {path}")


def _headline_hours(chosen: params.Params, bench_json: Path) -> dict[str, str]:
    """Device -> the hours of the headline by the rates of one bench; nothing if its images are unknown.

    Without scikit-learn, as on a machine that has little beside torch, the images cannot be divided to be counted.
    """
    from miram.planning.hours import hours, totals

    try:
        jobs = _jobs(chosen, params.headline_jobs(chosen), chosen.compute.devices)
    except (MiramError, ModuleNotFoundError):
        return {}
    return totals(hours(jobs, chosen.encoder, [bench_json]))
