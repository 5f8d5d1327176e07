"""The output of a bench: its measurements as JSON, and as a page to read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from miram.errors import MiramError
from miram.files import atomic_path
from miram.train.device import out_of_memory_as, release_memory


def write_results(path: Path, results: Mapping[str, Any], text: str) -> None:
    """Write the JSON file `path`, and `text` next to it as Markdown."""
    for file, content in ((path, json.dumps(results, indent=1) + "\n"), (path.with_suffix(".md"), text)):
        with atomic_path(file) as temporary:
            temporary.write_text(content, encoding="utf-8")


def add(results: dict[str, Any], part: str, what: str, measure: Callable[[], list[dict[str, Any]]]) -> None:
    """Add the rows that `measure` gives to a part of the results; if memory runs out, or as told, a row of `faults`."""
    release_memory()
    try:
        with out_of_memory_as(what, "It needs a device with more memory."):
            results[part] += measure()
    except MiramError as error:
        results["faults"].append({"part": what, "fault": error.message})
