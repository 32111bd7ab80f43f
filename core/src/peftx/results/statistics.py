"""What a handful of seeds can say: mean, spread, and two intervals of a mean difference. Standard library only.

Sums are exact and rounded once, so nothing depends on the order of the seeds, and equal values have no spread. The
intervals are for differences paired by seed, where the base model, the head and the order of the batches are the same
on both sides.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Interval", "bootstrap_interval", "mean", "median", "sd", "t_interval", "t_quantile"]

#: Resamples of the bootstrap, and the seed of its own generator: the same differences give the same interval.
RESAMPLES, SEED = 10_000, 0


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; ValueError without a value."""
    if not values:
        raise ValueError("the mean of nothing")
    return statistics.mean(values)


def sd(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1 in the denominator); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def median(values: Sequence[float | int | None]) -> float | None:
    """The median of what was measured; None when nothing was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def bootstrap_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """The percentile bootstrap interval of the mean; None for fewer than two values.

    10,000 resamples with replacement; the ends are the quantiles (1 - level) / 2 and (1 + level) / 2 of their means,
    interpolated linearly. With few values it is too narrow: see docs/results.md.
    """
    n = len(values)
    if n < 2:
        return None
    means = sorted(math.fsum(values[i] for i in draw) / n for draw in _draws(n))
    tail = (1 - level) / 2
    return Interval(_quantile(means, tail), _quantile(means, 1 - tail))


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's interval of the mean, ``mean +- t(n - 1) sd / sqrt(n)``; None for fewer than two values.

    Of the stated coverage when the values are normal, however few they are.
    """
    spread = sd(values)
    if spread is None:
        return None
    half = t_quantile((1 + level) / 2, len(values) - 1) * spread / math.sqrt(len(values))
    return Interval(mean(values) - half, mean(values) + half)


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t for a probability above one half, by bisection of its distribution function."""
    low, high = 0.0, 1.0
    while _t_below(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_below(middle, degrees) < probability else (low, middle)
    return high


def _t_below(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0: a finite sum for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees % 2:
        term, total = cosine, cosine if degrees > 1 else 0.0
        for k in range(3, degrees - 1, 2):
            term *= (k - 1) / k * cosine**2
            total += term
        inside = 2 / math.pi * (angle + sine * total)
    else:
        term = total = 1.0
        for k in range(2, degrees - 1, 2):
            term *= (k - 1) / k * cosine**2
            total += term
        inside = sine * total
    return 0.5 + inside / 2


@lru_cache(maxsize=8)
def _draws(n: int) -> tuple[tuple[int, ...], ...]:
    # random() alone is promised to give the same numbers in every version of Python
    number = random.Random(SEED).random
    return tuple(tuple(int(number() * n) for _ in range(n)) for _ in range(RESAMPLES))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
