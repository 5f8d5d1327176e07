"""Fine-tuning: a classifier on a pre-trained (or fresh) encoder, its best epoch selected only on validation.

A kill or SIGTERM changes no result: the next start of the same training goes on from its checkpoint.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from miram.data.tasks import MULTI_LABEL
from miram.files import sha256_file
from miram.layout import FINETUNE
from miram.models.export import save_classifier
from miram.provenance.record import code_digest
from miram.recipe import Tuning
from miram.train import checkpoint
from miram.train.answers import evaluated, probabilities
from miram.train.classifiers import (
    Lesions,
    best,
    common_facts,
    predictions,
    question_of,
    write_outcome,
)
from miram.train.device import out_of_memory_as, usable_accelerator
from miram.train.processes import STOPPED, sigterm_noted
from miram.train.seen import Seen
from miram.train.trial import Trial

SECONDS_BETWEEN_SAVES = 30.0  # at least; what a kill may cost, beside the epoch under way


def finetune(
    out_dir: Path, lesions: Lesions, encoder_file: Path | None, tuning: Tuning, *, seen: Seen
) -> dict[str, object]:
    """Fine-tune the encoder of `encoder_file`, or a fresh one (None), to a task.

    Each learning rate of `tuning` is tried alike, and the one with the best epoch is kept: that with the best macro AUC
    on validation (ties by accuracy). Writes into `out_dir` log.csv and, for that epoch, predictions.parquet for
    validation and test and, with `keep_network`, model.safetensors; test lesions are answered only after that
    selection. `seen` describes how pictures were read and cut, see `Seen`; it is stored with the network.
    Adam with coupled weight decay, as in the public code, whose "within-batch sample weights" multiply by one and are
    left out. Returns facts for the record. Raises MiramError for errors that the user can correct, SystemExit(143)
    after SIGTERM.
    """
    out_dir, start = Path(out_dir), time.perf_counter()
    trials = Trials(out_dir / "checkpoint.pt", lesions, encoder_file, tuning)
    with out_of_memory_as(
        f"fine-tuning at side {tuning.side}, batch {tuning.batch}",
        f"Lower finetune.batch; if the machine's own memory is short, lower threads (now {tuning.threads}).",
    ):
        trial, log = trials.best()
    model, module, labelled = trial.model, trial.module, lesions.labelled
    splits, multi_label = (lesions.validation, lesions.test), tuning.task in MULTI_LABEL
    answers = [(split, probabilities(evaluated(model, split), multi_label)) for split in splits]
    tables = [predictions(split, answer, labelled.classes) for split, answer in answers]
    network_file = out_dir / "model.safetensors"
    if tuning.keep_network:
        save_classifier(
            {name: value.cpu() for name, value in module.state_dict().items()},
            network_file,
            encoder=module.encoder.architecture,
            pool=tuning.pool,
            classes=labelled.classes,
            multi_label=multi_label,
            seen=seen.told(),
        )
    else:
        network_file.unlink(missing_ok=True)  # of an earlier run with `keep_network`
    write_outcome(out_dir, question_of(labelled, tuning, FINETUNE), tables, log)
    trials.checkpoint_path.unlink(missing_ok=True)
    chosen, parameters = best(log), sum(parameter.numel() for parameter in module.parameters())
    told: dict[str, object] = {"parameters": parameters, "epochs": tuning.epochs, "best_epoch": chosen["epoch"]}
    told |= {"lr": best(trials.tried)["lr"], "tried": trials.tried}
    return told | common_facts(lesions, chosen, start - trials.seconds, trial.fabric)


class Trials:
    """The learning rates of a fine-tuning: those tried, and the best epoch of all, kept over the end of a process."""

    def __init__(self, checkpoint_path: Path, lesions: Lesions, encoder_file: Path | None, tuning: Tuning) -> None:
        self.checkpoint_path, self.lesions, self.tuning = checkpoint_path, lesions, tuning
        self.encoder_file = encoder_file
        self.tried: list[dict[str, float]] = []  # the best row of each learning rate
        self.kept: dict[str, Any] = {}  # of the best of them: weights and log
        self.seconds = 0.0  # of earlier processes
        self.begun = self.saved = time.perf_counter()

    @cached_property
    def fingerprint(self) -> str:
        """What decides the fine-tuning, as text: a checkpoint of the same one is resumed."""
        made_by = {
            "lesions": self.lesions.digest,
            "encoder_file": self.encoder_file and sha256_file(self.encoder_file),
            "code": code_digest("finetune"),
            "torch": torch.__version__,
            "used": usable_accelerator(self.tuning.accelerator),
        }
        return json.dumps({**asdict(self.tuning), **made_by}, sort_keys=True)

    def best(self) -> tuple[Trial, list[dict[str, float]]]:
        """Try the remaining learning rates; returns a trial with the weights of the best, and the log of that."""
        state = self._resumed()
        with sigterm_noted() as stopped:
            for lr in self.tuning.lr[len(self.tried) :]:
                trial = Trial(self.lesions, self.tuning, lr, self.encoder_file, state)
                trial.train(partial(self._after_step, trial, stopped))
                state = None
                self.tried.append({**best(trial.log), "lr": lr})
                if best(self.tried) is self.tried[-1]:
                    self.kept = {"model": trial.best_state, "log": trial.log}
        trial.module.load_state_dict(self.kept["model"])
        return trial, self.kept["log"]

    def _after_step(self, trial: Trial, stopped: Callable[[], bool]) -> None:
        """Save now and then at the end of an epoch, and when the process is to end."""
        now, stop = time.perf_counter(), stopped()
        if stop or (trial.at_epoch_end and now - self.saved >= SECONDS_BETWEEN_SAVES):
            seconds, self.saved = self.seconds + now - self.begun, now
            state = {"fingerprint": self.fingerprint, "tried": self.tried, "kept": self.kept, "trial": trial.state()}
            checkpoint.save(self.checkpoint_path, {**state, "seconds": seconds})
        if stop:
            print(f"stopped by SIGTERM; run again to resume from {self.checkpoint_path}", file=sys.stderr, flush=True)
            raise SystemExit(STOPPED)

    def _resumed(self) -> dict[str, Any] | None:
        """The state of the trial that an earlier process left, if its checkpoint is of the same training."""
        if not self.checkpoint_path.exists():
            return None
        state = checkpoint.load(self.checkpoint_path)
        if state["fingerprint"] != self.fingerprint:
            said = "belongs to other parameters, lesions, code or device: fine-tuning starts over"
            print(f"{self.checkpoint_path} {said}", file=sys.stderr, flush=True)
            return None
        self.tried, self.kept, self.seconds = state["tried"], state["kept"], state["seconds"]
        print(f"fine-tuning resumes after step {state['trial']['step']}", file=sys.stderr, flush=True)
        return state["trial"]
