"""The data lock: the SHA-256 of every verified instance, so that others can compare theirs with it."""

from pathlib import Path

import pandas as pd

from miram.data.rows import first_few
from miram.data.transfer.receipt import Item
from miram.errors import MiramError
from miram.files import write_csv

COLUMNS = ["series_uid", "sop_uid", "bytes", "sha256"]
KEY = ["series_uid", "sop_uid"]


def write_lock(verified: dict[str, list[Item]], path: Path) -> None:
    """Write the instances of all series to `path`, sorted by series and instance."""
    rows = [(uid, item.sop_uid, item.bytes, item.sha256) for uid, items in verified.items() for item in items]
    table = pd.DataFrame(sorted(rows), columns=COLUMNS)
    write_csv(table, path)


def check_lock(own: Path, other: Path) -> int:
    """Compare two locks and return the number of common instances; raises MiramError naming the differences."""
    mine, theirs = (_numbered(read_lock(path)) for path in (own, other))
    both = mine.join(theirs, how="inner", lsuffix="_own", rsuffix="_other")
    changed = (both["sha256_own"] != both["sha256_other"]) | (both["bytes_own"] != both["bytes_other"])
    differences = {
        f"only in {own}": mine.index.difference(theirs.index),
        f"only in {other}": theirs.index.difference(mine.index),
        "with different SHA-256 or length": both.index[changed],
    }
    told = [f"{len(found)} instances {what}: {_named(found)}" for what, found in differences.items() if len(found)]
    if told:
        raise MiramError(
            f"{own} and {other} differ: {'; '.join(told)}",
            "Download these series again (remove their lines from the ledger), or report it.",
        )
    return len(both)


def _named(index: pd.Index) -> str:
    return ", ".join(first_few([f"{sop or 'no SOPInstanceUID'} of series {series}" for series, sop, _ in index]))


def read_lock(path: Path) -> pd.DataFrame:
    """The instances of a lock, with the columns COLUMNS as text. Raises MiramError if it is not a lock."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise MiramError(f"{path} cannot be read: {error}", "Name a file instances.csv of `miram crops`.") from error
    if list(table.columns) != COLUMNS:
        raise MiramError(f"{path} has the columns {list(table.columns)}", f"A lock has {COLUMNS}.")
    return table


def _numbered(lock: pd.DataFrame) -> pd.DataFrame:
    """A lock by its instances; those of one series without SOPInstanceUID are numbered."""
    return lock.assign(number=lock.groupby(KEY).cumcount()).set_index([*KEY, "number"])
