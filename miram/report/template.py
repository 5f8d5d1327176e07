"""Pages: their templates, filled, and Markdown as HTML."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

PAGE = Path(__file__).parent / "page"


def render(template: str, **values: Any) -> str:
    """A template of `page/` as HTML that opens without a network; each name in it needs a value, but for `style`."""
    environment = Environment(
        loader=PackageLoader("miram.report", PAGE.name), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["readable"] = readable
    return environment.get_template(template).render(**values, style=verbatim("style.css"))


def verbatim(name: str) -> Markup:
    """A file of `page/` as it is."""
    return Markup((PAGE / name).read_text(encoding="utf-8"))


def as_html(markdown: str) -> Markup:
    """Markdown as HTML; none of its own HTML is let through."""
    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))


def readable(name: str) -> str:
    """A class or task as one says it: BENIGN_MASS is "benign mass"."""
    return name.replace("_", " ").lower()
