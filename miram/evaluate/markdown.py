"""Markdown that reads as well in plain text."""

import textwrap

PRESET_LABELS = {
    "demo": "DEMO: phantom lesions and small models; says nothing about the methods",
    "paper": "CBIS-DDSM, models of full size",
    "paper-448": "CBIS-DDSM, models of full size, 224 -> 448 px",
    "paper-896": "CBIS-DDSM, models of full size, 448 -> 896 px",
    "images": "Images of one's own",
}

LINE_WIDTH = 110  # characters; the files are printed on terminals too


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of LINE_WIDTH, those after the first indented."""
    return textwrap.fill(text, LINE_WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def aligned(rows: list[dict[str, str]]) -> str:
    """A table whose columns are as wide as their widest text, which pandas' own pads beyond a terminal."""
    texts = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(text) for text in column) for column in zip(*texts, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)
