"""Hours of the complete table: predicted from measured rates, and compared with finished trainings.

A rate is images/s of a whole training step, from a file of `miram bench` on the device; a forward pass
counts as a third of a step.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from miram.data import tasks
from miram.data.cbis_ddsm.cases import carried_lesions
from miram.data.splits import PRETRAIN, SEEN, pretraining_backgrounds, split_lesions
from miram.layout import FINETUNE, Cell
from miram.recipe import Encoder, Recipe

FORWARD = 1 / 3  # of the operations of a training step
# Of those of a step of MoCo-v3, if its batch is divided, as `accumulate: auto` is taken to do; benchmarks.divided
# measures the time.
ENCODED_AGAIN = 1 / 4
HOUR, DAY = 3600, 24


class Images(NamedTuple):
    """The number of images that the trainings under one protocol see."""

    lesions: int  # by pre-training
    backgrounds: int  # by pre-training, in addition
    tasks: Mapping[str, Sequence[int]]  # lesions with a label in training, validation and test


class Job(NamedTuple):
    """A training, with what decides its rate."""

    what: str
    side: int  # px
    images: float  # of training steps, over all epochs
    record: Path
    rated: str  # what a bench names it by: that of a method of the same model
    job: str  # of the workflow, which makes all classifiers of a method, task and protocol in one


def count_images(lesions_csv: Path, splits_csv: Path, backgrounds_csv: Path, names: Iterable[str]) -> Images:
    """The images of a protocol once its lesions are cut and divided; `names` are tasks."""
    lesions = pd.read_csv(lesions_csv, dtype=str, keep_default_na=False)
    split = lesions["lesion_id"].map(pd.read_csv(splits_csv, dtype=str).set_index("lesion_id")["split"])
    return _images(lesions, split, len(pretraining_backgrounds(lesions_csv, splits_csv, backgrounds_csv)), names)


def listed_images(protocol: str, names: Iterable[str], *, backgrounds_per_film: int, **division: Any) -> Images:
    """The images of a protocol by the case lists of CBIS-DDSM, before any lesion is set aside.

    `names` are tasks, `division` the values of `split_lesions`. Pixel hashes of films count as unknown.
    """
    lesions = carried_lesions().assign(film_sha256="")
    splits = split_lesions(lesions, protocol=protocol, **division)
    split = lesions["lesion_id"].map(splits.set_index("lesion_id")["split"])
    films = set(lesions.loc[split.isin(SEEN), "film_uid"]) - set(lesions.loc[split == "test", "film_uid"])
    return _images(lesions, split, len(films) * backgrounds_per_film, names)


def _images(lesions: pd.DataFrame, split: pd.Series, backgrounds: int, names: Iterable[str]) -> Images:
    labelled = {name: split[tasks.labels(lesions, name) != ""].value_counts() for name in names}
    counts = {name: [int(n.get(part, 0)) for part in ("train", "validation", "test")] for name, n in labelled.items()}
    return Images(int(split.isin((*SEEN, PRETRAIN)).sum()), backgrounds, counts)


def pretraining_job(name: str, recipe: Recipe, images: int, devices: int, record: Path, like: str) -> Job:
    """Pre-training of method `name`, of the same model as `like`, on this many images, shared by this many devices."""
    again = ENCODED_AGAIN if recipe.divides_batch and recipe.accumulate != 1 else 0
    return Job(
        f"pre-training {name}",
        recipe.side,
        images_seen(recipe, images) * (1 + again) / devices,
        record,
        f"pre-training {like}",
        str(record),
    )


def images_seen(recipe: Recipe, images: int) -> int:
    """What a pre-training sees over all its epochs, of this many images in whole batches."""
    return images // recipe.batch * recipe.batch * recipe.epochs


def classifier_job(cell: Cell, side: int, images: Images, epochs: int, record: Path, network: str = "") -> Job:
    """Fine-tuning, with validation after each epoch, or one pass over the lesions for a probe.

    `network`: the row of another encoder than ours, of which no bench has a rate.
    """
    train, validation, test = images.tasks[cell.task]
    what, count = "probes", FORWARD * (train + validation + test)
    if cell.mode == FINETUNE:
        what, count = "fine-tuning", epochs * (train + FORWARD * validation) + FORWARD * test
    what = f"{what} {network}".rstrip()
    return Job(what, side, count, record, what, f"{cell.protocol}/{cell.task}/{cell.method}")


def hours(jobs: Iterable[Job], encoder: Encoder, benches: Iterable[Path]) -> dict[str, pd.DataFrame]:
    """Device -> one row per kind of training and side: how many, images/s, hours, and those of the finished ones.

    The attribute `jobs` has the hours of each job of the workflow.
    Benches of another `encoder` do not count. If no rate was measured for a kind, hours are NaN.
    """
    table = pd.DataFrame(jobs, columns=Job._fields)
    table["taken"] = [_taken(path) for path in table["record"]]
    measured = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in benches}
    own = {name: found for name, found in measured.items() if found.get("encoder") == asdict(encoder)}
    return {
        f"{found['machine']['gpu'] or found['machine']['processor']} ({name})": _on_device(table, _rates(found))
        for name, found in own.items()
    }


def _rates(measured: Mapping[str, Any]) -> dict[tuple[str, int], float]:
    """Images/s of each kind of job at each side, from `miram bench`; of whole pre-trainings if measured."""
    own = [row for row in measured.get("training", []) if row["form"] == "fused" and row["images_per_second"]]
    rates = {
        (f"pre-training {row['method']}", row["side"]): row["images_per_second"] for row in [*measured["steps"], *own]
    }
    for row in measured["finetuning"]:
        rates |= {(what, row["side"]): row["images_per_second"] for what in ("fine-tuning", "probes")}
    return rates


def _on_device(table: pd.DataFrame, rates: Mapping[tuple[str, int], float]) -> pd.DataFrame:
    speed = [rates.get(place, float("nan")) for place in zip(table["rated"], table["side"], strict=True)]
    table = table.assign(speed=speed)
    table["hours"] = table["images"] / table["speed"] / HOUR
    table["planned"] = table["hours"].where(table["taken"].notna())
    sums = {name: (name, lambda values: values.sum(min_count=1)) for name in ("hours", "planned", "taken")}
    found = table.groupby(["what", "side"], sort=False).agg(
        trainings=("images", "size"), speed=("speed", "first"), finished=("taken", "count"), **sums
    )
    found.attrs["jobs"] = table.groupby("job")["hours"].sum()
    return found.reset_index()


def _taken(path: Path) -> float:
    """Hours that a finished training took; NaN without its record."""
    return json.loads(path.read_text(encoding="utf-8"))["facts"]["seconds"] / HOUR if path.exists() else float("nan")


def totals(plans: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Device -> the hours of all trainings, in words."""
    texts = {}
    for device, plan in plans.items():
        sum_hours = plan["hours"].sum()
        least = "more than " if plan["hours"].isna().any() else ""
        texts[device] = f"{least}{sum_hours:,.1f} h ({sum_hours / DAY:,.1f} days)"
    return texts


def as_text(plans: Mapping[str, pd.DataFrame], devices: int, *, pretrain_seeds: int, finetune_seeds: int) -> str:
    """The hours on each measured device, and of one more seed; finished trainings may have run on another one.

    `pretrain_seeds` and `finetune_seeds`: the number of seeds that the plans are for.
    """
    if not plans:
        return "No rates were measured: run `miram bench` on the device."
    parts = []
    for device, plan in plans.items():
        shown = plan.rename(
            columns={
                **{"speed": "images/s", "planned": "of the finished: planned, h", "taken": "taken, h"},
                **{"side": "side, px", "hours": "planned, h"},
            }
        )
        parts += [
            f"{device}, {devices} device(s) for a pre-training:",
            shown.map(_text).to_markdown(index=False, disable_numparse=True, colalign=("left", *["right"] * 7)),
            f"Total if run sequentially: {totals({device: plan})[device]}; {len(plan.attrs['jobs'])} jobs, the longest "
            f"{_known(plan.attrs['jobs'].max(), plan['hours'])}. One more seed for all methods: of "
            f"pre-training {_one_of(plan, pretrain_seeds, 'pre-training')}, of fine-tuning "
            f"{_one_of(plan, finetune_seeds, 'fine-tuning')}.",
        ]
    return "\n\n".join(parts)


def _one_of(plan: pd.DataFrame, seeds: int, kind: str) -> str:
    """The hours of one of the seeds of a kind of training, in words."""
    own = plan.loc[plan["what"].str.startswith(kind), "hours"]
    return _known(own.sum() / seeds, own)


def _known(told: float, parts: pd.Series) -> str:
    """Hours in words; they are more where those of some of their parts are unknown."""
    return ("more than " if parts.isna().any() else "") + f"{told:,.1f} h"


def _text(value: object) -> object:
    """Two decimals; "-" if not measured."""
    if not isinstance(value, float):
        return value
    return "-" if math.isnan(value) else f"{value:,.2f}"
