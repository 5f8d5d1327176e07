"""The peak memory of a computation."""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak_bytes(fn: Callable[[], object]) -> int:
    """Call `fn` and return the peak bytes of the CPU's tensors beyond those allocated before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fn()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())), default=0)


def peak_of(call: Callable[[], object], device: str) -> float:
    """The maximum bytes of `call` in addition to the memory in use before."""
    if device == "cpu":
        return peak_bytes(call)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before
