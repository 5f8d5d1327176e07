"""The page of `miram images --check`: what was understood of one's own images, and a sheet of crops."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from miram.files import atomic_path
from miram.report.pictures import png_uri
from miram.report.template import as_html, render


def write_check(html: Path, name: str, text: str, views: Iterable[tuple[str, str, np.ndarray]], fault: str) -> None:
    """Write one HTML file that opens without a network: the Markdown `text`, and the views by class.

    `views` are (class, words, (side, side) uint8); `fault` is what would stop the run, or empty.
    """
    classes: dict[str, list[tuple[str, str]]] = {}
    side = 0
    for label, words, view in views:
        side = len(view)
        classes.setdefault(label, []).append((words, png_uri(view)))
    page = render("check.html", name=name, fault=fault, text=as_html(text), classes=classes, side=side)
    with atomic_path(html) as temporary:
        temporary.write_text(page, encoding="utf-8")
