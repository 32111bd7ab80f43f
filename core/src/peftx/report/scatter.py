"""Quality against cost: one mark for each row, its spread over seeds, its name, and the front nobody beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftx.report import order
from peftx.report.figures import amount, spread, unit_of
from peftx.report.labels import place_labels
from peftx.report.markup import Html, tag
from peftx.report.palette import slot
from peftx.report.svg import Box, Scale, axes, drawing, mark, path, place

__all__ = ["Point", "front", "scatter"]

BOX = Box()


@dataclass(frozen=True, slots=True)
class Point:
    """One row: `cost` and `quality`, the sample deviation of quality over `n` seeds (None for one seed)."""

    series: int
    name: str
    cost: float
    quality: float
    spread: float | None = None
    n: int = 1


def front(points: Sequence[Point], higher_is_better: bool = True) -> list[Point]:
    """The points no other one beats: none is at least as good and at least as small, and better or smaller. By cost."""
    scores, costs = [point.quality for point in points], [point.cost for point in points]
    marks = order.front(scores, costs, higher_is_better=higher_is_better)
    kept = [point for point, mark in zip(points, marks, strict=True) if mark]
    return sorted(kept, key=lambda point: (point.cost, point.quality))


def scatter(
    points: Sequence[Point],
    title: str,
    *,
    kind: str,
    cost: str,
    quality: str,
    unit: str = "",
    higher_is_better: bool = True,
) -> Html | None:
    """A plot of quality over cost, with the Pareto front as a stepped line; None where there are fewer than two points.

    `kind` of the cost: count, bytes or seconds. Its axis is logarithmic where costs differ by more than eight times.
    """
    if len(points) < 2:
        return None
    costs = [point.cost for point in points]
    log = min(costs) > 0 and max(costs) > 8 * min(costs)
    cost_unit, size = unit_of([max(costs)], kind) if kind in ("bytes", "seconds") else ("", 1.0)
    x = Scale.over(costs, BOX.x, log=log, unit=size, pad=0.12)
    ends = [point.quality + s * (point.spread or 0.0) for point in points for s in (-1, 1)]
    y = Scale.over(ends, BOX.y, pad=0.12)
    best = front(points, higher_is_better)
    named = f"{quality}{f' ({unit})' if unit else ''}"
    places = [(x(point.cost), y(point.quality)) for point in points]
    bars = [_bar(point, x, y) for point in points if point.spread]
    marks = [
        mark(point.series, *at, 5.5, _tip(point, kind, cost, quality, unit))
        for point, at in zip(points, places, strict=True)
    ]
    heights = [abs(y(p.quality + (p.spread or 0)) - y(p.quality - (p.spread or 0))) / 2 for p in points]
    labels = place_labels([point.name for point in points], places, heights, BOX)
    names = [
        tag("text", text, x=place(lx), y=place(ly), class_=f"name {anchor}", data_series=point.series)
        for point, label in zip(points, labels, strict=True)
        if label is not None
        for text, lx, ly, anchor in (label,)
    ]
    arrow = "↑" if higher_is_better else "↓"
    return drawing(
        BOX,
        title,
        f"{named} against {cost}: "
        + "; ".join(_tip(point, kind, cost, quality, unit).replace("\n", ", ") for point in points)
        + f". Not beaten: {', '.join(point.name for point in best)}.",
        axes(BOX, x, y, f"{cost}{f' ({cost_unit})' if cost_unit else ''} →", f"{named}, {arrow} better"),
        tag("path", d=_stairs(best, x, y, BOX), class_="front"),
        *bars,
        *marks,
        *names,
        class_="plot",
    )


def _tip(point: Point, kind: str, cost: str, quality: str, unit: str) -> str:
    seeds = f" (sd, n = {point.n})" if point.spread is not None else ""
    reached = f"{spread(point.quality, point.spread, unit)}{f' {unit}' if unit else ''}{seeds}"
    return "\n".join([point.name, f"{quality} {reached}", f"{cost} {amount(point.cost, kind)}"])


def _bar(point: Point, x: Scale, y: Scale) -> Html:
    """One standard deviation to each side."""
    at, low, high = (
        x(point.cost),
        y(point.quality - (point.spread or 0.0)),
        y(point.quality + (point.spread or 0.0)),
    )
    caps = f"M{place(at - 3)} {place(low)}h6M{place(at - 3)} {place(high)}h6"
    d = f"M{place(at)} {place(low)}V{place(high)}{caps}"
    return tag("path", d=d, class_=f"bar s{slot(point.series)}", data_series=point.series)


def _stairs(best: Sequence[Point], x: Scale, y: Scale, box: Box) -> str:
    """What can be had at each cost: flat to the next better row, on to the right end."""
    corners: list[tuple[float, float]] = []
    for point in best:
        at = (x(point.cost), y(point.quality))
        if corners:
            corners.append((at[0], corners[-1][1]))
        corners.append(at)
    if corners:
        corners.append((box.x[1], corners[-1][1]))
    return path(corners)
