"""Comparable times: medians of interleaved calls in one run; and the machine."""

import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from statistics import median
from typing import Any, TypeVar

import torch

from miram.provenance.record import processor_name

Phases = dict[str, float]  # seconds of the parts of one call, by name
Name = TypeVar("Name", bound=Hashable)  # of what is measured


def clock() -> float:
    """Seconds, after the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function: Callable[[], object]) -> Callable[[], Phases]:
    """`function` as one that returns its own `seconds`."""

    def call() -> Phases:
        start = clock()
        function()
        return {"seconds": clock() - start}

    return call


def interleaved(
    functions: Mapping[Name, Callable[[], Phases]], rounds: int, budget_seconds: float
) -> dict[Name, list[Phases]]:
    """Call every function once to warm up, then all in turn for several rounds; the results of the calls, by name.

    A function whose calls, including the first, have taken `budget_seconds` is not called again; the first call counts
    only if there is no other.
    """
    results: dict[Name, list[Phases]] = {name: [] for name in functions}
    first, spent = {}, {}
    for name, function in functions.items():
        start = clock()
        first[name] = function()
        spent[name] = clock() - start
    for _ in range(rounds):
        for name, function in functions.items():
            if spent[name] < budget_seconds:
                start = clock()
                results[name].append(function())
                spent[name] += clock() - start
    return {name: calls or [first[name]] for name, calls in results.items()}


def medians(calls: list[Phases]) -> Phases:
    """The median of each part, and the spread of all parts together: (largest - smallest) / median."""
    parts = {name: median(call[name] for call in calls) for name in calls[0]}
    totals = [sum(call.values()) for call in calls]
    return {**parts, "spread": (max(totals) - min(totals)) / median(totals), "calls": len(calls)}


def machine(device: str) -> dict[str, object]:
    """Processor, GPU (None if `device` is cpu), threads and versions."""
    return {
        "processor": processor_name(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def device_slug(host: dict[str, Any]) -> str:
    """A name for files: the GPU's, or cpu."""
    return "cpu" if host["gpu"] is None else host["gpu"].lower().replace(" ", "-")
