"""Where everything lies: the one place of each folder and file name, relative to the working folder.

What comes with the code (`project_file`) lies beside it, wherever the work is done. `name` is that of the run,
`Params.name`: the preset's, or that of a data set of one's own. It and what follows it may be the workflow's wildcards
in braces as well as values.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from miram.errors import MiramError

FROM_SCRATCH = "from-scratch"  # the method without pre-training
IMAGENET = "imagenet"  # the method that starts from a given file, finetune.imagenet_init
FINETUNE = "finetune"  # the mode that trains the encoder as well; the others leave it frozen: stage `probe`
LOCK = "instances.csv"  # SHA-256 of every verified DICOM instance, beside the data and beside the results
METADATA = "ro-crate-metadata.json"  # of the crate, which describes the other results
WORKFLOW = "Snakefile"  # the workflow's entry; a copy is kept with the results
BASE = "paper"  # the preset whose data all use that are named after it: paper-448, paper-896
PROJECT = Path(__file__).resolve().parent.parent
BENCH = Path("results", "bench")  # what `miram.bench` measured, kept in git
CASE_CSVS = tuple(f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test"))
NAME = r"[a-z0-9][a-z0-9-]*"  # pattern of the name of a method, or of a data set of one's own
RESULT_FILES = {  # what each stage may write into the results folder
    "audit": ("audit.md",),
    "evaluate": ("metrics.csv", "differences.csv"),
    "claims": ("claims.csv", "claims.md"),
    "efficiency": ("efficiency.csv", "efficiency.md", "efficiency.png"),
    "table": (
        *(f"comparison.{end}" for end in ("csv", "md", "tex", "png")),
        *("set_aside.md", "summary.json", "pretraining.csv"),
    ),
    "report": ("report.html",),
    "crate": (METADATA, WORKFLOW, LOCK),
}
RECONSTRUCTIONS = "reconstructions_{}.png"  # of a method; `table` writes these as well


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


def project_file(*parts: str) -> Path:
    """A file that comes with the code: relative in the project's folder, whole in any other."""
    path = PROJECT.joinpath(*parts)
    return path.relative_to(PROJECT) if Path.cwd() == PROJECT else path


def resource(name: str) -> Path:
    """A file that the stages read, or the workflow: the paper's figures, its claims, what jobs reserve."""
    return project_file("workflow", "resources", name)


def paper_csv() -> Path:
    """The figures of the paper."""
    return resource("paper.csv")


def claims_yaml() -> Path:
    """What the paper claims, as rules."""
    return resource("claims.yaml")


def default_params() -> Path:
    """params.yaml of the working folder; where it has none, the project's."""
    own = Path("params.yaml")
    return own if own.exists() else project_file(own.name)


def data(name: str) -> Path:
    """Archive, DICOMs, crops, tables; `paper-448` and the like use those of `paper`."""
    return Path("data", BASE if name.startswith(f"{BASE}-") else name)


def pictures(name: str) -> Path:
    """What was found in each picture of one's own: bits, grey levels, polarity, maker."""
    return data(name) / "pictures.csv"


def overview(name: str) -> Path:
    """What was understood of one's own images, in words."""
    return data(name) / "overview.md"


def images_check(name: str) -> Path:
    """The page of a look at one's own images before the first run."""
    return data(name) / "images-check.html"


def extra_pictures(name: str) -> Path:
    """The same of the images that pre-training alone sees."""
    return data(name) / "extra_pictures.csv"


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


def runs(name: str) -> Path:
    """What is trained, evaluated and explained, and the records of the results."""
    return Path("runs", name)


def splits(name: str, protocol: str) -> Path:
    """The table that divides the lesions under one protocol."""
    return data(name) / "splits" / f"{protocol}.csv"


def ledger(name: str) -> Path:
    """What happened to every series and film."""
    return data(name) / "ledger.jsonl"


def pretrain(name: str, protocol: str, method: str) -> Path:
    """One pre-training."""
    return runs(name).joinpath(protocol, "pretrain", method)


def classifier(name: str, cell: Cell) -> Path:
    """One classifier, of any mode."""
    return runs(name).joinpath(cell.protocol, "classifiers", cell.task, cell.mode, cell.method, f"seed-{cell.seed}")


def explain(name: str) -> Path:
    """What fine-tuned and pre-trained networks show beyond their answers."""
    return runs(name) / "explain"


def results(name: str) -> Path:
    """Tables and figures, kept in git."""
    return Path("results", name)


def result_files(stage: str, name: str) -> list[Path]:
    """What a stage writes into the results folder of every run."""
    return [results(name) / file for file in RESULT_FILES[stage]]


def reconstructions(name: str, method: str) -> Path:
    """The figure of what a method reconstructs."""
    return results(name) / RECONSTRUCTIONS.format(method)


def is_result(file: str) -> bool:
    """Whether a file of this name in a results folder may be the work of a run, be it of another one."""
    return any(file in files for files in RESULT_FILES.values()) or bool(
        re.fullmatch(RECONSTRUCTIONS.replace(".", r"\.").format(NAME), file)
    )


def benches() -> list[Path]:
    """What `miram.bench` measured, here or else in the project; which of its programs have run, the files tell."""
    found = {path.name: path for folder in (project_file(*BENCH.parts), BENCH) for path in folder.glob("*.json")}
    return [found[name] for name in sorted(found)]


def record(stage: str, name: str, *place: int | str) -> Path:
    """The JSON record that a stage writes last; `place` holds the values that PLACES names for the stage."""
    if stage == "splits":
        return splits(name, *map(str, place)).with_suffix(".json")
    if stage == "pretrain":
        return pretrain(name, *map(str, place)) / "record.json"
    if stage in ("finetune", "probe"):
        return classifier(name, Cell(*map(str, place))) / "record.json"
    if stage == "images":
        return record("crops", name)  # in its place: what follows is the same
    if stage == "explain":
        return explain(name) / "record.json"
    if stage in RESULT_FILES:
        return runs(name) / f"{stage}.json"  # not beside the results: those are in git, and would seem made
    return data(name) / f"{stage}.json"


def log(stage: str, name: str, *place: int | str) -> Path:
    """What a stage's job said when the workflow last ran it; `place` as for `record`."""
    folder = Path("logs", name)
    if stage in ("finetune", "probe"):
        return folder / f"{Cell(*map(str, place))}.log"
    if stage == "pretrain":
        protocol, method = map(str, place)
        return folder / protocol / stage / f"{method}.log"
    return folder.joinpath(stage, *map(str, place)).with_suffix(".log")
