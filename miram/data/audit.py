"""What the splits share and how that affects the test set; what was repaired, set aside or is at a border."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd

from miram.data.case_lists import catalogue_overlap, views
from miram.data.rows import as_markdown
from miram.data.splits import SEEN, SPLITS
from miram.data.taking import DOUBTFUL
from miram.data.tasks import strata
from miram.files import atomic_path

PAIR_KINDS = ("same pixels", "same size, other pixels", "same size, pixels unknown", "other size")
UNSIZED = "size unknown"  # a further kind, of the archive's own crops
UNKNOWN = "Not known: the crops are the archive's own, without their films. So are the sizes and the pixels of these."
BORDERS = {
    "outside_film": "beyond the film, filled with zeros",
    "air": "air",
    "foreign": "bright but not breast: labels, borders of films and scans",
}


def audit(
    lesions_csv: Path, set_aside_csv: Path, splits_csvs: Mapping[str, Path], audit_md: Path, *, preset: str
) -> dict[str, object]:
    """Write `audit_md` about the lesions of two tables and their splits under each protocol of `splits_csvs`.

    Returns the most important figures.
    """
    lesions, lost = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (lesions_csv, set_aside_csv))
    catalogue = catalogue_overlap(pd.concat([lesions, lost]))
    split = {
        protocol: lesions["lesion_id"].map(pd.read_csv(path, dtype=str).set_index("lesion_id")["split"])
        for protocol, path in splits_csvs.items()
    }
    shared = {protocol: shared_between(lesions, of) for protocol, of in split.items()}
    effect = {protocol: effect_on_test(lesions, of) for protocol, of in split.items()}
    parts = [
        f"# Audit of the data, preset {preset}",
        "## The official parts",
        "How the training and test parts of the case lists overlap, independent of the protocol.",
        _listed({name.replace("_", " "): value for name, value in catalogue.items() if name != "patients"}),
        f"Patients in both parts: {', '.join(catalogue['patients']) or 'none'}.",
        "## Lesions of each class",
        *(f"{protocol}:\n\n{as_markdown(_class_counts(lesions, of), 'class')}" for protocol, of in split.items()),
        "## Shared between splits",
        "Films are the same by SeriesInstanceUID, or by the hash of their pixels where it is known; crops by theirs.",
        as_markdown(pd.concat(shared, names=["protocol", "splits"]).reset_index()),
        "## Effect on the test set",
        "Test lesions whose patient, film, or view of a patient's breast is also in training or validation.",
        as_markdown(pd.DataFrame(effect).T, "protocol"),
        "## Films of one view",
        "Pairs of films of the same patient, side and view under two UIDs, in the same official part or across them.",
        as_markdown(film_pairs(lesions), "parts"),
        "## Repairs",
        _listed(lesions["repairs"].str.split(";").explode().loc[lambda word: word != ""].value_counts().sort_index()),
        *_doubtful(lesions),
        "## Set aside",
        f"{len(lost)} of {len(lesions) + len(lost)} lesions; set_aside.md gives each with its reason.",
        "## What crops show other than breast",
        "Shares of a crop's pixels, from a map of its film in which the breast is the largest bright area.",
        as_markdown(_borders(lesions)) if (lesions["air"] != "").any() else UNKNOWN,
    ]
    with atomic_path(audit_md) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return {"catalogue": catalogue, "effect_on_test": effect, "set_aside": len(lost)}


def shared_between(lesions: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    """The numbers of patients, films and crops that each pair of training, validation and test shares.

    A number is "not known" where pixel hashes are missing.
    """
    columns = {
        "patients": "patient_id",
        "films by UID": "film_uid",
        "films by pixels": "film_sha256",
        "crops by pixels": "crop_sha256",
    }

    def shared(one: str, other: str, column: str) -> int | str:
        first, second = (set(lesions.loc[split == name, column]) for name in (one, other))
        return "not known" if "" in first | second else len(first & second)

    rows = {
        f"{one} and {other}": {name: shared(one, other, column) for name, column in columns.items()}
        for one, other in combinations(SPLITS[:3], 2)
    }
    return pd.DataFrame(rows).T


def effect_on_test(lesions: pd.DataFrame, split: pd.Series) -> dict[str, int]:
    """The number of test lesions, and how many share a patient, film or view with training or validation."""
    test, seen = lesions[split == "test"], lesions[split.isin(SEEN)]
    same_film = test["film_uid"].isin(seen["film_uid"])
    same_film |= test["film_sha256"].isin(set(seen["film_sha256"]) - {""})
    return {
        "test lesions": len(test),
        "patient seen": int(test["patient_id"].isin(seen["patient_id"]).sum()),
        "film seen": int(same_film.sum()),
        "view seen": int(views(test).isin(views(seen).dropna()).sum()),
    }


def film_pairs(lesions: pd.DataFrame) -> pd.DataFrame:
    """Numbers of pairs of films of one view, by whether their pixels, or only their sizes, are the same."""
    films = lesions.drop_duplicates("film_uid")
    unsized = [UNSIZED] * bool((films["film_rows"] == "").any())
    kinds = {place: dict.fromkeys([*PAIR_KINDS, *unsized], 0) for place in ("same part", "both parts")}
    for _, of_view in films.groupby(views(films)):
        for one, other in combinations(of_view.to_dict("records"), 2):
            place = "same part" if one["official_split"] == other["official_split"] else "both parts"
            kinds[place][_pair_kind(one, other)] += 1
    return pd.DataFrame(kinds).T


def _pair_kind(one: dict, other: dict) -> str:
    if "" in (one["film_rows"], other["film_rows"]):
        return UNSIZED
    if (one["film_rows"], one["film_columns"]) != (other["film_rows"], other["film_columns"]):
        return "other size"
    if not one["film_sha256"] or not other["film_sha256"]:
        return "same size, pixels unknown"
    return "same pixels" if one["film_sha256"] == other["film_sha256"] else "same size, other pixels"


def _class_counts(lesions: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    counts = pd.crosstab(strata(lesions), split).reindex(columns=SPLITS, fill_value=0)
    counts.loc["all"] = counts.sum()
    return counts


def _doubtful(lesions: pd.DataFrame) -> list[str]:
    """The archive's own crops that disagree with the boxes of their masks, by name."""
    names = lesions.loc[lesions["repairs"].str.contains(DOUBTFUL), "lesion_id"]
    about = (
        f"{len(names)} of the archive's own crops disagree with the box of their mask; crops.doubtful leaves them out."
    )
    return [f"### {DOUBTFUL}", about, ", ".join(names)] if len(names) else []


def _borders(lesions: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (part, of_part), (name, text) in (
        (group, border) for group in lesions.groupby("official_split") for border in BORDERS.items()
    ):
        share = pd.to_numeric(of_part[name])
        some = share[share > 0]
        rows.append(
            {
                "official part": part,
                "share": text,
                "crops with any": f"{len(some)} of {len(share)}",
                "their median": f"{some.median():.3f}" if len(some) else "",
                "largest": f"{some.max():.3f}" if len(some) else "",
                "of lesion": of_part.loc[some.index[int(some.argmax())], "lesion_id"] if len(some) else "",
            }
        )
    return pd.DataFrame(rows)


def _listed(counts: Mapping[str, object] | pd.Series) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in counts.items()) or "None."
