"""Schedules: one value per optimiser step, as an array."""

import numpy as np


def half_cosine(start: float, end: float, steps: int) -> np.ndarray:
    """(steps,) float64 from `start` at step 0 along half a cosine towards `end`, which step `steps` would reach."""
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * np.arange(steps) / max(steps, 1)))


def warmup_cosine(lr: float, steps: int, warmup_steps: int) -> np.ndarray:
    """(steps,) float64: linear from 0 to `lr` over `warmup_steps`, then half a cosine towards 0.

    The same values as the per-iteration learning rate of MAE and of MoCo-v3. Raises ValueError unless
    0 <= warmup_steps <= steps.
    """
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warmup_steps {warmup_steps} is not between 0 and steps {steps}")
    warmup = lr * np.arange(warmup_steps) / max(warmup_steps, 1)
    values = np.concatenate([warmup, half_cosine(lr, 0.0, steps - warmup_steps)])
    assert len(values) == steps
    return values
