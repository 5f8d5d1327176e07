"""Where the archive comes from: a module a kind of source, and the dictionary of kinds."""

from typing import Any

from miram.data.transfer.http import Http
from miram.data.transfer.sources.idc import Idc
from miram.data.transfer.sources.local import Local
from miram.data.transfer.sources.series import Series, Source
from miram.data.transfer.sources.tcia import Tcia

SOURCES = {"tcia": Tcia, "idc": Idc, "local": Local}
__all__ = ["SOURCES", "Series", "Source", "open_source"]


def open_source(kind: str, http: Http, settings: dict[str, Any]) -> Source:
    """A source of a kind with its block of parameters; `csv_url` in it is the case lists' and not its own."""
    return SOURCES[kind](http, **{name: value for name, value in settings.items() if name != "csv_url"})
