"""Axes, scales and marks of a plot, as SVG that needs no script to be read.

A plot is drawn in a box of its own units (`Box.width` by `Box.height`), which the page stretches to the width there is;
colours come from the page's style by the classes ``s0`` .. ``s7``, so that one drawing serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peftx.report.markup import Html, join, tag
from peftx.report.palette import shape, slot

__all__ = ["Box", "Scale", "axes", "drawing", "mark", "path", "place", "ticks"]


@dataclass(frozen=True, slots=True)
class Box:
    """The size of a drawing and the margins around its plot."""

    width: float = 400.0
    height: float = 280.0
    left: float = 46.0
    right: float = 14.0
    top: float = 24.0
    bottom: float = 34.0

    @property
    def x(self) -> tuple[float, float]:
        """Left and right end of the plot."""
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[float, float]:
        """Bottom and top end of the plot: upwards is more."""
        return self.height - self.bottom, self.top


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` onto places from `start` to `end`, linear or logarithmic; `unit` is the size of the
    unit its ticks count in (1024 for KiB)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    unit: float = 1.0

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        ends: tuple[float, float],
        *,
        log: bool = False,
        unit: float = 1.0,
        pad: float = 0.06,
    ) -> Scale:
        """A scale that shows all values with some room on both sides. A logarithmic one needs positive values."""
        known = [value for value in values if not log or value > 0] or [1.0]
        low, high = min(known), max(known)
        if log:
            low, high = math.log(low), math.log(high)
        room = (high - low) * pad or (0.5 if log else abs(high) * 0.05 or 0.5)
        low, high = low - room, high + room
        if not log and min(known) >= 0 > low:
            low = 0.0
        if log:
            low, high = math.exp(low), math.exp(high)
        return cls(low, high, *ends, log, unit)

    def __call__(self, value: float) -> float:
        """The place of a value."""
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the scale, in its unit."""
        return [
            value * self.unit for value in ticks(self.low / self.unit, self.high / self.unit, most, self.log)
        ]

    def label(self, value: float) -> str:
        """A tick as text: 0.25, 20, 5k, 1.5M."""
        number = value / self.unit
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(number) >= size:
                return f"{number / size:g}{letter}"
        return f"{number:.4g}" if abs(number) >= 1e-4 or not number else f"{number:.0e}"


def ticks(low: float, high: float, most: int = 6, log: bool = False) -> list[float]:
    """About `most` round values from low to high: 1, 2 or 5 times a power of ten apart; on a logarithmic
    axis whole decades, or 1-2-5 where there are few of them."""
    if log:
        for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
            exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            stride = max(1, math.ceil(len(exponents) / most))
            found = [s * 10.0**e for e in exponents[::stride] for s in steps if low <= s * 10.0**e <= high]
            if len(found) >= 3:
                return found
    span = high - low
    if not span > 0:
        return [low]
    raw = span / max(1, most - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    # the nearest on a logarithmic scale: borders at the square roots of 2, 10 and 50
    step = size * next(
        nice for nice, border in ((1, 2), (2, 10), (5, 50), (10, math.inf)) if (raw / size) ** 2 < border
    )
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def axes(box: Box, x: Scale, y: Scale, x_label: str, y_label: str) -> Html:
    """Grid lines, ticks and names of both axes; the name of y stands on top, that of x on the right."""
    bottom, _ = box.y
    left, right = box.x
    parts: list[Html] = []
    for value in y.ticks(6):
        at = place(y(value))
        parts.append(tag("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", y.label(value), x=left - 7, y=at, dy="0.32em", class_="tick end"))
    for value in x.ticks(6):
        at = place(x(value))
        parts.append(tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", x.label(value), x=at, y=bottom + 16, class_="tick mid"))
    parts.append(tag("line", x1=left, x2=right, y1=place(bottom), y2=place(bottom), class_="axis"))
    parts.append(tag("text", x_label, x=right, y=box.height - 3, class_="label end"))
    if y_label:
        parts.append(tag("text", y_label, x=2, y=11, class_="label"))
    return tag("g", *parts, aria_hidden="true")


def drawing(box: Box, title: str, description: str, *parts: object, **values: object) -> Html:
    """A whole plot: `title` is what it is called, `description` what it shows, for readers who do not see it."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        viewBox=f"0 0 {box.width:g} {box.height:g}",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
        **values,
    )


def mark(series: int, x: float, y: float, size: float = 5.0, tip: str = "", **values: object) -> Html:
    """The mark of a series at a place, in its colour and shape; `tip` is shown when it is pointed at."""
    d = SHAPES_D[shape(series)]
    classes = f"mark s{slot(series)} {values.pop('class_', '')}".strip()
    return tag(
        "path",
        tag("title", tip) if tip else None,
        d=d,
        transform=f"translate({place(x)} {place(y)}) scale({size:g})",
        class_=classes,
        data_series=series,
        **values,
    )


def path(points: Sequence[tuple[float, float]]) -> str:
    """The `d` of a line through places, with tenths."""
    return "".join(f"{'L' if i else 'M'}{place(x)} {place(y)}" for i, (x, y) in enumerate(points))


def place(value: float) -> str:
    """A place in tenths of a unit: finer than any screen shows at this size."""
    return f"{value:.1f}".removesuffix(".0")


#: Outlines of area about 3 in a box of two units, so that no shape looks larger than another.
SHAPES_D = {
    "circle": "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z",
    "square": "M-.9-.9H.9V.9H-.9Z",
    "diamond": "M0-1.25L1.25 0L0 1.25L-1.25 0Z",
    "up": "M0-1.2L1.15.85H-1.15Z",
    "down": "M0 1.2L1.15-.85H-1.15Z",
    "plus": "M-.4-1.15H.4V-.4H1.15V.4H.4V1.15H-.4V.4H-1.15V-.4H-.4Z",
    "cross": "M-.53-1.1L0-.57L.53-1.1L1.1-.53L.57 0L1.1.53L.53 1.1L0 .57L-.53 1.1L-1.1.53L-.57 0L-1.1-.53Z",
}


def swatch(series: int) -> Html:
    """A series' mark by itself, for legends and tables."""
    return tag(
        "svg", join([mark(series, 7, 7, 4.6)]), viewBox="0 0 14 14", class_="swatch", aria_hidden="true"
    )
