"""The log of a training, a row an epoch: a table for reading by machine, and TensorBoard's scalars for watching."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from miram.files import atomic_path


@contextmanager
def journal(folder: Path) -> Iterator[Callable[[Sequence[Mapping[str, float]]], None]]:
    """Yield a function that takes all rows so far, each with its `epoch`, and brings the files up to date.

    Those are log.csv and, in tensorboard/, a scalar of each other column. Every training begins a file there that makes
    TensorBoard drop the earlier ones', and gets the rows that a checkpoint brought: whatever was interrupted where, an
    epoch has one point. The earlier files stay, as who watches them would not find the new one otherwise.
    """
    with SummaryWriter(folder / "tensorboard", purge_step=0) as events:
        written = 0

        def write(rows: Sequence[Mapping[str, float]]) -> None:
            nonlocal written
            with atomic_path(folder / "log.csv") as temporary:
                pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
            for row in rows[written:]:
                for name, value in row.items():
                    if name != "epoch":
                        events.add_scalar(name, value, row["epoch"])
            written = len(rows)
            events.flush()

        yield write
