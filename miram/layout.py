"""The name of every folder and file, relative to the working folder.

Files that come with the code (`project_file`) are next to it, wherever the work is done. `name` is `Params.name`, that
of the run: the preset's, or that of an own data set. It and the following arguments may be values or the workflow's
wildcards in braces.
"""

import re
from pathlib import Path

from miram.errors import MiramError
from miram.files import files_below
from miram.stages import STAGES, Cell

FROM_SCRATCH = "from-scratch"  # the method without pre-training
TIMM = "timm"  # the kind of the rows of `encoders`
TRIVIAL = ("trivial-size", "trivial-grey")  # the classifiers that see no lesion, for reference
TRIVIAL_MODE = "trivial"  # theirs, in the place of a cell's mode
(FINETUNE,) = STAGES["finetune"].modes  # the mode that trains the encoder as well; the others keep it frozen
# what describes the other results; the workflow's entry, copied to them; SHA-256 of every verified DICOM instance
METADATA, WORKFLOW, LOCK = STAGES["crate"].files
PREDICTIONS = "predictions.parquet"  # of a classifier, see `miram.predictions`
BASE = "paper"  # the preset whose data all use that are named after it: paper-448, paper-896
PROJECT = Path(__file__).resolve().parent.parent
BENCH = Path("results", "bench")  # measurements of `miram.bench`, kept in git
COMPILED = Path(".cache", "torch-compile")  # what torch.compile made for one job, kept for the next ones
CASE_CSVS = tuple(f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test"))
NAME = r"[a-z0-9][a-z0-9-]*"  # pattern of the name of a method, or of an own data set
RECONSTRUCTIONS = "reconstructions_{}.png"  # of a method; `table` writes these as well


def project_file(*parts: str) -> Path:
    """A file that comes with the code: relative in the project's folder, absolute in any other."""
    path = PROJECT.joinpath(*parts)
    return path.relative_to(PROJECT) if Path.cwd() == PROJECT else path


def resource(name: str) -> Path:
    """A file that the stages or the workflow read: the paper's figures, its claims, the resources of jobs."""
    return project_file("workflow", "resources", name)


def paper_csv() -> Path:
    """The figures of the paper."""
    return resource("paper.csv")


def claims_yaml() -> Path:
    """The paper's claims, as rules."""
    return resource("claims.yaml")


def default_params() -> Path:
    """params.yaml of the working folder, else the project's."""
    own = Path("params.yaml")
    return own if own.exists() else project_file(own.name)


def data(name: str) -> Path:
    """Archive, DICOMs, crops, tables; presets such as `paper-448` use those of `paper`."""
    return Path("data", BASE if name.startswith(f"{BASE}-") else name)


def pictures(name: str) -> Path:
    """The facts of each own picture: bits, grey levels, polarity, maker."""
    return data(name) / "pictures.csv"


def overview(name: str) -> Path:
    """The summary of own images, in words."""
    return data(name) / "overview.md"


def images_check(name: str) -> Path:
    """The page of the check of own images before the first run."""
    return data(name) / "images-check.html"


def extra_pictures(name: str) -> Path:
    """The same for images that are only for pre-training."""
    return data(name) / "extra_pictures.csv"


def extra_files(extra_images: str | None) -> list[Path]:
    """All files of the folder of images for pre-training, see `files_below`.

    Raises MiramError if the named folder has none, or a path has a brace, which would be a wildcard of the workflow.
    """
    if extra_images is None:
        return []
    found = files_below(extra_images)
    if not found:
        raise MiramError(
            f"pretrain.extra_images: {extra_images} is not a folder with pictures.", "Name one in params.yaml, or null."
        )
    for path in found:
        if set("{}") & set(str(path)):
            raise MiramError(f"pretrain.extra_images: paths may not contain {{ or }}: {path}.", "Rename it.")
        if not path.exists():
            raise MiramError(
                f"pretrain.extra_images: {path} is a link to {path.readlink()}, which does not exist.",
                "Correct or remove it.",
            )
    return found


def runs(name: str) -> Path:
    """What is trained, evaluated and explained, and the records of the results."""
    return Path("runs", name)


def splits(name: str, protocol: str) -> Path:
    """The table that divides the lesions under one protocol."""
    return record("splits", name, protocol).with_suffix(".csv")


def ledger(name: str) -> Path:
    """The ledger: the history of every series and film."""
    return data(name) / "ledger.jsonl"


def pretrain(name: str, protocol: str, method: str, seed: int) -> Path:
    """One pre-training."""
    return record("pretrain", name, protocol, method, seed).parent


def classifier(name: str, cell: Cell) -> Path:
    """One classifier, of any mode."""
    return record("finetune", name, *cell).parent


def trivial_predictions(folder: Path, method: str) -> Path:
    """The predictions of one of TRIVIAL, in the folder of its record."""
    return folder / f"{method}.parquet"


def explain(name: str) -> Path:
    """Relevance and feature maps of fine-tuned and pre-trained networks."""
    return record("explain", name).parent


def results(name: str) -> Path:
    """Tables and figures, kept in git."""
    return Path("results", name)


def result_files(stage: str, name: str) -> list[Path]:
    """The files that a stage writes into the results folder of every run."""
    return [results(name) / file for file in STAGES[stage].files]


def reconstructions(name: str, method: str) -> Path:
    """The figure of a method's reconstructions."""
    return results(name) / RECONSTRUCTIONS.format(method)


def is_result(file: str) -> bool:
    """Whether a file of this name in a results folder may come from a run, this one or another."""
    return any(file in stage.files for stage in STAGES.values()) or bool(
        re.fullmatch(RECONSTRUCTIONS.replace(".", r"\.").format(NAME), file)
    )


def benches() -> list[Path]:
    """The measurements of `miram.bench`, in the working folder or else the project: one file per program that ran."""
    found = {path.name: path for folder in (project_file(*BENCH.parts), BENCH) for path in folder.glob("*.json")}
    return [found[name] for name in sorted(found)]


def record(stage: str, name: str, *place: int | str) -> Path:
    """The JSON record that a stage writes last; `place` holds the values of `Stage.place`."""
    row = STAGES[stage]
    return Path(row.record.format(data=data(name), runs=runs(name), **dict(zip(row.place, place, strict=True))))


def logs(name: str) -> Path:
    """The logs of the workflow's jobs, from their last run."""
    return Path("logs", name)


def log(stage: str, name: str, *place: int | str) -> Path:
    """The log of a stage's job; `place` as for `record`."""
    row = STAGES[stage]
    said = (row.log or stage).format(**dict(zip(row.place, place, strict=True)))
    return logs(name) / f"{said}.log"
