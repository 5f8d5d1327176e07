"""A summary of own images in words and counts, for the check, the log and the results."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from miram.data.own_images.cut import Found
from miram.data.pictures.survey import summary
from miram.data.rows import as_markdown, first_few
from miram.data.splits import PRETRAIN
from miram.data.tasks import OWN
from miram.errors import MiramError

NO_LABEL = "(no label)"
NOT_GIVEN = "not given"  # the part of lesions from which a test set is drawn
SHOWN = 12  # reasons of a table; set_aside.csv has all
PARTS = ("train", "test", NOT_GIVEN, PRETRAIN)


def overview(found: Found, folder: Path, levels: str) -> str:
    """Markdown: counts by class and part, what is set aside and why, what leaks, the grey levels by kind of file."""
    good, lost = _table(found.rows), _table(found.aside)
    every = pd.concat([good, lost])
    lines = [
        f"{len(every)} lesions on {every['film_uid'].nunique()} images of {every['patient_id'].nunique()} patients; "
        f"{len(lost)} of them are set aside.",
        as_markdown(_counts(good, lost), "class"),
        as_markdown(_reasons(lost, folder)) if len(lost) else "",
        "What leaks:",
        "\n".join(f"* {text}" for text in leaks(good)),
        "Grey levels:",
        "\n".join(f"* {line.strip()}" for line in summary(found.pictures, levels).splitlines()),
    ]
    return "\n\n".join(filter(None, lines)) + "\n"


def require_enough(found: Found, table_csv: str, folder: Path, set_aside_max: float) -> None:
    """Raise MiramError, with the reasons, if more than this share of a class is set aside, or one class is left."""
    good, lost = _table(found.rows), _table(found.aside)
    labelled = lost[lost[OWN] != NO_LABEL]
    for name, own in labelled.groupby(OWN):
        whole = len(own) + int((good[OWN] == name).sum())
        if len(own) > set_aside_max * whole:
            rows = _reasons(labelled, folder).iterrows()
            reasons = "; ".join(first_few([f"{row.lesions} of {row['class']}: {row.reason}" for _, row in rows]))
            raise MiramError(
                f"{table_csv}: {len(own)} of {whole} lesions of class {name} are set aside, which is more than "
                f"{set_aside_max:.0%}. {reasons}",
                "Correct or remove these files, or allow more: sources.images.set_aside_max.",
            )
    classes = sorted(set(good[OWN]) - {NO_LABEL})
    if len(classes) < 2:
        raise MiramError(
            f"{table_csv}: {len(good)} of {len(good) + len(lost)} lesions can be used, of "
            f"{len(classes)} classes ({', '.join(classes) or 'none'}).",
            "Classification needs at least two classes.",
        )


def require_positive(positive: str | None, classes: Iterable[str]) -> None:
    """Raise MiramError when `sources.images.positive` names no class."""
    known = sorted(set(classes))
    if positive is not None and positive not in known:
        raise MiramError(
            f"sources.images.positive: {positive!r} is not a class of the table: {', '.join(map(repr, known))}.",
            "Name one of them, or null.",
        )


def leaks(lesions: pd.DataFrame) -> list[str]:
    """Patients and pictures that are in both training and test, and pictures that have several names."""
    found = []
    test = set(lesions.loc[lesions["official_split"] == "test", "patient_id"])
    for part in ("train", PRETRAIN):
        both = sorted(test & set(lesions.loc[lesions["official_split"] == part, "patient_id"]))
        found.append(f"patients in {part} and test: {_told(both)}")
    pictures = [own for _, own in lesions.groupby("film_sha256")]
    several = [own for own in pictures if own["film_uid"].nunique() > 1]
    for column, what, among in (
        ("film_uid", "names", several),
        ("patient_id", "patients", several),
        (OWN, "classes", several),
        ("official_split", "parts", pictures),
    ):
        same = [" = ".join(own["film_uid"].unique()) for own in among if own[column].nunique() > 1]
        found.append(f"pictures under several {what}: {_told(same)}")
    return found


def _told(found: list[str]) -> str:
    return f"{len(found)} ({', '.join(first_few(found))})" if found else "none"


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = ["lesion_id", "patient_id", "official_split", "film_uid", "film_sha256", "reason", OWN]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        **{OWN: table[OWN].replace("", NO_LABEL), "official_split": table["official_split"].replace("", NOT_GIVEN)}
    )


def _counts(good: pd.DataFrame, lost: pd.DataFrame) -> pd.DataFrame:
    """One row per class: usable lesions by part, their patients, and the number set aside."""
    every = pd.concat([good, lost])
    names = sorted(every[OWN].unique(), key=lambda name: (name == NO_LABEL, name))
    counts = pd.crosstab(good[OWN], good["official_split"]).reindex(
        index=names, columns=[p for p in PARTS if (every["official_split"] == p).any()], fill_value=0
    )
    counts["used"] = counts.sum(axis=1)
    counts["set aside"] = lost[OWN].value_counts().reindex(names, fill_value=0)
    counts.loc["all"] = counts.sum()
    patients = good.groupby(OWN)["patient_id"].nunique().reindex(names, fill_value=0)
    return counts.assign(patients=[*patients, good["patient_id"].nunique()]).rename(index=_cell)


def _reasons(lost: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """One row per class and reason, most frequent first, with an example; file names and numbers are not part of it."""
    plain = [str(reason).replace(f"{folder}/", "") for reason in lost["reason"]]
    plain = [text.removeprefix(f"{image} ") for text, image in zip(plain, lost["film_uid"], strict=True)]
    table = lost.assign(reason=plain, kind=[re.sub(r"\d+", "#", text) for text in plain])
    columns = {"lesions": ("reason", "size"), "reason": ("reason", "first"), "such as": ("film_uid", "first")}
    grouped = table.groupby([OWN, "kind"]).agg(**columns).reset_index().rename(columns={OWN: "class"})
    ordered = grouped.sort_values("lesions", ascending=False, kind="stable").head(SHOWN)
    return ordered[["class", *columns]].map(lambda cell: _cell(cell) if isinstance(cell, str) else cell)


def _cell(text: str) -> str:
    """Text escaped for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
