"""Where the archive comes from: one module per kind of source, and the dictionary of kinds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from miram.data.transfer.http import Http
from miram.data.transfer.sources.fallback import Fallback
from miram.data.transfer.sources.idc import Idc, IdcCrops
from miram.data.transfer.sources.local import Local
from miram.data.transfer.sources.named import NamedCrops, named_pictures
from miram.data.transfer.sources.series import Series, Source
from miram.data.transfer.sources.tcia import Tcia

SOURCES: dict[str, Callable[..., Source]] = {"tcia": Tcia, "idc": Idc, "local": Local}
__all__ = ["SOURCES", "Idc", "Series", "Source", "Tcia", "named_crops", "open_source", "own_settings", "takes_crops"]


def open_source(kind: str, http: Http, settings: dict[str, Any], csv_dir: Path) -> Source:
    """A source of a kind with its block of parameters; `csv_dir`: where the case lists are, or will be.

    In the block `csv_url` belongs to the case lists, not the source; `fallback` is None, or source and settings of
    another one for series that this one does not deliver; see `takes_crops` for `crops_from`.
    """
    fallback = settings.get("fallback")
    if kind == "local" and named_crops(settings):
        return NamedCrops(Path(settings["folder"]), csv_dir)
    if kind == "idc" and takes_crops(settings):
        return IdcCrops(http, csv_dir=csv_dir, **own_settings(settings))
    source = SOURCES[kind](http, **own_settings(settings))
    if fallback is None:
        return source
    return Fallback(http, source, lambda: open_source(fallback["source"], http, fallback["settings"], csv_dir))


def takes_crops(settings: Mapping[str, Any]) -> bool:
    """Whether the archive's own crops are wanted instead of films."""
    return settings.get("crops_from") == "archive"


def named_crops(settings: Mapping[str, Any]) -> list[Path]:
    """The pictures of a local folder that are taken as the archive's own crops; none where DICOM files are."""
    return named_pictures(Path(settings["folder"])) if takes_crops(settings) else []


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a source in its block of parameters."""
    return {name: value for name, value in settings.items() if name not in ("csv_url", "fallback", "crops_from")}
