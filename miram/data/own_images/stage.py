"""The stage `images`: crops of own images instead of films; and a check of them before it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from miram.data.cutting import BACKGROUND_COLUMNS, LESION_COLUMNS, SET_ASIDE_COLUMNS, save_png
from miram.data.own_images.cut import Found, Rule, crop_of, cut_images
from miram.data.own_images.overview import NO_LABEL, overview, require_enough
from miram.data.own_images.table import Table
from miram.data.pictures.survey import Reading, write_survey
from miram.data.rows import remove_others, write_rows
from miram.data.splits import divide
from miram.data.tasks import OWN
from miram.errors import MiramError
from miram.files import atomic_path


class Places(NamedTuple):
    """The files that the stage writes; `tables` are its outputs."""

    crops_dir: Path
    lesions_csv: Path
    set_aside_csv: Path
    backgrounds_csv: Path
    pictures_csv: Path
    overview_md: Path

    @property
    def tables(self) -> tuple[Path, ...]:
        """All except the folder of crops."""
        return self[1:]


class Sample(NamedTuple):
    """A lesion to be shown to a person."""

    label: str
    text: str
    crop: np.ndarray  # (R, C) uint8


class Check(NamedTuple):
    """What `check_images` found: the text, crops of each class, and why the stage would stop, if it would."""

    text: str
    samples: list[Sample]
    fault: MiramError | None


def import_images(
    table: Table, places: Places, *, folder: str, table_csv: str, set_aside_max: float, **rule: Any
) -> dict[str, object]:
    """Write a crop and a row in `lesions_csv` per lesion of the table, or a row in `set_aside_csv`.

    `rule` holds the fields of Rule. Crops are windows around boxes, masks or whole images, of `bits` per pixel.
    `lesions_csv` has the columns LESION_COLUMNS, blank where unknown, and `label`; `pictures_csv` gets the facts
    of each file, `overview_md` the text of `overview`. There are no backgrounds. Returns counts, and the
    range of each kind of file, with which `predict` reads. Raises MiramError where `require_enough` does.
    """
    cutting = Rule(**rule)
    crops_dir = Path(places.crops_dir)
    found = cut_images(
        table.lesions, Path(folder), cutting, lambda name, crop: save_png(crop, crops_dir / f"{name}.png")
    )
    text = _text(table, found, folder, cutting)
    print(text, flush=True)
    require_enough(found, table_csv, Path(folder), set_aside_max)
    remove_others(crops_dir, {row["lesion_id"] for row in found.rows})
    write_survey(found.pictures, places.pictures_csv)
    write_rows(found.aside, [*SET_ASIDE_COLUMNS, OWN], places.set_aside_csv)
    write_rows([], BACKGROUND_COLUMNS, places.backgrounds_csv)
    write_rows(found.rows, [*LESION_COLUMNS, OWN], places.lesions_csv)
    with atomic_path(places.overview_md) as temporary:
        temporary.write_text(text, encoding="utf-8")
    labels = pd.Series([row[OWN] for row in found.rows if row[OWN]]).value_counts().sort_index()
    return {
        "lesions": len(found.rows),
        "images": len({row["film_uid"] for row in found.rows}),
        "patients": len({row["patient_id"] for row in found.rows}),
        "set_aside": len(found.aside),
        "classes": {str(name): int(count) for name, count in labels.items()},
        "ranges": found.pictures.ranges,
    }


def check_images(
    table: Table,
    *,
    folder: str,
    table_csv: str,
    set_aside_max: float,
    shown: int,
    divisions: Iterable[Mapping[str, Any]],
    **rule: Any,
) -> Check:
    """What `import_images` would do, without writing: its text, how the lesions divide, and crops of each class.

    `divisions` are the keywords of `divide`, `shown` is the number of crops. Raises MiramError as
    `cut_images`.
    """
    cutting = Rule(**rule)
    found = cut_images(table.lesions, Path(folder), cutting)
    fault = None
    try:
        require_enough(found, table_csv, Path(folder), set_aside_max)
    except MiramError as error:
        fault = error
    parts = [_text(table, found, folder, cutting)]
    lesions = pd.DataFrame(found.rows, columns=[*LESION_COLUMNS, OWN])
    for values in divisions if fault is None else ():
        try:
            counts = divide(lesions, **values)[1]
            told = "\n".join(f"* {part}: {_listed(own)}" for part, own in counts.items())
        except MiramError as error:
            fault, told = error, error.message
        parts.append(f"Divided under protocol {values['protocol']}:\n\n{told}\n")
    return Check("\n".join(parts), list(_samples(found, Path(folder), cutting, shown)), fault)


def _samples(found: Found, folder: Path, rule: Rule, count: int) -> Iterator[Sample]:
    """This many lesions, equally many from each class as far as available, in random order."""
    table = pd.DataFrame(found.rows, columns=["lesion_id", "crop_sha256", OWN]).sort_values("crop_sha256")
    turn = table.groupby(OWN).cumcount()
    chosen = set(table.assign(turn=turn).sort_values(["turn", OWN])["lesion_id"].head(count))
    reading = Reading(rule.levels, found.pictures.ranges)
    for row in sorted(found.rows, key=lambda own: (not own[OWN], own[OWN], own["lesion_id"])):
        if row["lesion_id"] in chosen:
            text = f"{row['film_uid']}, patient {row['patient_id']}"
            yield Sample(row[OWN] or NO_LABEL, text, crop_of(row, folder, reading))


def _text(table: Table, found: Found, folder: str, rule: Rule) -> str:
    unread = f" Columns that are not read: {', '.join(table.unread)}." if table.unread else ""
    return f"Table: {table.written}.{unread}\n\n{overview(found, Path(folder), rule.levels)}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
