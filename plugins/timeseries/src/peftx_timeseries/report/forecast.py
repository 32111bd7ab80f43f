"""A picture of a forecast: history, forecast and intervals of each channel in its own units, as one SVG without scripts
that follows the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from peftx.report.markup import Html, tag
from peftx.report.palette import sheet
from peftx.report.svg import Box, place
from peftx_timeseries.report.timeline import Line, Point, chart, row_ticks, time_ticks

__all__ = ["MOST", "Part", "picture"]

#: Channels in one picture, at most.
MOST = 24
#: Two beside each other where there are more than two.
WIDTH, HEIGHT, GAP, HEAD = 640.0, 230.0, 26.0, 44.0
_STYLE = (
    "svg{background:var(--paper);font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif}"
    "text{font-size:11px;fill:var(--quiet)}.head{font-size:15px;font-weight:600;fill:var(--ink)}"
    ".name{font-size:12px;fill:var(--ink)}.mid{text-anchor:middle}.end{text-anchor:end}"
    ".grid{stroke:var(--grid);stroke-width:1}.axis{stroke:var(--quiet);stroke-width:1;opacity:.6}"
)


@dataclass(frozen=True, slots=True)
class Part:
    """One channel of one series. `history`: (row, value) of what was observed, in pieces without missing values;
    `forecast`: what comes behind; `iterated`: from where on it goes by its own forecasts; `bands`: (row, low, high) of
    each interval, the narrowest first; `times`: of all rows from `first` on."""

    name: str
    history: Sequence[Sequence[Point]]
    forecast: Sequence[Point]
    iterated: Sequence[Point]
    bands: Sequence[Sequence[tuple[float, float, float]]]
    times: Sequence[datetime]
    first: int


def picture(title: str, below: str, parts: Sequence[Part]) -> Html:
    """The parts as small charts below a title and a line about them, the first `MOST` of them."""
    columns = 1 if len(parts) <= 2 else 2
    box = Box(width=WIDTH, height=HEIGHT, left=56, right=12, top=26, bottom=24)
    width = columns * WIDTH + (columns - 1) * GAP + 2 * GAP
    shown = parts[:MOST]
    lines = -(-len(shown) // columns)
    height = HEAD + GAP + lines * (HEIGHT + GAP)
    left = f", {len(shown)} of {len(parts)} channels" if len(parts) > len(shown) else ""
    drawn: list[Html] = [
        tag("text", title, x=GAP, y=30, class_="head"),
        tag("text", below + left, x=GAP, y=50),
    ]
    for at, part in enumerate(shown):
        row, column = divmod(at, columns)
        inner = _part(box, part)
        if inner is not None:
            x, y = GAP + column * (WIDTH + GAP), HEAD + GAP + row * (HEIGHT + GAP)
            drawn.append(tag("g", inner, transform=f"translate({place(x)} {place(y)})"))
    return tag(
        "svg",
        tag("title", title),
        tag("style", Html(sheet() + _STYLE)),
        tag("rect", width="100%", height="100%", style="fill:var(--paper)"),
        *drawn,
        viewBox=f"0 0 {place(width)} {place(height)}",
        width=place(width),
        height=place(height),
        xmlns="http://www.w3.org/2000/svg",
    )


def _part(box: Box, part: Part) -> Html | None:
    rows = [x for piece in part.history for x, _ in piece] + [x for x, _ in (*part.forecast, *part.iterated)]
    marks = (
        time_ticks(part.times, part.first, 6) if part.times else row_ticks(int(min(rows)), int(max(rows)), 6)
    )
    joined = [part.forecast[-1], *part.iterated] if part.forecast and part.iterated else part.iterated
    lines = [
        Line("observed", part.history),
        Line("forecast", [part.forecast] if part.forecast else [], 0, part.bands, strong=True),
        Line("forecast from forecasts", [joined] if joined else [], 0, strong=True, dashed=True),
    ]
    begins = [part.forecast[0][0]] if part.forecast else []
    return chart(
        box,
        lines,
        marks,
        part.name,
        part.name,
        origins=begins,
        width=place(box.width),
        height=place(box.height),
    )
