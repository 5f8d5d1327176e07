"""Times that can be compared: of one run, interleaved, as medians; and the machine that they were taken on."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch


def interleaved_seconds(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Call every function once to warm up, then all in turn for so many rounds; the seconds of each call, by name."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: median(values) for name, values in seconds.items()}


def machine() -> dict[str, object]:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")  # Linux tells the model there; elsewhere Python knows at least the kind
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
