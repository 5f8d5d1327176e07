"""The findings of the preflight."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One line of the preflight."""

    level: Literal["ok", "warning", "stop"]
    text: str
    remedy: str = ""
