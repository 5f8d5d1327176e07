"""Checkpoints: written atomically, loaded without running code from them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from miram.errors import MiramError
from miram.files import atomic_path


def save(path: Path, state: dict[str, Any]) -> None:
    """Replace `path` by `state` (tensors and plain values) in one step. Raises MiramError when it cannot be written."""
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's message for a full disk
            reason = str(error).splitlines()[0]
            raise MiramError(
                f"{path} cannot be written: {reason}", f"Free space on the disk of {path.parent}, then run again."
            ) from error


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote to `path`, on the CPU; its `fingerprint` says of what training.

    Raises MiramError naming the file if it is truncated, holds anything but tensors and plain values, or has no
    fingerprint.
    """
    remedy = f"Delete {path} and run again: training starts over."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MiramError(f"The checkpoint {path} is truncated or not a checkpoint ({reason}).", remedy) from error
    if not isinstance(state, dict) or "fingerprint" not in state:
        raise MiramError(f"{path} is not a checkpoint of this program: it has no fingerprint.", remedy)
    return state
