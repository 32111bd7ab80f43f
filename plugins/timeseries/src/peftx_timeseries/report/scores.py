"""The panel of anomaly detection on the page of a run: scores over time beside what is true, and which kinds are found.

Torch-free: it reads what the task leaves in details.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from peftx.report import Panel, RunSource
from peftx.report.figures import finite
from peftx.report.markup import Html, tag
from peftx.report.palette import slot
from peftx.report.parts import Field, figure, table, views
from peftx.report.results_table import named
from peftx.report.svg import Box, Scale, axes, drawing, path, place

__all__ = ["scores"]

#: As wide as the page; scrolls on a narrow one, where its letters would be too small.
BOX = Box(width=1160, height=230, left=52, right=12, top=24, bottom=34)
#: Scores below this share of the highest are drawn at the bottom.
LOWEST = 1e-5

Table = Mapping[str, Any]


def scores(source: RunSource) -> Panel | None:
    """A drawing for each row that was scored on labelled data, and how many anomalous rows of each kind raised an
    alarm; None where no row was."""
    held = {
        name: found
        for name in source.names
        if isinstance(found := source.details.get(name, {}).get("test", {}).get("anomaly"), Mapping)
    }
    drawn = [
        (name, one)
        for name, found in held.items()
        if (one := _drawing(name, source.names.index(name), found)) is not None
    ]
    if not drawn:
        return None
    kinds = _kinds(source, held)
    note = (
        "The highest score of each piece of time, on a logarithmic axis. Shaded: rows labelled as anomalous. Dashed: "
        "the threshold; what is above it raises an alarm. Point-adjusted figures count a whole shaded stretch as found "
        "when a single row of it raises an alarm."
    )
    body = tag("div", figure("Scores of the test rows", views(drawn, "method")), kinds, class_="sheets")
    return Panel("Scores over time", body, note)


def _drawing(name: str, series: int, found: Table) -> Html | None:
    curve = found.get("curve")
    if not isinstance(curve, Mapping):
        return None
    rows, values, marked = (_numbers(curve.get(key)) for key in ("row", "score", "anomalous"))
    total = next(iter(_numbers(curve.get("rows"))), 0.0)
    if not values or not len(rows) == len(values) == len(marked) or not max(values) > 0:
        return None
    threshold = finite(found.get("threshold"))
    low = max(values) * LOWEST
    shown = [max(value, low) for value in values]
    x = Scale(0.0, max(total, rows[-1] + 1), *BOX.x)
    y = Scale.over(
        [*shown, *([threshold] if threshold is not None and threshold > 0 else [])], BOX.y, log=True
    )
    bottom, top = BOX.y
    ends = [*rows[1:], max(total, rows[-1] + 1)]
    shades = [
        tag(
            "rect",
            tag("title", f"labelled anomalous: row {begin + 1:,.0f} to about {end:,.0f}"),
            x=place(x(begin)),
            y=place(top),
            width=place(max(x(end) - x(begin), 1.0)),
            height=place(bottom - top),
            style="fill:var(--ink);opacity:.13",
        )
        for begin, end in _stretches(rows, ends, marked)
    ]
    line = tag(
        "g",
        tag(
            "path",
            tag("title", name),
            d=path([(x((a + b) / 2), y(value)) for a, b, value in zip(rows, ends, shown, strict=True)]),
            class_="line",
        ),
        class_=f"s{slot(series)}",
    )
    limit = None
    if threshold is not None and threshold > 0:
        at = place(y(threshold))
        limit = tag(
            "line",
            tag("title", f"threshold {threshold:.4g}"),
            x1=BOX.x[0],
            x2=BOX.x[1],
            y1=at,
            y2=at,
            style="stroke:var(--ink);stroke-width:1;stroke-dasharray:5 4",
        )
    over = sum(value > threshold for value in values) if threshold is not None else 0
    plot = drawing(
        BOX,
        f"Scores of {name}",
        f"Scores of {total:,.0f} test rows in {len(values)} pieces of time, {over} of them above the threshold; "
        f"{len(shades)} stretches are labelled anomalous.",
        *shades,
        axes(BOX, x, y, "row →", "↑ score"),
        line,
        limit,
        class_="plot",
        style="min-width:820px",
    )
    return tag("div", plot, class_="scroll")


def _stretches(
    rows: Sequence[float], ends: Sequence[float], marked: Sequence[float]
) -> list[tuple[float, float]]:
    """First row of each run of pieces with an anomalous row in them, and the one behind its last."""
    pieces = list(zip(rows, ends, [share > 0 for share in marked], strict=True))
    runs = [list(run) for is_marked, run in groupby(pieces, key=lambda piece: piece[2]) if is_marked]
    return [(run[0][0], run[-1][1]) for run in runs]


def _kinds(source: RunSource, held: Mapping[str, Table]) -> Html | None:
    """A line for each row, a column for each kind: segments with an alarm, and the share of their rows."""
    found = {
        name: [one for one in one_held.get("kinds") or () if isinstance(one, Mapping)]
        for name, one_held in held.items()
    }
    names = list(dict.fromkeys(str(kind.get("kind")) for kinds in found.values() for kind in kinds))
    if not names:
        return None
    fields = [Field("method", [named(source, name) for name in found], "html")]
    for kind in names:
        own = [next((one for one in kinds if one.get("kind") == kind), {}) for kinds in found.values()]
        fields.append(
            Field(
                f"{kind}: segments with an alarm",
                [f"{one['segments_hit']} of {one['segments']}" if "segments" in one else None for one in own],
                "text",
            )
        )
        shares = [
            100 * flagged / rows
            if (rows := finite(one.get("rows"))) and (flagged := finite(one.get("rows_flagged"))) is not None
            else None
            for one in own
        ]
        fields.append(
            Field("rows", shares, "percent", "%", f"share of the rows of {kind} that raise an alarm")
        )
    return table(
        fields,
        rows=["own" if source.names.index(name) == 0 else "" for name in found],
        caption="alarms by kind of anomaly",
    )


def _numbers(value: Any) -> list[float]:
    found = [finite(one) for one in value] if isinstance(value, list) else []
    return [] if any(one is None for one in found) else [one for one in found if one is not None]
