"""Scores as marks on a line: a row for each method, a common axis, single seeds and their mean.

The strip stretches to the width there is and its text does not: places are in per cent, so that a phone shows the same
axis with the same letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftx.report.figures import DASH, exact, score
from peftx.report.markup import Html, tag
from peftx.report.palette import shape, slot
from peftx.report.svg import SHAPES_D, Scale, swatch

__all__ = ["Strip", "strips"]


@dataclass(frozen=True, slots=True)
class Strip:
    """One row: `values` with what each is called (``seed 0``), their mean, and the text on the right. `series` is None
    for a published figure, which has a hollow mark."""

    name: str
    values: Sequence[tuple[str, float]]
    mean: float | None
    text: str
    series: int | None = None
    own: bool = False
    note: str = ""


def strips(rows: Sequence[Strip], *, metric: str, unit: str = "", label: str = "") -> Html:
    """The rows over one axis; a row without values says why in its `note`."""
    values = [value for row in rows for _, value in row.values] + [r.mean for r in rows if r.mean is not None]
    scale = Scale.over(values, (0.0, 100.0), pad=0.06)
    marks = scale.ticks(5)
    lines = [_row(row, scale, marks, metric, unit) for row in rows]
    named = f"{metric}{f' ({unit})' if unit else ''}"
    return tag(
        "div",
        *lines,
        _axis(scale, marks, named),
        class_="strips",
        role="group",
        aria_label=label or f"{named} by method",
    )


def _row(row: Strip, scale: Scale, marks: Sequence[float], metric: str, unit: str) -> Html:
    grid = [_line(scale(value), "grid") for value in marks]
    classes = f"s{slot(row.series)}" if row.series is not None else "published"
    dots = [_dot(row, name, value, scale, metric, unit) for name, value in row.values]
    mean = None
    if row.mean is not None and len(row.values) > 1:
        mean = _line(
            scale(row.mean), "mean", f"{row.name}: mean {score(row.mean, unit)} of {len(row.values)}"
        )
    description = ", ".join(f"{name} {score(value, unit)}" for name, value in row.values) or row.note or DASH
    drawing = tag(
        "svg",
        tag("title", f"{row.name}: {metric}"),
        tag("desc", description),
        *grid,
        mean,
        *dots,
        role="img",
        class_="strip",
    )
    name = tag(
        "span",
        swatch(row.series) if row.series is not None else tag("span", class_="swatch"),
        tag("span", row.name, title=row.name, class_="text"),
        class_="who own" if row.own else "who",
    )
    value = tag(
        "span", row.text, class_="value", data_value=exact(row.mean) or None, title=exact(row.mean) or None
    )
    attributes = {"data_series": row.series} if row.series is not None else {}
    return tag(
        "div",
        name,
        drawing,
        value,
        class_=f"strip-row {classes}{' many' if len(row.values) > 1 else ''}",
        **attributes,
    )


def _dot(row: Strip, name: str, value: float, scale: Scale, metric: str, unit: str) -> Html:
    """A nested drawing is what can be placed in per cent and still have a shape of its own."""
    d = SHAPES_D[shape(row.series)] if row.series is not None else SHAPES_D["diamond"]
    tip = f"{row.name}\n{name}: {metric} {score(value, unit)}{f' {unit}' if unit else ''}"
    inner = tag("path", tag("title", tip), d=d, transform="scale(5)", class_="mark")
    return tag("svg", inner, x=f"{scale(value):.2f}%", y="50%", overflow="visible", width=1, height=1)


def _line(at: float, kind: str, tip: str = "") -> Html:
    x = f"{at:.2f}%"
    return tag("line", tag("title", tip) if tip else None, x1=x, x2=x, y1="0", y2="100%", class_=kind)


def _axis(scale: Scale, marks: Sequence[float], named: str) -> Html:
    texts = [
        tag("text", scale.label(value), x=f"{scale(value):.2f}%", y=14, class_="tick mid") for value in marks
    ]
    axis = tag("svg", *texts, class_="strip axis", aria_hidden="true")
    return tag(
        "div",
        tag("span", f"{named} →", class_="who label"),
        axis,
        tag("span", class_="value"),
        class_="strip-row",
    )
