"""What a report is made from: every file that is there and sound, and by name every one that is not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from miram.errors import MiramError
from miram.evaluate.predictions import answers_of
from miram.evaluate.scores import Answers
from miram.layout import PREDICTIONS, Cell
from miram.predictions import TEST, read_predictions
from miram.provenance import record
from miram.report.table_text import NOT_RUN

TEXT = {"lesion_id": str, "label": str}  # columns whose values may look like numbers: a label may be 0


class Run(NamedTuple):
    """The test lesions of one network, with its answers."""

    lesions: pd.DataFrame  # lesion_id, patient_id, label, …
    answers: Answers


@dataclass
class Study:
    """What was read; `gaps` grows with each file that was asked for and is missing or damaged.

    `logs`: of records that are missing, what the job said that should have written them.
    """

    logs: Mapping[Path, Path]
    gaps: list[str] = field(default_factory=list)

    def table(self, path: Path) -> pd.DataFrame | None:
        """A CSV, in which only an empty field is no value; None where there is none, or nothing in it."""
        try:
            return pd.read_csv(path, dtype=TEXT, keep_default_na=False, na_values=[""])
        except FileNotFoundError:
            self.gaps.append(f"{path} is missing")
        except (ValueError, OSError) as error:  # pandas: empty, or not a table
            self.gaps.append(f"{path} cannot be read: {error}")
        return None

    def text(self, path: Path) -> str | None:
        """A text; None where there is none."""
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            self.gaps.append(f"{path} is missing")
        return None

    def arrays(self, path: Path) -> dict[str, np.ndarray] | None:
        """The arrays of an .npz; None where there is none."""
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            self.gaps.append(f"{path} is missing")
        except Exception as error:  # zip, pickle and header faults are of many kinds
            self.gaps.append(f"{path} cannot be read: {error}")
        return None

    def record(self, path: Path, what: str) -> dict[str, Any] | None:
        """The record at `path` if the files that it names are the ones that it describes; None otherwise."""
        if not path.exists() and path not in self.logs:
            self.gaps.append(f"{what}: {NOT_RUN}, {path} is missing")
            return None
        try:
            return record.read(path)
        except MiramError as error:
            self.gaps.append(f"{what}: {error.message}" + (f" See {self.logs[path]}" if path in self.logs else ""))
        return None

    def records(self, paths: Mapping[Any, Path], what: str) -> dict[Any, dict[str, Any]]:
        """Those of `paths` that can be read, by their keys."""
        found = {key: self.record(path, f"{what} {key}") for key, path in paths.items()}
        return {key: value for key, value in found.items() if value is not None}

    def run(self, cell: Cell, folder: Path) -> Run | None:
        """The test predictions of one network; None where there are none."""
        try:
            test = read_predictions(folder / PREDICTIONS, cell).of(TEST)
        except MiramError as error:
            self.gaps.append(error.message)
            return None
        return Run(test.table, answers_of(test))
