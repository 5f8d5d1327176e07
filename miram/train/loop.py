"""The loop of pre-training for all objectives; interruptions do not change the final weights.

No random state outlives an optimiser step: a sample's view and masking noise come from (seed, epoch, sample), and
torch's generator is seeded from (seed, step). So the state of training is weights, optimiser and the number of steps.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from miram.errors import MiramError
from miram.models.build import build_pretrainer
from miram.progress import track
from miram.recipe import Recipe
from miram.train import checkpoint
from miram.train.augment import stream, to_images
from miram.train.device import device_facts, peak_memory, prepare_compiler
from miram.train.processes import STOPPED
from miram.train.reconstruct import masked_inputs
from miram.train.schedule import half_cosine, warmup_cosine

COLLAPSED_BELOW = 0.01  # feature_std of MoCo-v3: 1 if features fill the sphere, 0 if all images get the same


class Run:
    """The state of pre-training: model, optimiser, number of optimiser steps done, and the log."""

    def __init__(self, fabric: Fabric, recipe: Recipe, steps_per_epoch: int, out_dir: Path, identity: str) -> None:
        """`identity`: the `fingerprint` of the checkpoints that this run goes on from."""
        self.fabric, self.recipe, self.steps_per_epoch, self.out_dir = fabric, recipe, steps_per_epoch, out_dir
        self.fingerprint = identity
        steps = recipe.epochs * steps_per_epoch
        self.lr = warmup_cosine(recipe.lr, steps, recipe.warmup_epochs * steps_per_epoch)
        self.key_momentum = half_cosine(recipe.moco.momentum, 1.0, steps) if recipe.moco else None
        torch.manual_seed(recipe.seed)
        self.module = build_pretrainer(recipe)
        if fabric.device.type == "cuda" and fabric.world_size > 1:
            self.module = nn.SyncBatchNorm.convert_sync_batchnorm(self.module)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.module, recipe.weight_decay),
            betas=(recipe.beta1, recipe.beta2),
            fused=recipe.precision != "16-mixed",  # the fused form leaves no place to read the unscaled gradients
        )
        self.model, self.stepper = fabric.setup(self.module, self.optimizer)
        if recipe.compile:
            prepare_compiler()
            torch.set_float32_matmul_precision("highest")  # see `full_float32`
            self.module.compile()  # in place: the names of its state stay as they are
        self.step, self.seconds, self.peak_memory = 0, 0.0, 0
        self.step_log: list[dict[str, Any]] = []  # of the epoch under way; see `_read_steps`
        self.log: list[dict[str, float]] = []  # of the epochs done
        if self.checkpoint_path.exists():
            self._resume()

    @property
    def checkpoint_path(self) -> Path:
        """The file from which training resumes."""
        return self.out_dir / "checkpoint.pt"

    def train(
        self,
        batches: Iterator[list[Tensor]],
        checkpoint_every_epochs: int,
        stopped: Callable[[], bool],
        write_log: Callable[[list[dict[str, float]]], None],
    ) -> None:
        """Take the remaining steps; with checkpoints at intervals, at the end, and when `stopped()` becomes true."""
        self.model.train()
        if self.log:  # of a checkpoint
            write_log(self.log)
        epochs: Iterable[int] = range(self.step // self.steps_per_epoch, self.recipe.epochs)
        if self.fabric.is_global_zero:
            epochs = track(epochs, f"pre-training {self.recipe.name}", note=self._speed)
        for epoch in epochs:
            while self.step < (epoch + 1) * self.steps_per_epoch:
                start = time.perf_counter()
                self.step_log.append(self._optimise(batches))
                self.step += 1
                stop = self._in_any_process(stopped())
                if stop or self.step % self.steps_per_epoch == 0:
                    self._read_steps(epoch)
                self.step_log[-1]["seconds"] = time.perf_counter() - start
                if self.step % self.steps_per_epoch == 0:
                    self._end_epoch(epoch)
                    write_log(self.log)
                if stop:
                    self._save()
                    self._say(f"stopped by SIGTERM; run again to resume from {self.checkpoint_path}")
                    self.fabric.barrier()  # the first to leave makes its launcher end the others
                    raise SystemExit(STOPPED)
            if (epoch + 1) % checkpoint_every_epochs == 0 or epoch + 1 == self.recipe.epochs:
                self._save()

    def facts(self) -> dict[str, Any]:
        """The facts for the run's record."""
        return {
            "parameters": sum(p.numel() for p in self.module.parameters() if p.requires_grad),
            "epochs": self.recipe.epochs,
            "steps": self.step,
            "accumulate": self.recipe.accumulate,
            "loss": self.log[-1]["loss"],
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory,
            "peak_memory_kind": peak_memory(self.fabric.device)[1],
            **device_facts(self.fabric),
            "devices": self.fabric.world_size,
        }

    def _optimise(self, batches: Iterator[list[Tensor]]) -> dict[str, Any]:
        """One optimiser step: its loss and gradient norm, and the features' spread if the objective has one.

        They are tensors, which the device may still have to compute.
        """
        recipe, lr = self.recipe, float(self.lr[self.step])
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(int(stream("step", recipe.seed, self.step).integers(2**63)))
        total = torch.zeros((), device=self.fabric.device)
        for micro in range(recipe.micro_batches):
            batch = [tensor.to(self.fabric.device, non_blocking=True) for tensor in next(batches)]
            with self.fabric.no_backward_sync(self.model, enabled=micro < recipe.micro_batches - 1):
                loss, feature_std = self._forward(batch)
                self.fabric.backward(loss / recipe.micro_batches)
            total += loss.detach() / recipe.micro_batches
        self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        grad_norm = nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
        self.stepper.step()
        self.optimizer.zero_grad()
        values = {"loss": self._mean(total), "lr": lr, "grad_norm": grad_norm}
        return values if feature_std is None else {**values, "feature_std": feature_std}

    def _read_steps(self, epoch: int) -> None:
        """Make numbers of the tensors in `step_log`, in one transfer, for which the device is waited for.

        Raises MiramError for the first step that diverged; nothing is saved before.
        """
        unread = [values for values in self.step_log if isinstance(values["loss"], Tensor)]
        names = [name for name, value in unread[-1].items() if isinstance(value, Tensor)]
        read = torch.stack([torch.stack([values[name].float() for name in names]) for values in unread]).tolist()
        scaled = self.recipe.precision == "16-mixed"  # there a step with infinite gradients is skipped
        for number, (values, own) in enumerate(zip(unread, read, strict=True), start=self.step - len(unread) + 1):
            values |= dict(zip(names, own, strict=True))
            if not math.isfinite(values["loss"]) or not (scaled or math.isfinite(values["grad_norm"])):
                raise MiramError(
                    f"Pre-training {self.recipe.name} diverged in epoch {epoch + 1}, step {number}: "
                    f"loss {values['loss']}, gradient norm {values['grad_norm']}, learning rate {values['lr']:.3g}.",
                    f"Lower lr_per_256, raise warmup_epochs or use precision 32-true; {self._kept()}.",
                )

    def _forward(self, batch: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Loss of a micro-batch, and the features' spread."""
        if self.recipe.masked:
            crops, noise = batch
            return self.model(*masked_inputs(crops, noise, self.recipe)).loss, None
        views = [to_images(view, self.recipe.encoder.channels) for view in batch]
        assert self.key_momentum is not None
        output = self.model(*views, float(self.key_momentum[self.step]))
        return output.loss, output.feature_std

    def _end_epoch(self, epoch: int) -> None:
        last, seconds = self.step_log[-1], sum(values["seconds"] for values in self.step_log)
        means = {name: math.fsum(values[name] for values in self.step_log) / len(self.step_log) for name in last}
        del means["seconds"]
        speed = self.recipe.batch * len(self.step_log) / seconds
        row = {"epoch": epoch + 1, **means, "lr": last["lr"], "images_per_second": speed}
        self.log.append(row)
        self.seconds += seconds
        self.step_log = []
        if row.get("feature_std", 1.0) < COLLAPSED_BELOW:
            spread = row["feature_std"]
            self._say(f"epoch {epoch + 1}: feature_std {spread:.2g}, the features have collapsed; lower lr_per_256")

    def _in_any_process(self, true_here: bool) -> bool:
        if self.fabric.world_size == 1:
            return true_here
        return bool(self._mean(torch.tensor(float(true_here), device=self.fabric.device)) > 0)

    def _mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return cast(Tensor, self.fabric.all_reduce(value))

    def _save(self) -> None:
        self.peak_memory = max(self.peak_memory, peak_memory(self.fabric.device)[0])
        if self.fabric.is_global_zero:
            state = {
                "fingerprint": self.fingerprint,
                "step": self.step,
                "model": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "step_log": self.step_log,
                "log": self.log,
                "seconds": self.seconds,
                "peak_memory": self.peak_memory,
            }
            checkpoint.save(self.checkpoint_path, state)

    def _resume(self) -> None:
        state = checkpoint.load(self.checkpoint_path)
        if state["fingerprint"] != self.fingerprint:
            self._say(
                f"{self.checkpoint_path} belongs to other parameters, crops, code or device: pre-training starts over"
            )
            return
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.step_log, self.log = state["step"], state["step_log"], state["log"]
        self.seconds, self.peak_memory = state["seconds"], state["peak_memory"]
        self._say(f"pre-training {self.recipe.name} resumes after step {self.step} of {len(self.lr)}")

    def _speed(self) -> str:
        return f"{self.log[-1]['images_per_second']:.0f} images/s" if self.log else ""

    def _kept(self) -> str:
        if not self.checkpoint_path.exists():
            return "there is no checkpoint yet"
        return f"the last good state is kept in {self.checkpoint_path}"

    def _say(self, line: str) -> None:
        if self.fabric.is_global_zero:
            print(line, file=sys.stderr, flush=True)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trained parameters in two groups: matrices with weight decay; biases and norms, of one dimension, without."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
