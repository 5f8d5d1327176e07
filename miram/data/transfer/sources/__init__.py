"""Where the archive comes from: a module a kind of source, and the dictionary of kinds."""

from typing import Any

from miram.data.transfer.http import Http
from miram.data.transfer.sources.fallback import Fallback
from miram.data.transfer.sources.idc import Idc
from miram.data.transfer.sources.local import Local
from miram.data.transfer.sources.series import Series, Source
from miram.data.transfer.sources.tcia import Tcia

SOURCES = {"tcia": Tcia, "idc": Idc, "local": Local}
__all__ = ["SOURCES", "Series", "Source", "open_source"]


def open_source(kind: str, http: Http, settings: dict[str, Any]) -> Source:
    """A source of a kind with its block of parameters.

    In the block `csv_url` is the case lists' and not its own; `fallback` is None, or source and settings of another one
    for what this one does not give.
    """
    fallback = settings.get("fallback")
    source = SOURCES[kind](http, **{k: value for k, value in settings.items() if k not in ("csv_url", "fallback")})
    if fallback is None:
        return source
    return Fallback(http, source, lambda: open_source(fallback["source"], http, fallback["settings"]))
