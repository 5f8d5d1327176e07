"""The log of a training, one row per epoch: a table for programs, and TensorBoard's scalars for people."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from miram.files import write_csv


@contextmanager
def journal(folder: Path) -> Iterator[Callable[[Sequence[Mapping[str, float]]], None]]:
    """Yield a function that takes all rows so far, each with its `epoch`, and updates the files.

    These are log.csv and, in tensorboard/, one scalar per other column. Each start opens a new event file with
    purge_step=0 and replays the rows of the checkpoint, so each epoch has exactly one point. Old files are kept because
    a running TensorBoard would otherwise not notice the new one.
    """
    with SummaryWriter(folder / "tensorboard", purge_step=0) as events:
        written = 0

        def write(rows: Sequence[Mapping[str, float]]) -> None:
            nonlocal written
            write_csv(pd.DataFrame(rows), folder / "log.csv")
            for row in rows[written:]:
                for name, value in row.items():
                    if name != "epoch":
                        events.add_scalar(name, value, row["epoch"])
            written = len(rows)
            events.flush()

        yield write
