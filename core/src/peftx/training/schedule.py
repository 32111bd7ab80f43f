"""The learning rate as a function of the optimizer step."""

from __future__ import annotations

import math

__all__ = ["learning_rate_factor"]


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """Factor on the peak learning rate at optimizer step `step` (counted from 0) of `total`.

    Linear warm-up over ``w = round(warmup * total)`` steps, ``(step + 1) / (w + 1)``, so that no step is
    wasted at zero; then 1 ("constant") or ``(1 + cos(pi (step - w) / (total - w))) / 2`` ("cosine").
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
