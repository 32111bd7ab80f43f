"""Long series made short enough to draw, without losing what one looks for in them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["smooth", "thin"]

Point = tuple[float, float]


def thin(points: Sequence[Point], most: int = 400) -> list[Point]:
    """At most `most` points of a series: the lowest and the highest of each of equally long stretches, in their order,
    with the first and the last. A spike of a single step survives."""
    if len(points) <= most:
        return list(points)
    inner, buckets = points[1:-1], max(1, (most - 2) // 2)
    kept = [points[0]]
    for index in range(buckets):
        stretch = inner[index * len(inner) // buckets : (index + 1) * len(inner) // buckets]
        if not stretch:
            continue
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """The mean over `window` neighbours, half before and half after, fewer at the ends; x is kept."""
    half, total, sums = window // 2, len(points), [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    found = []
    for index, (x, _) in enumerate(points):
        near = min(half, index, total - 1 - index)
        low, high = index - near, index + near + 1
        found.append((x, (sums[high] - sums[low]) / (high - low)))
    return found
