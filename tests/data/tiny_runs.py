"""The stages catalogue and crops, run on a tiny archive that a server on loopback has."""

from pathlib import Path

import pandas as pd
from tiny_archive import Server

from miram.data.crop_rules import Cutting
from miram.data.transfer.catalogue import list_archive
from miram.data.transfer.films import Places, cut_films

CROPS = {"component": "union", "shape": "square", "margin": 0.0, "side_min": 1, "bits": 8, "air": 0.08}
CROPS |= {"backgrounds_per_film": 1, "backgrounds_seed": 0}
TRIES = {"attempts": 3, "timeout_seconds": 20.0, "backoff_seconds": 0.01}  # only a server that hangs takes 20 s


def places_in(folder: Path) -> Places:
    return Places(
        csv_dir=folder / "csv",
        series_csv=folder / "series.csv",
        dicom_dir=folder / "dicom",
        crops_dir=folder / "crops",
        backgrounds_dir=folder / "backgrounds",
        ledger=folder / "ledger.jsonl",
        lesions_csv=folder / "lesions.csv",
        set_aside_csv=folder / "set_aside.csv",
        backgrounds_csv=folder / "backgrounds.csv",
        lock=folder / "instances.csv",
    )


def tcia(server: Server) -> dict[str, object]:
    settings = {"collection": "CBIS-DDSM", "api_url": f"{server.url}/services/v4/", "csv_url": f"{server.url}/uploads/"}
    return {"source": "tcia", "settings": settings}


def list_tiny(folder: Path, where: dict[str, object], **changes) -> dict[str, object]:
    return list_archive(folder / "csv", folder / "series.csv", **where, **{**TRIES, "carried": False, **changes})


def cut_tiny(folder: Path, where: dict[str, object], *, workers=2, keep_dicom=False, crops=CROPS, rule=None, **changes):
    more = {"workers": workers, "keep_dicom": keep_dicom, **TRIES, **changes}
    return cut_films(places_in(folder), **where, cutting=rule or Cutting(**crops), **more)


def run_tiny(folder: Path, where: dict[str, object], **changes) -> dict[str, object]:
    list_tiny(folder, where, **{name: value for name, value in changes.items() if name in TRIES})
    return cut_tiny(folder, where, **changes)


def made(folder: Path) -> dict[str, bytes]:
    """What the stage has made, by name: crops, background patches, tables, lock."""
    images = [path for name in ("crops", "backgrounds") for path in (folder / name).glob("*")]
    tables = [folder / f"{name}.csv" for name in ("lesions", "set_aside", "backgrounds", "instances")]
    return {path.name: path.read_bytes() for path in [*images, *tables]}


def lesions(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "lesions.csv", keep_default_na=False).set_index("lesion_id")
