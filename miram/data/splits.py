"""Who trains, who validates, who tests: one seeded pure function for each protocol.

"published" is the authors' split with its known leaks: views of one patient, and patients of the official test set,
occur on both sides. "strict" closes them.
"""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from miram.data.tasks import JOINT, MULTI_LABEL, OWN, classes, labels, strata
from miram.errors import MiramError
from miram.files import write_csv

COLUMNS = ["lesion_id", "patient_id", "split", "reason"]
SPLITS = ("train", "validation", "test", "excluded")
Choose = Callable[[pd.DataFrame, float, int], pd.Index]  # lesions, fraction, seed -> the rows to set apart
SEEN = ("train", "validation")  # by pre-training
PRETRAIN = "pretrain"  # own images without a label: only for pre-training
PICTURED = 4  # validation lesions in a reconstruction figure


def write_splits(lesions_csv: Path, splits_csv: Path, **values: Any) -> dict[str, dict[str, int]]:
    """Split the lesions of `lesions_csv` into `splits_csv`, see `divide`; returns the counts."""
    splits, counts = divide(pd.read_csv(lesions_csv, dtype=str, keep_default_na=False), **values)
    write_csv(splits, splits_csv)
    return counts


def divide(
    lesions: pd.DataFrame,
    *,
    protocol: str,
    validation_fraction: float,
    test_fraction: float,
    candidates: int,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """The division of a table of lesions, columns COLUMNS, and how many of each class each split holds.

    Raises MiramError if they cannot be divided such that training, model selection and testing are possible.
    """
    drawing = {"candidates": candidates, "seed": seed}
    lesions = with_test_set(lesions, test_fraction=test_fraction, **drawing)
    splits = split_lesions(lesions, protocol=protocol, validation_fraction=validation_fraction, **drawing)
    joined = lesions.merge(splits, on="lesion_id")
    classes = strata(joined)
    parts = [*SPLITS, *([PRETRAIN] if (joined["split"] == PRETRAIN).any() else [])]
    found = {split: classes[joined["split"] == split].value_counts().sort_index() for split in parts}
    counts = {split: {str(name) or "no label": count for name, count in own.items()} for split, own in found.items()}
    _require_usable(counts, protocol, own_images=OWN in lesions)
    return splits, counts


def _require_usable(counts: dict[str, dict[str, int]], protocol: str, own_images: bool) -> None:
    """Raise MiramError for splits that later stages cannot use; otherwise they would fail only after all training."""
    if not counts["test"]:
        raise MiramError(
            f"Protocol {protocol}: no lesion is in the test set.",
            "In the table's column split, mark the images of some patients `test`; without it a test set is drawn."
            if own_images
            else "Add films of the official test set to the source.",
        )
    for split in SEEN:
        if len(counts[split]) == 1:
            raise MiramError(
                f"Protocol {protocol}: all {split} lesions are {next(iter(counts[split]))}: a second class is missing.",
                "Change splits.validation_fraction or splits.seed, or add patients of other classes.",
            )


def training_labels(lesions_csv: Path, splits_csv: Path, task: str) -> tuple[list[str], tuple[str, ...], str | None]:
    """The labels of the training lesions that have one, the classes, and what joins several in a label, if they may."""
    lesions = pd.read_csv(lesions_csv, dtype=str, keep_default_na=False)
    splits = pd.read_csv(splits_csv, dtype=str).query("split == 'train'")
    found = labels(lesions[lesions["lesion_id"].isin(splits["lesion_id"])], task)
    return found[found != ""].tolist(), classes(task, lesions), JOINT if task in MULTI_LABEL else None


def pretraining_lesions(splits_csv: Path) -> tuple[list[str], list[str]]:
    """The lesions that pre-training sees, and the validation lesions in its figure.

    It sees those of training, those of validation, and those that are only for it.
    """
    splits = pd.read_csv(splits_csv, dtype=str)
    seen = splits.loc[splits["split"].isin((*SEEN, PRETRAIN)), "lesion_id"].tolist()
    validation = splits.loc[splits["split"] == "validation", "lesion_id"].tolist()
    return seen, validation[:: max(1, len(validation) // PICTURED)][:PICTURED]


def pretraining_backgrounds(lesions_csv: Path, splits_csv: Path, backgrounds_csv: Path) -> list[str]:
    """The background patches that pre-training sees: those of films with a lesion that it sees.

    So under "strict" they show no test patient. Those of a film that is also in the test set are never among them.
    """
    columns = ["lesion_id", "film_uid", "film_sha256"]
    lesions = pd.read_csv(lesions_csv, usecols=columns, dtype=str, keep_default_na=False)
    split = lesions["lesion_id"].map(pd.read_csv(splits_csv, dtype=str).set_index("lesion_id")["split"])
    films = _films(lesions)
    seen = lesions.loc[split.isin(SEEN) & ~films.isin(films[split == "test"]), "film_uid"]
    backgrounds = pd.read_csv(backgrounds_csv, dtype=str)
    return backgrounds.loc[backgrounds["film_uid"].isin(seen), "background_id"].tolist()


def split_lesions(
    lesions: pd.DataFrame, *, protocol: str, validation_fraction: float, candidates: int, seed: int
) -> pd.DataFrame:
    """Assign each row of a table of lesions to train, validation, test or excluded (with a reason), by lesion_id.

    Lesions only for pre-training stay so or, under every protocol, are excluded if they share a patient or film with
    the test set.

    Reads the columns lesion_id, patient_id, official_split, abnormality, pathology, film_uid and film_sha256; the
    order of the rows does not matter. `validation_fraction`: share of the training lesions; `candidates`: random
    divisions by patient, of which the best stratified one is used. Raises MiramError when they cannot be divided.
    """
    lesions = lesions.sort_values("lesion_id", ignore_index=True)
    split = lesions["official_split"].copy()
    reason = _why_excluded(lesions, ("train", PRETRAIN) if protocol == "strict" else (PRETRAIN,))
    split[reason != ""] = "excluded"
    training = lesions[split == "train"]
    ways: dict[str, Choose] = {"strict": partial(_grouped, candidates), "published": _image_validation}
    split[_drawn(ways[protocol], training, "validation_fraction", validation_fraction, seed)] = "validation"
    return lesions.assign(split=split, reason=reason)[COLUMNS]


def with_test_set(lesions: pd.DataFrame, *, test_fraction: float, candidates: int, seed: int) -> pd.DataFrame:
    """The lesions; where no official_split is given, with one drawn by patient, the same for every protocol.

    Raises MiramError when they cannot be divided.
    """
    open_ones = lesions["official_split"] == ""
    if not open_ones.any():
        return lesions
    lesions = lesions.assign(official_split=lesions["official_split"].mask(open_ones, "train"))
    lesions = lesions.sort_values("lesion_id", ignore_index=True)
    training = lesions[lesions["official_split"] == "train"]
    test = _drawn(partial(_grouped, candidates), training, "test_fraction", test_fraction, seed)
    lesions.loc[test, "official_split"] = "test"
    return lesions


def _drawn(choose: Choose, lesions: pd.DataFrame, name: str, fraction: float, seed: int) -> pd.Index:
    try:
        return choose(lesions, fraction, seed)
    except ValueError as error:  # scikit-learn: too few of a class, or of patients
        raise MiramError(
            f"{len(lesions)} training lesions of {lesions['patient_id'].nunique()} patients cannot be divided for "
            f"{name} = {fraction}: {error}",
            f"Change splits.{name}, or use an archive with more patients.",
        ) from error


def _why_excluded(lesions: pd.DataFrame, parts: Collection[str]) -> pd.Series:
    """Why training may not see a row of these official parts, per row; mostly empty."""
    reason = pd.Series("", index=lesions.index)
    test = lesions[lesions["official_split"] == "test"]
    train = lesions["official_split"].isin(parts)
    films = train & _films(lesions).isin(_films(test))
    reason[films] = "film " + lesions["film_uid"][films] + " has the pixels of a film of the test set"
    patients = train & lesions["patient_id"].isin(test["patient_id"])
    reason[patients] = "patient " + lesions["patient_id"][patients] + " is also in the test set"
    return reason


def _grouped(candidates: int, training: pd.DataFrame, fraction: float, seed: int) -> pd.Index:
    """Rows to set apart such that no patient and no film is on both sides, with about `fraction` of each class."""
    from sklearn.model_selection import GroupShuffleSplit  # slow to import; most who come here read splits

    classes = pd.get_dummies(strata(training)).to_numpy(float)
    splitter = GroupShuffleSplit(candidates, test_size=fraction, random_state=seed)
    drawn = [rows for _, rows in splitter.split(training, groups=_groups(training))]
    deviation = [np.abs(classes[rows].sum(axis=0) / classes.sum(axis=0) - fraction).max() for rows in drawn]
    return training.index[drawn[int(np.argmin(deviation))]]


def _image_validation(training: pd.DataFrame, fraction: float, seed: int) -> pd.Index:
    """Rows for validation drawn image by image, stratified by pathology (or own label), as the authors' code does."""
    from sklearn.model_selection import train_test_split  # as above

    classes = training[OWN if OWN in training else "pathology"]
    return train_test_split(training.index, test_size=fraction, random_state=seed, stratify=classes)[1]


def _films(lesions: pd.DataFrame) -> pd.Series:
    """What identifies each row's film: the hash of its pixels, or its UID where the hash is unknown."""
    return lesions["film_sha256"].where(lesions["film_sha256"] != "", lesions["film_uid"])


def _groups(training: pd.DataFrame) -> np.ndarray:
    """A group number per row; rows that share a patient or a film, directly or through others, have the same."""
    group = pd.Series(pd.factorize(training["patient_id"])[0], training.index)
    while True:  # the lowest number spreads, from film to patient to film
        lowest = group
        for shared in (_films(training), training["patient_id"]):
            lowest = lowest.groupby(shared).transform("min")
        if lowest.equals(group):
            return pd.factorize(group, sort=True)[0]
        group = lowest
