"""The stages of the workflow, one row each: every other list of stages is read from here.

What decides a stage's result is `params.stage_values`, and what it reads is its rule in workflow/rules/.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """One classifier: how lesions are split, what is told apart, what is trained, the start, and the seed."""

    protocol: str
    task: str
    mode: str
    method: str
    seed: int | str

    def __str__(self) -> str:
        return "/".join([*self[:-1], f"seed-{self.seed}"])


@dataclass(frozen=True)
class Stage:
    """One stage; in `record` and `log` {data} and {runs} are folders of the run, and other braces values of `place`."""

    name: str  # of its sub-command and of its rule
    module: str  # where its code begins
    does: str
    record: str  # path of the JSON file that it writes last
    log: str = ""  # what its jobs say, without the folder and the ending; empty: its name
    place: tuple[str, ...] = ()  # what tells its jobs apart; without it the stage is one job
    modes: tuple[str, ...] = ()  # of the classifiers that it makes
    files: tuple[str, ...] = ()  # what it may write into the results folder
    only: Literal["", "embedded", "films", "images", "networks"] = ""  # the runs that have it, see `params.jobs`
    reads_source: bool = False
    on_gpu: bool = False  # where there is one
    with_gaps: bool = False  # made all the same of what has finished when other jobs have failed
    final: bool = False  # only the crate follows

    @property
    def examined(self) -> bool:
        """Whether the machine is examined before it."""
        return self.reads_source or self.on_gpu

    @property
    def options(self) -> tuple[str, ...]:
        """The part of `place` that its sub-command is told."""
        return tuple(name for name in self.place if name != "mode" or len(self.modes) > 1)


_CLASSIFIER = "{runs}/{protocol}/classifiers/{task}/{mode}/{method}/seed-{seed}/record.json"
_CLASSIFIER_LOG = str(Cell(*(f"{{{name}}}" for name in Cell._fields)))
_ROWS = (
    Stage(
        "archive",
        "miram.phantom.archive",
        "write the embedded archive: a phantom CBIS-DDSM, as DICOM (preset demo)",
        "{data}/archive.json",
        only="embedded",
    ),
    Stage(
        "catalogue",
        "miram.data.transfer.catalogue",
        "fetch the case lists; list the series that their lesions need",
        "{data}/catalogue.json",
        only="films",
        reads_source=True,
    ),
    Stage(
        "crops",
        "miram.data.transfer.films",
        "film by film: fetch, verify, cut the lesions; write lesions.csv and set_aside.csv",
        "{data}/crops.json",
        only="films",
        reads_source=True,
    ),
    Stage(
        "images",
        "miram.data.own_images",
        "read images of one's own in place of crops (source images)",
        "{data}/crops.json",  # in its place: what follows is the same
        only="images",
        reads_source=True,
    ),
    Stage("pack", "miram.train.store", "decode all crops into one file for training", "{data}/pack.json"),
    Stage(
        "splits",
        "miram.data.splits",
        "divide the lesions into training, validation and test",
        "{data}/splits/{protocol}.json",
        log="splits/{protocol}",
        place=("protocol",),
    ),
    Stage(
        "audit",
        "miram.data.audit",
        "write what the splits share, and what was repaired, set aside or lies at a border",
        "{runs}/audit.json",  # not beside the results: those are in git, and would seem made
        files=("audit.md",),
        only="films",
        final=True,
    ),
    Stage(
        "pretrain",
        "miram.train.pretrain",  # whose lesions miram.data.splits chooses
        "pre-train one method",
        "{runs}/{protocol}/pretrain/{method}/record.json",
        log="{protocol}/pretrain/{method}",
        place=("protocol", "method"),
        on_gpu=True,
    ),
    Stage(
        "finetune",
        "miram.train.finetune",
        "fine-tune one method and predict validation and test",
        _CLASSIFIER,
        log=_CLASSIFIER_LOG,
        place=Cell._fields,
        modes=("finetune",),
        on_gpu=True,
    ),
    Stage(
        "probe",
        "miram.train.probe",
        "classify the frozen features of one method and predict validation and test",
        _CLASSIFIER,
        log=_CLASSIFIER_LOG,
        place=Cell._fields,
        modes=("linear", "knn"),
        on_gpu=True,
    ),
    Stage(
        "explain",
        "miram.train.explain",
        "map what fine-tuned networks rest on, and the features of pre-trained ones",
        "{runs}/explain/record.json",
        only="networks",
        on_gpu=True,
    ),
    Stage(
        "evaluate",
        "miram.evaluate.metrics",
        "compute the metrics of all predictions",
        "{runs}/evaluate.json",
        files=("metrics.csv", "differences.csv"),
        with_gaps=True,
    ),
    Stage(
        "claims",
        "miram.evaluate.claims",
        "judge the paper's claims by the metrics, the differences and the bench",
        "{runs}/claims.json",
        files=("claims.csv", "claims.md"),
        only="films",
        with_gaps=True,
        final=True,
    ),
    Stage(
        "efficiency",
        "miram.report.efficiency",
        "set accuracy against memory and time, of pre-training and of the bench",
        "{runs}/efficiency.json",
        files=("efficiency.csv", "efficiency.md", "efficiency.png"),
        with_gaps=True,
        final=True,
    ),
    Stage(
        "table",
        "miram.report.table",
        "write the comparison table and the figures",
        "{runs}/table.json",
        files=(
            *(f"comparison.{end}" for end in ("csv", "md", "tex", "png")),
            *("set_aside.md", "summary.json", "pretraining.csv"),
        ),  # and the reconstructions of each method
        with_gaps=True,
        final=True,
    ),
    Stage(
        "report",
        "miram.report.report",
        "write the report: one HTML page that opens without a network",
        "{runs}/report.json",
        files=("report.html",),
        with_gaps=True,
        final=True,
    ),
    Stage(
        "crate",
        "miram.provenance.crate",
        "describe the results folder as an RO-Crate: its files and what made them",
        "{runs}/crate.json",
        files=("ro-crate-metadata.json", "Snakefile", "instances.csv"),
    ),
)
STAGES = {row.name: row for row in _ROWS}  # in the order of work
