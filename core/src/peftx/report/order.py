"""Who is before whom: directions of metrics, ranks with ties, and the front of what nothing else beats. Pure functions.

Figures are compared after rounding to ten significant digits: two means of the same scores may differ in their last
bit, and that is no difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["decides", "front", "level", "lower_is_better", "ranks"]

_LOWER = frozenset(
    "loss nll error err ece mce ace tace brier wer cer mae mse rmse mape smape mase ade fde ppl perplexity".split()
)


def level(value: float) -> float:
    """The value as it is compared: ten significant digits."""
    return float(f"{value:.10g}")


def lower_is_better(metric: str) -> bool:
    """What the name of a metric says of its direction: losses and errors are better when lower."""
    return bool(_LOWER & set(metric.lower().replace("-", "_").split("_")))


def decides(record: Mapping[str, Any], split: str) -> tuple[str, bool]:
    """The metric that decides on a split of a run, and whether more of it is better: what selected on validation where
    the record has that apart from the primary one (see `peftx.tasks.Task.decides`)."""
    if split == "val" and record.get("selects"):
        return str(record["selects"]), bool(record.get("selects_higher_is_better", True))
    return str(record.get("primary", "")), bool(record.get("higher_is_better", True))


def ranks(values: Sequence[float | None], *, higher_is_better: bool = True) -> list[int | None]:
    """Rank each value: 1 is best, equal values share the better rank, and the next one counts all before it (1, 1, 3).

    None, and what is not finite, has no rank.
    """
    sign = -1.0 if higher_is_better else 1.0
    keys = [None if v is None or not math.isfinite(v) else sign * level(v) for v in values]
    known = [key for key in keys if key is not None]
    return [None if key is None else 1 + sum(other < key for other in known) for key in keys]


def front(
    scores: Sequence[float | None], costs: Sequence[float | None], *, higher_is_better: bool = True
) -> list[bool]:
    """Say of each row whether no other is at least as good and at least as small, and better or smaller.

    Equal rows are on the front together. A row without a score or without a cost is not on it, and beats none.
    """
    sign = -1.0 if higher_is_better else 1.0
    points = [
        None if s is None or c is None or not math.isfinite(s) else (sign * level(s), level(c))
        for s, c in zip(scores, costs, strict=True)
    ]
    known = [point for point in points if point is not None]
    return [point is not None and not any(_beats(other, point) for other in known) for point in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]
