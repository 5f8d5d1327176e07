"""Where everything lies: the one place of each folder and file name, relative to the working folder.

`preset` and what follows it may be the workflow's wildcards in braces as well as values.
"""

import os
from pathlib import Path
from typing import NamedTuple

from miram.errors import MiramError

FROM_SCRATCH = "from-scratch"  # the method without pre-training
IMAGENET = "imagenet"  # the method that starts from a given file, finetune.imagenet_init
FULL = "full"  # the mode that trains the encoder as well: stage `finetune`; the others, of a frozen one: stage `probe`
LOCK = "instances.csv"  # SHA-256 of every verified DICOM instance, beside the data and beside the results
BENCH = Path("results", "bench")  # what `miram.bench` measured, kept in git
CASE_CSVS = tuple(f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test"))


class Cell(NamedTuple):
    """One classifier: how lesions are split, what is told apart, what is trained, the start, and the seed."""

    protocol: str
    task: str
    mode: str
    method: str
    seed: int | str

    def __str__(self) -> str:
        return "/".join([*self[:-1], f"seed-{self.seed}"])


# what tells the jobs of a stage apart; the other stages are one job each
PLACES = {
    "splits": ("protocol",),
    "pretrain": ("protocol", "method"),
    "finetune": Cell._fields,
    "probe": Cell._fields,
}


def data(preset: str) -> Path:
    """Archive, DICOMs, crops, tables; `paper-448` and the like use those of `paper`."""
    return Path("data", preset.partition("-")[0])


def pictures(preset: str) -> Path:
    """What was found in each picture of one's own: bits, grey levels, polarity, maker."""
    return data(preset) / "pictures.csv"


def extra_pictures(preset: str) -> Path:
    """The same of the images that pre-training alone sees."""
    return data(preset) / "extra_pictures.csv"


def extra_files(extra_images: str | None) -> list[Path]:
    """All files of the folder of images for pre-training and of the folders below it, links followed, by name.

    Hidden ones do not count. Raises MiramError when a folder is named that holds none, or a path has a brace: a
    wildcard of the workflow.
    """
    if extra_images is None:
        return []
    folders = os.walk(extra_images, followlinks=True)
    paths = (Path(folder, name) for folder, _, names in folders for name in names)
    found = sorted(path for path in paths if not _is_hidden(path.relative_to(extra_images)))
    if not found:
        raise MiramError(
            f"pretrain.extra_images: {extra_images} is no folder with pictures.", "Name one in params.yaml, or null."
        )
    for path in found:
        if set("{}") & set(str(path)):
            raise MiramError(f"pretrain.extra_images: there is a brace in {path}.", "Rename it.")
        if not path.exists():
            raise MiramError(
                f"pretrain.extra_images: {path} is a link to {path.readlink()}, which is not there.",
                "Mend or remove it.",
            )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def runs(preset: str) -> Path:
    """What is trained, evaluated and explained, and the records of the results."""
    return Path("runs", preset)


def splits(preset: str, protocol: str) -> Path:
    """The table that divides the lesions under one protocol."""
    return data(preset) / "splits" / f"{protocol}.csv"


def ledger(preset: str) -> Path:
    """What happened to every series and film."""
    return data(preset) / "ledger.jsonl"


def pretrain(preset: str, protocol: str, method: str) -> Path:
    """One pre-training."""
    return runs(preset).joinpath(protocol, "pretrain", method)


def finetune(preset: str, cell: Cell) -> Path:
    """One classifier, of any mode."""
    return runs(preset).joinpath(cell.protocol, "finetune", cell.task, cell.mode, cell.method, f"seed-{cell.seed}")


def explain(preset: str) -> Path:
    """What fine-tuned and pre-trained networks show beyond their answers."""
    return runs(preset) / "explain"


def results(preset: str) -> Path:
    """Tables and figures, kept in git."""
    return Path("results", preset)


def benches() -> list[Path]:
    """What `miram.bench` measured, kept in git; which of its programs have run, the files tell."""
    return sorted(BENCH.glob("*.json"))


def record(stage: str, preset: str, *place: int | str) -> Path:
    """The JSON record that a stage writes last; `place` holds the values that PLACES names for the stage."""
    if stage == "splits":
        return splits(preset, *place).with_suffix(".json")
    if stage == "pretrain":
        return pretrain(preset, *place) / "record.json"
    if stage in ("finetune", "probe"):
        return finetune(preset, Cell(*place)) / "record.json"
    if stage == "images":
        return record("crops", preset)  # in its place: what follows is the same
    if stage == "explain":
        return explain(preset) / "record.json"
    if stage in ("audit", "evaluate", "claims", "efficiency", "table", "report", "crate"):
        return runs(preset) / f"{stage}.json"  # not beside the results: those are in git, and would seem made
    return data(preset) / f"{stage}.json"


def log(stage: str, preset: str, *place: int | str) -> Path:
    """What a stage's job said when the workflow last ran it; `place` as for `record`."""
    folder = Path("logs", preset)
    if stage in ("finetune", "probe"):
        return folder / f"{Cell(*place)}.log"
    if stage == "pretrain":
        protocol, method = place
        return folder / protocol / stage / f"{method}.log"
    return folder.joinpath(stage, *place).with_suffix(".log")
