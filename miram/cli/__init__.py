"""The command line, one sub-command per stage: each reads params.yaml, does its work, and writes its record last."""

import argparse
import errno
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path

from miram import __version__, layout, params
from miram.cli import asking, checks, data, machine, results, sharing, training
from miram.data import recipes
from miram.errors import MiramError
from miram.stages import STAGES

COMMANDS = vars(data) | vars(training) | vars(results)  # a stage's function has its name
EXAMINED = [name for name, row in STAGES.items() if row.examined]
# errors of the machine, not of the code
REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}
Add = Callable[[str, Callable, str], argparse.ArgumentParser]  # name, what it runs, help


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns the exit code: 0, 1 for an error that the message explains, 2 for a wrong parameter.

    `compare` returns 1 for results that do not agree.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale that lacks a letter of a name is no error
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(params.load(arguments.params, arguments.preset), arguments) or 0
    except MiramError as error:
        print(f"miram {arguments.stage}: {error.message}\n{error.remedy}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"miram {arguments.stage}: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        print("Check its permissions and its disk, then run again; finished work is kept.", file=sys.stderr)
        return MiramError.exit_code
    except KeyboardInterrupt:
        print(f"miram {arguments.stage}: interrupted; run it again to continue.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="miram", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--params", type=Path, default=layout.default_params(), help="parameter file (default: %(default)s)"
    )
    parser.add_argument("--preset", choices=params.PRESETS, help="replaces the preset that the file names")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    def add(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        stage = stages.add_parser(name, help=text, description=text)
        stage.set_defaults(run=run, hidden=())
        return stage

    for row in (row for row in STAGES.values() if not row.within):
        own = add(row.name, COMMANDS[row.name], row.does)
        for name in row.place:  # params.yaml lists the values
            own.add_argument(f"--{name}", type=int if name == "seed" else str, required=True)
        if row.name == "crops":
            text = "print what would be done, as `data plan`, and change nothing"
            own.add_argument("--dry-run", action="store_true", help=text)
        if row.name == "images":
            text = "only report how the images and the table are read, and show some as the network sees them"
            own.add_argument("--check", action="store_true", help=text)
    _add_data(add)
    _add_training(add)
    _add_asking(add)
    _add_results(add)
    return parser


def _add_data(add: Add) -> None:
    """The commands about the data other than stages, and those that check this machine before a run."""
    serve = add("serve", data.serve_archive, "serve the embedded archive on loopback, like TCIA, until interrupted")
    serve.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    text = "check this machine against what the preset needs; the workflow runs it before its first job"
    ready = add("doctor", machine.doctor, text)
    ready.add_argument(
        "--stages",
        nargs="+",
        choices=EXAMINED,
        default=EXAMINED,
        metavar="STAGE",
        help="the stages to run, if not all of %(choices)s: what only others need is not checked",
    )
    ready.add_argument(
        "--elsewhere",
        action="store_true",
        help="on other machines, such as a cluster's: GPU and network are not checked",
    )
    about = add("data", lambda *_: None, "plan the transfer, or check the data against another copy")
    questions = about.add_subparsers(dest="question", required=True, metavar="QUESTION")
    text = "print series, bytes, disk at the peak and time; fail if the disk is too small; change nothing"
    questions.add_parser("plan", help=text, description=text).set_defaults(run=data.data_plan)
    text = "compare the SHA-256 of every verified instance with a list of them"
    check = questions.add_parser("check", help=text, description=text)
    check.set_defaults(run=data.data_check)
    check.add_argument("file", type=Path, help="an instances.csv, such as that of results/<preset>/")
    table = add("recipe", data.recipe, "print the table of a public data set, as downloaded, for `images` and `test`")
    table.add_argument("recipe", choices=recipes.DATA_SETS, metavar="SET", help="one of %(choices)s")
    table.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of the data set; the table's paths are relative to it"
    )
    table.add_argument("--task", choices=recipes.TASKS, default=recipes.TASKS[0], help="what the labels are")


def _add_training(add: Add) -> None:
    """The commands about the cost of the trainings."""
    size = add(
        "fit", machine.fit_memory, "predict the memory of pre-training, and the accumulation that keeps the batch"
    )
    size.add_argument("--vram", type=positive, required=True, metavar="GB", help="memory of one device, in 1e9 bytes")
    planned = add("plan", machine.plan_hours, "hours of all trainings from measured rates, compared with finished ones")
    planned.add_argument("--card", metavar="NAME", help="predict them for a GPU, such as rtx-3060-ti; all: for each")
    cost = add("bench", machine.measure, "measure time and memory of attention, steps and input on this machine")
    text = "only what decides on the device: agreement with the CPU, times, memory, hours; stop after so many minutes"
    cost.add_argument("--minutes", type=positive, metavar="M", help=text)
    cost.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: in bf16 (default: %(default)s)")
    cost.add_argument("--out", type=Path, default=layout.BENCH, help="folder (default: %(default)s)")


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:  # NaN neither
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number


def _add_asking(add: Add) -> None:
    """The commands that use a finished network, or export it."""
    what = f"apply a fine-tuned network to a picture, or all pictures of a folder; {asking.NO_DEVICE}"
    ask = add("predict", asking.predict, what)
    ask.add_argument("picture", type=Path, metavar="PICTURE|FOLDER", help="the crop of a lesion, a film, or a folder")
    ask.add_argument("--network", type=Path, metavar="FILE", help="a model.safetensors, instead of one of this run")
    ask.add_argument(
        "--box", type=int, nargs=3, metavar=("X0", "Y0", "SIDE"), help="square around the lesion in a film, px"
    )
    for name in asking.CHOICE:
        ask.add_argument(f"--{name}", help="default: the first of params.yaml; for methods the best on validation")
    ask.add_argument("--out", type=Path, help="default: prediction.png; for a folder predictions.csv")
    what = f"measure a fine-tuned network on the cases of a table, such as another laboratory's; {asking.NO_DEVICE}"
    tried = add("test", asking.test, what)
    tried.add_argument("--network", type=Path, required=True, metavar="FILE", help="a model.safetensors")
    tried.add_argument("--table", type=Path, required=True, metavar="CSV", help="of cases, like that of own images")
    tried.add_argument("--folder", type=Path, help="of the pictures (default: that of the table)")
    tried.add_argument("--out", type=Path, default=Path("tested"), help="folder (default: %(default)s)")
    share = add("weights", sharing.weights, "write a pre-trained encoder for timm and transformers, with a model card")
    share.add_argument("--method", required=True, help="one of params.yaml")
    share.add_argument("--protocol", help="default: the first of params.yaml")
    share.add_argument("--out", type=Path, default=Path("weights"), help="folder (default: %(default)s)")


def _add_results(add: Add) -> None:
    """The commands about the results other than stages."""
    add("so-far", results.so_far, "make table, claims and report of what has finished, at any time of a run")
    add("show", checks.show, "print the comparison table if it is up to date, else say what is missing")
    check = add("verify", checks.verify, "check a results folder against its records, name every mismatch")
    check.add_argument("folder", type=Path, nargs="?", help="default: the results of the parameters")
    check.add_argument("--films", action="store_true", help="also read every DICOM file that is kept")
    text = "compare two results folders: do their numbers agree, and what differs between the runs"
    weigh = add("compare", checks.compare, f"{text}; exit code 1 if they do not agree, or one was edited")
    weigh.add_argument("first", type=Path, nargs="?", metavar="A", help="default: the results of the parameters")
    weigh.add_argument("second", type=Path, nargs="?", metavar="B", help="another (default: A as git has it at HEAD)")
    weigh.add_argument("--brief", action="store_true", help="print only the outcome, in one line")
