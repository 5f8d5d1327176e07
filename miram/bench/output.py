"""The output of a bench: its measurements as JSON, and as a page to read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miram.files import atomic_path


def write_results(path: Path, results: Mapping[str, Any], text: str) -> None:
    """Write the JSON file `path`, and `text` next to it as Markdown."""
    for file, content in ((path, json.dumps(results, indent=1) + "\n"), (path.with_suffix(".md"), text)):
        with atomic_path(file) as temporary:
            temporary.write_text(content, encoding="utf-8")
