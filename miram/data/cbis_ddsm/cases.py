"""The rows of CBIS-DDSM's case lists that come with this software, for work without a network and for comparison.

The lists are available from only one web site. README.md in this folder names their source and licence.
"""

import gzip
import hashlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from miram.data.case_lists import ABNORMALITIES, CASES, PATHS, RENAMED, lesion_ids, lesions_of
from miram.errors import MiramError
from miram.files import write_csv
from miram.layout import CASE_CSVS

TABLE = Path(__file__).with_name("cases.csv.gz")
SHA256 = "54ff81c07a70ce2250f0b0928779e091a853699d0e1fafbe4a67ea5d08ada347"  # of the uncompressed table
ARCHIVE_BYTES = 163_512_966_728  # of the 6,775 series that the rows name, by the index of the Imaging Data Commons
COLLECTION = "cbis-ddsm"  # TCIA writes CBIS-DDSM, the Imaging Data Commons cbis_ddsm


def carries(settings: Mapping[str, Any]) -> bool:
    """Whether the archive that a source's block of parameters names is CBIS-DDSM; a local folder is taken for it."""
    return settings.get("collection", COLLECTION).lower().replace("_", "-") == COLLECTION


@cache
def carried_cases() -> pd.DataFrame:
    """The rows that come with this software, as text, with the columns CASES. Raises MiramError for a damaged file."""
    try:
        table = gzip.decompress(TABLE.read_bytes())
    except (OSError, EOFError) as error:
        raise _damaged(str(error)) from error
    if hashlib.sha256(table).hexdigest() != SHA256:
        raise _damaged("its SHA-256 differs")
    return pd.read_csv(io.BytesIO(table), dtype=str, keep_default_na=False)


def carried_lesions() -> pd.DataFrame:
    """The lesions of the carried rows, as `case_lists.read_lesions` gives those of downloaded lists."""
    return lesions_of(carried_cases())


def write_case_lists(csv_dir: Path) -> None:
    """Write the carried rows as the four case lists, in their format.

    Each path holds only the series; description, study and file, which nothing reads, are written as a dash.
    """
    rows = carried_cases().assign(abnormality_type=lambda table: table["kind"].map(ABNORMALITIES))
    for column, uid in PATHS.items():
        rows[column] = "-/-/" + rows[uid] + "/-"
    rows = rows.rename(columns={new: old for old, new in RENAMED.items()}).drop(columns=list(PATHS.values()))
    first, last = ["patient_id"], list(PATHS)
    middle = [name for name in rows if name not in (*first, *last, "kind", "official_split")]
    for name in CASE_CSVS:
        kind, _, _, part, _ = name.split("_")
        own = rows[(rows["kind"] == kind) & (rows["official_split"] == part)]
        write_csv(own[[*first, *middle, *last]], csv_dir / name)


def differences(cases: pd.DataFrame) -> tuple[list[str], list[str]]:
    """How rows of `case_lists.read_cases` differ from the carried ones.

    Returns the ids of missing lesions, and every other difference in words. Lists that share no lesion with the carried
    ones belong to another archive and are not compared.
    """
    carried = carried_cases()
    own, known = (table.set_index(lesion_ids(table)) for table in (cases, carried))
    both = own.index.intersection(known.index, sort=False)
    if not (own.loc[both, "film_uid"] == known.loc[both, "film_uid"]).any():
        return [], []
    missing = known.index.difference(own.index, sort=False).tolist()
    place = own["path"].map(lambda path: Path(path).name) + ", row " + own["row"].astype(str) + " (" + own.index + "): "
    added = own.index.difference(known.index, sort=False)
    words = [place[lesion] + "not among the carried lesions" for lesion in added]
    changed = (own.loc[both, CASES] != known.loc[both, CASES]).stack()
    for lesion, column in changed.index[changed.to_numpy()]:
        values = own.loc[lesion, column], known.loc[lesion, column]
        words.append(place[lesion] + "{} is {!r}, but {!r} in the carried lists".format(column, *values))
    return missing, words


def _damaged(why: str) -> MiramError:
    return MiramError(f"{TABLE} is damaged: {why}.", "Install this software again, or take the file from git.")
