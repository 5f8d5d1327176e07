"""Atomic writing of files, digests, and locks."""

import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from miram.errors import MiramError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of Lustre, NFS, FUSE, as mounted


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path next to `final`; it replaces `final` if the block succeeds, and is removed otherwise.

    Raises MiramError when the folder cannot be written or the disk is full.
    """
    final = Path(final)
    temporary = final.with_name(f".{final.name}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, final)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, final, final.parent):
            raise  # the error concerns another file, which the block was reading
        raise MiramError(
            f"{final} cannot be written: {error.strerror or error}",
            f"Check the permissions of {final.parent} and the free space of its disk, then run again.",
        ) from error
    finally:
        with suppress(OSError):  # the block's error is the one to report
            temporary.unlink()


def write_csv(table: "pd.DataFrame", path: Path, *, index: bool = False, float_format: str | None = None) -> None:
    """Write a table as CSV by `atomic_path`; raises as it does."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=index, float_format=float_format, lineterminator="\n")


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_pixels(pixels: "np.ndarray") -> str:
    """Hexadecimal SHA-256 of an image's pixels, row by row, little-endian."""
    return hashlib.sha256(pixels.astype(pixels.dtype.newbyteorder("<"), order="C", copy=False).data).hexdigest()


@contextmanager
def sole_writer(folder: Path, stage: str) -> Iterator[None]:
    """Let only one process at a time run `stage` in `folder`; wait for an earlier one, and say so.

    A killed run can leave one of its stages running. The kernel releases the lock with its process, so no stale lock
    remains.
    """
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _take(opened.enter_context(open(folder / f".{stage}.lock", "ab+", buffering=0)), folder)
        except OSError as error:
            raise MiramError(
                f"{folder} cannot be written: {error.strerror or error}",
                "Check the permissions of the folder and the free space of its disk, then run again.",
            ) from error
        yield


def lock(stream: IO, folder: Path, busy: Callable[[], str]) -> None:
    """Lock an open file until it is closed; while another process holds it, print what `busy` returns and wait.

    On a file system without locks, print a warning and continue.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(busy(), file=sys.stderr, flush=True)
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"warning: the file system of {folder} has no locks ({error.strerror}), so a second run would not wait for "
            "this one. Start no other run in this folder before this one ends: they would overwrite each other.",
            file=sys.stderr,
            flush=True,
        )


def _take(stream: BinaryIO, folder: Path) -> None:
    """Wait for the process whose number is in the locked file, then write our own."""

    def busy() -> str:
        stream.seek(0)
        return f"waiting for process {stream.read().decode()}, which still works in {folder}"

    lock(stream, folder, busy)
    stream.truncate(0)
    stream.write(str(os.getpid()).encode())


def files_below(folder: Path | str) -> list[Path]:
    """All files in a folder and its subfolders, by name; hidden files do not count.

    Links are followed, but each folder is entered once, by the first of its paths.
    """
    found, entered = list[Path](), set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
        else:
            entered.add(real)
            found += [Path(place, name) for name in names]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
