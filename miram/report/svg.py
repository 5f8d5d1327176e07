"""A matplotlib figure as SVG inside an HTML page: its ink is the page's, its letters stay text, its ids are its own."""

import io
import re
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#123456"  # stands for the page's text colour, so that one figure suits light, dark and print
STYLE: list[str | dict[str, Any]] = [
    "default",
    {
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "grid.color": INK,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    },
]


def inline_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an <svg> element; `description` is read aloud.

    `name`, of letters, digits, - and _, keeps its ids apart from other figures'. The same figure gives the same bytes.
    """
    stream = io.StringIO()
    with matplotlib.style.context([*STYLE, {"svg.hashsalt": name}]):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-').replace(INK, "currentColor")
    opening = f'<svg role="img" aria-label={quoteattr(description)} viewBox'
    text = re.sub(r"<svg [^>]*?viewBox", lambda _: opening, text, count=1)
    return Markup(re.sub(r"\s*\n\s*", " ", text))
