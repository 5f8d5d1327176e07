"""The stages of the workflow, one row each: every other list of stages is read from here.

A stage has a rule and a sub-command of its name. The jobs of `classify` also write a record of each classifier, which
has a row of its own.

The values that decide a stage's result are in `params.stage_values`, its inputs in its rule in workflow/rules/.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """One classifier: protocol, task, mode, method (its initial weights), and seed."""

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

    name: str  # of its sub-command and of its rule, if it is not done within another one's
    module: str  # where its code begins
    record: str  # path of the JSON file that it writes last
    log: str = ""  # what its jobs say, without the folder and the ending; empty: its name
    place: tuple[str, ...] = ()  # what tells its jobs apart; without it the stage is one job
    modes: tuple[str, ...] = ()  # of the classifiers that it makes
    within: str = ""  # the stage whose jobs do it
    files: tuple[str, ...] = ()  # what it may write into the results folder
    only: Literal["", "embedded", "films", "images", "networks"] = ""  # the runs that have it, see `params.jobs`
    reads_source: bool = False
    on_gpu: bool = False  # where there is one
    with_gaps: bool = False  # made from finished jobs even if others failed
    final: bool = False  # only the crate follows
    does: str = field(kw_only=True)

    @property
    def examined(self) -> bool:
        """Whether the machine is examined before its jobs."""
        return (self.reads_source or self.on_gpu) and not self.within


_CLASSIFIER = "{runs}/{protocol}/classifiers/{task}/{mode}/{method}/seed-{seed}/record.json"
_CLASSIFIERS_LOG = "{protocol}/classify/{task}/{method}"
# fmt: off
_ROWS = (
    Stage("archive", "miram.phantom.archive", "{data}/archive.json", only="embedded",
          does="write the embedded archive: a phantom CBIS-DDSM, as DICOM (preset demo)"),
    Stage("catalogue", "miram.data.transfer.catalogue", "{data}/catalogue.json", only="films", reads_source=True,
          does="download the case lists; list the series that their lesions need"),
    Stage("crops", "miram.data.transfer.films", "{data}/crops.json", only="films", reads_source=True,
          does="per film: download, verify, cut the lesions; write lesions.csv and set_aside.csv"),
    Stage("images", "miram.data.own_images.stage", "{data}/crops.json", only="images", reads_source=True,
          does="read own images in place of crops (source images)"),  # so that what follows is the same
    Stage("pack", "miram.train.store", "{data}/pack.json", does="decode all crops into one file for training"),
    Stage("splits", "miram.data.splits", "{data}/splits/{protocol}.json", log="splits/{protocol}", place=("protocol",),
          does="divide the lesions into training, validation and test"),
    # records of results are kept elsewhere: results are in git, and would look up to date
    Stage("audit", "miram.data.audit", "{runs}/audit.json", files=("audit.md",), only="films", final=True,
          does="write what the splits share, and what was repaired, set aside or lies at a border"),
    Stage("pretrain", "miram.train.pretrain", "{runs}/{protocol}/pretrain/{method}/seed-{seed}/record.json",
          log="{protocol}/pretrain/{method}/seed-{seed}", place=("protocol", "method", "seed"), on_gpu=True,
          does="pre-train one method with one seed"),
    Stage("classify", "miram.train.classifiers", "{runs}/{protocol}/classifiers/{task}/{method}.json", _CLASSIFIERS_LOG,
          ("protocol", "task", "method"), on_gpu=True,
          does="fine-tune and probe one method with every seed, and predict validation and test"),
    Stage("finetune", "miram.train.finetune", _CLASSIFIER, _CLASSIFIERS_LOG, Cell._fields, ("finetune",), "classify",
          on_gpu=True, does="fine-tune one method with one seed"),
    Stage("probe", "miram.train.probe", _CLASSIFIER, _CLASSIFIERS_LOG, Cell._fields, ("linear", "knn"), "classify",
          on_gpu=True, does="classify the frozen features of one method"),
    Stage("trivial", "miram.train.trivial", "{runs}/{protocol}/classifiers/{task}/trivial/record.json",
          log="{protocol}/{task}/trivial", place=("protocol", "task"),
          does="classify by the size and by the grey values of the crops alone, and predict validation and test"),
    Stage("explain", "miram.train.explain", "{runs}/explain/record.json", only="networks", on_gpu=True,
          does="map the relevance of fine-tuned networks, and the features of pre-trained ones"),
    Stage("evaluate", "miram.evaluate.metrics", "{runs}/evaluate.json", with_gaps=True,
          files=("metrics.csv", "differences.csv", "variance.csv"), does="compute the metrics of all predictions"),
    Stage("cohort", "miram.evaluate.cohort", "{runs}/cohort.json", with_gaps=True, final=True,
          files=("cohort.csv", "subgroups.csv", "leak.csv", "cohort.md"),
          does="describe who is in the data, and measure the methods on groups of test lesions and on leaked ones"),
    Stage("claims", "miram.evaluate.claims", "{runs}/claims.json", only="films", with_gaps=True, final=True,
          files=("claims.csv", "claims.md"),
          does="test the paper's claims against the metrics, the differences and the bench"),
    Stage("efficiency", "miram.report.efficiency", "{runs}/efficiency.json", with_gaps=True, final=True,
          files=("efficiency.csv", "efficiency.md", "efficiency.png"),
          does="compare accuracy with memory and time, of pre-training and of the bench"),
    Stage("table", "miram.report.table", "{runs}/table.json", with_gaps=True, final=True,
          files=("comparison.csv", "comparison.md", "comparison.tex", "comparison.png", "set_aside.md", "summary.json",
                 "pretraining.csv"),  # and the reconstructions of each method
          does="write the comparison table and the figures"),
    Stage("report", "miram.report.report", "{runs}/report.json", files=("report.html", "checklist.md"), with_gaps=True,
          final=True, does="write the report, one HTML page that opens without a network, and a reporting checklist"),
    Stage("crate", "miram.provenance.crate", "{runs}/crate.json",
          files=("ro-crate-metadata.json", "Snakefile", "instances.csv"),
          does="describe the results folder as an RO-Crate: its files and their provenance"),
)
# fmt: on
STAGES = {row.name: row for row in _ROWS}  # in the order of work
