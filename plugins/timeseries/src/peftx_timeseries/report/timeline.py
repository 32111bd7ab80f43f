"""Lines over the rows of a series, with times on the axis: what the page of a run and a picture of a forecast share.

Torch-free and numpy-free. A row is a whole number, its place on the axis; ticks are rows with a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from peftx.report.figures import finite
from peftx.report.markup import Html, tag
from peftx.report.palette import slot
from peftx.report.svg import Box, Scale, drawing, path, place, ticks

__all__ = ["Line", "chart", "points_of", "row_ticks", "thinned", "time_ticks"]

Point = tuple[float, float]

#: Of longer series so many times are looked at to find ticks.
_LOOKED_AT = 4000
#: From coarse to fine: the stretch of time that a moment lies in, and how its beginning is written.
_STRETCHES: tuple[tuple[Callable[[datetime], int], str], ...] = (
    *((lambda t, n=n: t.year // n, "%Y") for n in (100, 50, 20, 10, 5, 2, 1)),
    *((lambda t, n=n: (12 * t.year + t.month - 1) // n, "%Y-%m") for n in (6, 3, 2, 1)),
    *((lambda t, n=n: (t.toordinal() - 1) // n, "%Y-%m-%d") for n in (14, 7, 2, 1)),
    *((lambda t, n=n: (24 * t.toordinal() + t.hour) // n, "%m-%d %H:%M") for n in (12, 6, 3, 1)),
    *((lambda t, n=n: (1440 * t.toordinal() + 60 * t.hour + t.minute) // n, "%H:%M") for n in (30, 15, 5, 1)),
    *((lambda t, n=n: (86400 * t.toordinal() + 3600 * t.hour + 60 * t.minute + t.second) // n, "%H:%M:%S")
      for n in (30, 15, 5, 1)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: pieces of (row, value), which are not joined, and a band of (row, low, high) below it.

    `series` is the colour, None for that of the text; `tip` is shown when the line is pointed at; `strong` and `dashed`
    say how it is drawn.
    """

    name: str
    pieces: Sequence[Sequence[Point]]
    series: int | None = None
    bands: Sequence[Sequence[tuple[float, float, float]]] = ()
    tips: Sequence[str] = field(default=())
    strong: bool = False
    dashed: bool = False


def time_ticks(times: Sequence[datetime], first: int = 0, most: int = 5) -> list[tuple[int, str]]:
    """About `most` rows at which a year, month, day, hour and so on begins, the first time standing at row `first`."""
    stride = max(1, len(times) // _LOOKED_AT)
    rows = range(0, len(times), stride)
    found: list[tuple[int, str]] = []
    for key, written in _STRETCHES:
        begins = [
            (first + row, times[row].strftime(written))
            for row, before in zip(rows[1:], rows, strict=False)
            if key(times[row]) != key(times[before])
        ]
        if len(begins) > most:
            break
        found = begins
    if len(found) >= 2 or len(times) < 2:
        return found
    written = "%Y-%m-%d" if (times[-1] - times[0]).days > 3 else "%m-%d %H:%M"
    places = [round(at * (len(times) - 1) / 2) for at in range(3)]
    return [(first + row, times[row].strftime(written)) for row in dict.fromkeys(places)]


def row_ticks(first: int, last: int, most: int = 5) -> list[tuple[int, str]]:
    """Round numbers of rows, where rows have no times."""
    return [(int(row), f"{int(row):,}") for row in ticks(first, last, most) if float(row).is_integer()]


def thinned(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(at * (count - 1) / (most - 1)) for at in range(most)})


def points_of(rows: Any, values: Any) -> list[list[Point]]:
    """Rows and values of a file as pieces of a line: a value that is none ends a piece, and what is no list is none."""
    pieces: list[list[Point]] = [[]]
    pairs = zip(rows, values, strict=False) if isinstance(rows, list) and isinstance(values, list) else ()
    for row, value in pairs:
        x, y = finite(row), finite(value)
        if x is None or y is None:
            if pieces[-1]:
                pieces.append([])
        else:
            pieces[-1].append((x, y))
    return [piece for piece in pieces if piece]


def chart(
    box: Box,
    lines: Sequence[Line],
    marks: Sequence[tuple[int, str]],
    title: str,
    label: str,
    *,
    origins: Sequence[float] = (),
    zero: bool = False,
    below: str = "",
    **values: Any,
) -> Html | None:
    """The lines over rows, later ones on top; None where there is nothing to draw.

    `marks`: rows with a text on the axis. `origins`: rows in front of which a forecast begins, as upright lines.
    `zero`: the axis begins at nothing. `below`: what the rows are.
    """
    drawn = [point for line in lines for piece in line.pieces for point in piece]
    if not drawn:
        return None
    bounds = [end for line in lines for band in line.bands for _, low, high in band for end in (low, high)]
    rows = [x for x, _ in drawn] + [at for line in lines for band in line.bands for at, _, _ in band]
    x = Scale(min(rows), max(max(rows), min(rows) + 1), *box.x)
    y = Scale.over([*(v for _, v in drawn), *bounds, *([0.0] if zero else [])], box.y)
    parts = [_axes(box, x, y, marks, label, below)]
    bottom, top = box.y
    for at in origins:
        here = place(x(at - 0.5))
        parts.append(tag("line", x1=here, x2=here, y1=place(bottom), y2=place(top), class_="grid"))
    parts += [_line(line, x, y) for line in lines]
    said = "; ".join(f"{line.name}: {sum(map(len, line.pieces)):,} points" for line in lines)
    return drawing(box, title, f"{label} over rows. {said}.", *parts, **values)


def _line(line: Line, x: Scale, y: Scale) -> Html:
    colour = "var(--ink)" if line.series is None else "var(--s)"
    style = f"fill:none;stroke:{colour};stroke-width:{1.9 if line.strong else 1};stroke-linejoin:round"
    style += ";stroke-dasharray:4 3" if line.dashed else ""
    parts: list[Html] = []
    for band in line.bands:
        if len(band) == 1:  # a single row has no width
            (at, low, high) = band[0]
            d = path([(x(at), y(low)), (x(at), y(high))])
            parts.append(tag("path", d=d, style=f"stroke:{colour};stroke-width:6;opacity:.22"))
            continue
        around = [(x(at), y(high)) for at, _, high in band] + [
            (x(at), y(low)) for at, low, _ in reversed(band)
        ]
        parts.append(tag("path", d=path(around) + "Z", style=f"fill:{colour};opacity:.22"))
    for number, piece in enumerate(line.pieces):
        tip = tag("title", line.tips[number]) if number < len(line.tips) else tag("title", line.name)
        if len(piece) == 1:
            cx, cy = place(x(piece[0][0])), place(y(piece[0][1]))
            parts.append(tag("circle", tip, cx=cx, cy=cy, r=2.2, style=f"fill:{colour}"))
        else:
            parts.append(tag("path", tip, d=path([(x(a), y(b)) for a, b in piece]), style=style))
    return tag("g", *parts, class_=None if line.series is None else f"s{slot(line.series)}")


def _axes(box: Box, x: Scale, y: Scale, marks: Sequence[tuple[int, str]], label: str, below: str) -> Html:
    bottom, _ = box.y
    left, right = box.x
    parts: list[Html] = []
    for value in y.ticks(5):
        height = place(y(value))
        parts.append(tag("line", x1=left, x2=right, y1=height, y2=height, class_="grid"))
        parts.append(tag("text", y.label(value), x=left - 7, y=height, dy="0.32em", class_="tick end"))
    taken = -1e9
    for row, text in marks:
        at = x(row)
        width = 6.4 * len(text)
        # a text that would run into the one before, or out of the drawing, is left out
        if not left <= at <= right or at - width / 2 < taken + 8 or at + width / 2 > box.width:
            continue
        taken = at + width / 2
        parts.append(tag("line", x1=place(at), x2=place(at), y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(tag("text", text, x=place(at), y=bottom + 16, class_="tick mid"))
    parts.append(tag("line", x1=left, x2=right, y1=place(bottom), y2=place(bottom), class_="axis"))
    if below:
        parts.append(tag("text", below, x=right, y=box.height - 3, class_="label end"))
    if label:
        parts.append(tag("text", label, x=2, y=11, class_="label"))
    return tag("g", *parts, aria_hidden="true")
