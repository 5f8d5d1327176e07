"""The processes of a training, one per device: how they start, react to SIGTERM and report errors."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from torch.multiprocessing import (
    ProcessExitedException,
    ProcessRaisedException,
    SimpleQueue,
    active_children,
    get_context,
)

from miram.errors import MiramError
from miram.kinds import Precision
from miram.train.device import check_gpus

J = TypeVar("J")
STOPPED = 128 + signal.SIGTERM  # exit code after SIGTERM


def fabric_of(accelerator: str, devices: int, precision: Precision) -> Fabric:
    """One process per device: those of torchrun, or as many as must be started."""
    launched = torch.distributed.is_torchelastic_launched()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if launched else devices
    if accelerator == "cuda":
        check_gpus(here)
    one_a_process = partial(Fabric, accelerator=accelerator, devices=here, precision=precision)
    if launched:
        return one_a_process(num_nodes=int(os.environ["WORLD_SIZE"]) // here, strategy="ddp")
    started_here = LightningEnvironment()  # also in a Slurm job: its one task would be taken for one of several
    return one_a_process(strategy="auto" if here == 1 else "ddp_spawn", plugins=started_here)


def launch(fabric: Fabric, devices: int, work: Callable[[Fabric, J], dict[str, Any]], job: J) -> dict[str, Any]:
    """Run `work(fabric, job)` in every process and return the result of the first.

    Raises the MiramError of any of them, and SystemExit(STOPPED) if they end after SIGTERM.
    """
    faults = get_context("spawn").SimpleQueue()  # for the MiramError of a spawned process; raising it would give text
    starts_others = devices > 1 and not torch.distributed.is_torchelastic_launched()
    try:
        with _sigterm_passed_on() if starts_others else nullcontext():
            return fabric.launch(_reporting, faults, work, job)  # type: ignore[arg-type]  # it hands on what it does not type
    except (ProcessExitedException, ProcessRaisedException) as error:
        if not faults.empty():
            raise MiramError(*faults.get()) from error
        if isinstance(error, ProcessExitedException) and error.exit_code in (STOPPED, -signal.SIGTERM):
            raise SystemExit(STOPPED) from error
        raise


def _reporting(
    fabric: Fabric, faults: SimpleQueue, work: Callable[[Fabric, J], dict[str, Any]], job: J
) -> dict[str, Any]:
    """`work`, with the message and the remedy of a MiramError also put into `faults`."""
    try:
        return work(fabric, job)
    except MiramError as error:
        faults.put((error.message, error.remedy))
        raise


@contextmanager
def sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM has arrived; in the block SIGTERM has no other effect."""
    arrived: list[int] = []
    with _on_sigterm(lambda: arrived.append(signal.SIGTERM)):
        yield lambda: bool(arrived)


def _sigterm_passed_on() -> AbstractContextManager[None]:
    """Forward SIGTERM to the processes started by this one; before there are any, it ends this one."""

    def pass_on() -> None:
        if not active_children():
            raise SystemExit(STOPPED)
        for process in active_children():
            process.terminate()

    return _on_sigterm(pass_on)


@contextmanager
def _on_sigterm(action: Callable[[], None]) -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
