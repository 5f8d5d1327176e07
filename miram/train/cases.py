"""Apply a finished network to external cases: its prediction for each lesion of a table.

Shapes: N lesions, C classes; views (N, side, side) uint8.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from miram.data.cutting import reduced
from miram.data.own_images.cut import located
from miram.data.own_images.table import Lesion, read_table
from miram.data.pictures.survey import summary, survey
from miram.data.tasks import JOINT, targets
from miram.errors import MiramError
from miram.files import write_csv
from miram.kinds import AskedPrecision
from miram.models.export import Network, load_classifier
from miram.predictions import COLUMNS, PROBABILITY, TEST
from miram.progress import track
from miram.train.answers import evaluated, probabilities
from miram.train.augment import resize
from miram.train.classifiers import Split, predictions
from miram.train.device import one_device
from miram.train.seen import Seen


class Case(NamedTuple):
    """A lesion of a table, the folder of its picture, and the table's further columns."""

    lesion: Lesion
    folder: Path
    groups: dict[str, str]  # the table's further columns


class Answered(NamedTuple):
    """The result for the cases."""

    table: pd.DataFrame  # lesion_id, patient_id, split, label, prob_<CLASS>, image, and the groups
    groups: list[str]  # columns of the table
    aside: dict[str, str]  # lesion -> why it could not be used
    network: Network
    seen: Seen


def read_cases(table_csv: Path, folder: Path) -> tuple[list[Case], int]:
    """The cases of a table of own images, and how many are left out because they are for training.

    In a table with a column split only the part "test" counts. Raises MiramError as `read_table`, and if none is left.
    """
    table = read_table(table_csv, folder)
    taken = [name for name in table.unread if name in COLUMNS or name.startswith(PROBABILITY)]
    if taken:
        raise MiramError(f"{table_csv}: the predictions have a column {taken[0]} of their own.", "Rename the table's.")
    cases = [Case(lesion, folder, own) for lesion, own in zip(table.lesions, table.further, strict=True)]
    tested = [case for case in cases if case.lesion.part in ("", TEST)]
    if not tested:
        raise MiramError(f"{table_csv} has no image of the split {TEST}.", "Correct or remove its column split.")
    return tested, len(cases) - len(tested)


def answer_cases(
    network_file: Path,
    cases: Sequence[Case],
    predictions_csv: Path,
    *,
    accelerator: str,
    precision: AskedPrecision,
    threads: int,
) -> Answered:
    """Apply a network to the cases, and write its predictions.

    Pictures are read and cut like those that the network was trained on, see `Seen`; for kinds of files that were not
    among these, the range is that of the cases. Raises MiramError for a label that the network does not have, and if no
    picture can be used.
    """
    fabric = one_device(accelerator, precision, threads)
    network = load_classifier(network_file)
    seen = Seen.of(network, network_file)
    _check_labels(cases, network)
    views, aside, seen = _views(cases, seen, network.model.encoder.side)
    answered = [case for case in cases if case.lesion.lesion_id in views]
    if not answered:
        name, reason = next(iter(aside.items()))
        raise MiramError(f"None of the {len(cases)} cases can be used; {name}: {reason}", "Correct the first one.")
    known = [(own.lesion_id, own.patient, TEST, own.label) for own, _, _ in answered]
    lesions = pd.DataFrame(known, columns=COLUMNS)
    stacked = np.stack([views[name] for name in lesions["lesion_id"]])
    split = Split(lesions, stacked, targets(lesions["label"], network.classes))
    logits = evaluated(fabric.setup_module(network.model), split)
    table = predictions(split, probabilities(logits, network.multi_label), network.classes)
    groups = pd.DataFrame([case.groups for case in answered])
    table = pd.concat([table.assign(image=[case.lesion.image for case in answered]), groups], axis=1)
    write_csv(table, predictions_csv)
    return Answered(table, [str(name) for name in groups], aside, network, seen)


def _check_labels(cases: Sequence[Case], network: Network) -> None:
    """Raise MiramError naming the labels that the network does not have."""
    unknown = Counter(
        own.label
        for own, _, _ in cases
        if not set(own.label.split(JOINT) if network.multi_label else [own.label]) <= set(network.classes)
    )
    if unknown:
        named = ", ".join(f"{label!r} ({count})" for label, count in sorted(unknown.items()))
        raise MiramError(
            f"The network does not have the label {named}; it has {', '.join(network.classes)}.",
            "Use these words in the column label, or remove those rows.",
        )


def _views(cases: Sequence[Case], seen: Seen, side: int) -> tuple[dict[str, np.ndarray], dict[str, str], Seen]:
    """The view of each lesion, why others have none, and `seen` with the ranges of all kinds of files."""
    of_picture: dict[Path, list[Case]] = defaultdict(list)
    for case in cases:
        of_picture[case.folder / case.lesion.image].append(case)
    paths = {str(path): path for path in of_picture}
    found = survey(paths, seen.levels, partial(track, description="pictures, looked at", total=len(paths)))
    print(summary(found, seen.levels), flush=True)
    seen = replace(seen, ranges={**found.ranges, **(seen.ranges or {})})
    views, aside = {}, {}
    for path, own in track(of_picture.items(), "pictures, cut"):
        if str(path) in found.aside:
            aside.update({case.lesion.lesion_id: found.aside[str(path)] for case in own})
            continue
        pixels = reduced(seen.reading.read(path)[0], 8)
        for lesion, folder, _ in own:
            try:
                box = None if lesion.is_whole else located(lesion, pixels.shape, folder, seen.component)[0]
                views[lesion.lesion_id] = resize(seen.cut(pixels, box, path), side)
            except MiramError as error:
                aside[lesion.lesion_id] = error.message
    return views, aside, seen
