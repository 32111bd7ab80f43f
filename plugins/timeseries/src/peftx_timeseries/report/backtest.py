"""The panel of a backtest on the page of a run: forecasts from origins all over the test rows, and where they fail.

Torch-free: it reads what forecasting leaves in samples.json and details.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftx.report import Panel, RunSource
from peftx.report.curves import Curve, plot
from peftx.report.figures import finite
from peftx.report.markup import Html, tag
from peftx.report.palette import slot
from peftx.report.parts import figure
from peftx.report.svg import Box
from peftx_timeseries.report.timeline import Line, chart, points_of

__all__ = ["NAIVE", "backtest"]

#: Rows that have nothing to learn: what a method has to beat.
NAIVE = tuple(f"timeseries.{name}" for name in ("repeat_last", "seasonal_naive", "window_mean", "naive2"))
#: A strip is as wide as the page, and scrolls on a narrow one, where its letters would be too small.
STRIP = Box(width=1160, height=200, left=52, right=12, top=8, bottom=24)
BOX = Box(bottom=26)

Table = Mapping[str, Any]


def backtest(source: RunSource) -> Panel | None:
    """Forecasts and values from evenly spaced origins, the error by origin, and by step beside the best naive row; None
    where the run left none of them."""
    method = next((name for name in source.names if source.samples.get(name)), None)
    split = source.split
    held: Table = {}
    if method is not None:
        split = "test" if "test" in source.samples[method] else "val"
        held = source.samples[method].get(split, {})
    strips = [one for one in _list(held.get("strips")) if isinstance(one, Mapping)]
    figures = [drawn for one in strips if (drawn := _strip(one)) is not None]
    errors = _errors(held.get("errors"), method or "")
    steps = _steps(source)
    rest = [one for one in (errors, steps) if one is not None]
    if not figures and not rest:
        return None
    body = tag(
        "div",
        *figures,
        tag("div", *rest, class_="plots", style="max-width:900px") if rest else None,
        class_="sheets",
    )
    return Panel("Rolling-origin backtest", body, _note(source, method, split, held, bool(figures)))


def _note(source: RunSource, method: str | None, split: str, held: Table, drawn: bool) -> str:
    where = {"test": "test", "val": "validation"}.get(split, split)
    if not drawn:
        return f"On the {where} split."
    numbers = [n for n in _list(held.get("drawn")) if isinstance(n, int)]
    what = "channels" if held.get("errors") else "series"
    shown = f", {numbers[0]} of {numbers[1]} {what}" if len(numbers) == 2 and numbers[0] < numbers[1] else ""
    text = (
        f"{method} on the {where} split{shown}: at each upright line it sees what lies before, and forecasts what "
        "comes behind. Thin line: observed; colour: forecast. In the units of the data; thinned to what a page can "
        "show."
    )
    first = next((one for one in _list(held.get("strips")) if isinstance(one, Mapping)), {})
    level = finite(first.get("level"))
    if level is not None:
        coverage = held.get("coverage")
        share = finite(coverage.get(f"{level:g}")) if isinstance(coverage, Mapping) else None
        text += f" Bands: intervals of nominal {level:.0%}" + (
            f", from the errors on validation; they hold {share:.1%} of the test values."
            if share is not None
            else "."
        )
    return text + " peftx report --no-samples leaves the values out, and --task.backtest 0 keeps none."


def _strip(one: Table) -> Html | None:
    """Values in the colour of the text, forecasts in that of the method."""
    forecasts = [f for f in _list(one.get("forecasts")) if isinstance(f, Mapping)]
    pieces, bands, tips, origins = [], [], [], []
    for forecast in forecasts:
        rows = forecast.get("rows")
        found = points_of(rows, forecast.get("values"))
        if not found:
            continue
        pieces += found
        origins.append(found[0][0][0])
        tips += [f"forecast from {forecast.get('origin') or f'row {found[0][0][0]:,.0f}'}"] * len(found)
        low, high = (points_of(rows, forecast.get(key)) for key in ("low", "high"))
        if len(low) == len(high) == 1 and len(low[0]) == len(high[0]):
            bands.append([(x, below, above) for (x, below), (_, above) in zip(low[0], high[0], strict=True)])
    name = f"{one.get('channel', '')}"
    drawn = chart(
        STRIP,
        [
            Line("forecast", pieces, 0, bands, tips, strong=True),
            Line("observed", points_of(one.get("rows"), one.get("values"))),
        ],
        _marks(one.get("ticks")),
        f"Backtest of {name}",
        "",
        origins=origins,
        class_="plot",
        style="min-width:1000px",
    )
    if drawn is None:
        return None
    series = str(one.get("series", ""))
    return figure(f"{name} of {series}" if series else name, tag("div", drawn, class_="scroll"))


def _errors(found: Any, method: str) -> Html | None:
    if not isinstance(found, Mapping):
        return None
    own = points_of(found.get("rows"), found.get("own"))
    naive = points_of(found.get("rows"), found.get("naive"))
    name = str(found.get("name", "naive"))
    drawn = chart(
        BOX,
        [Line(name, naive, None, dashed=True), Line(method, own, 0, strong=True)],
        _marks(found.get("ticks")),
        "Error by origin",
        "mse of standardised values",
        zero=True,
        class_="plot",
    )
    if drawn is None:
        return None
    both = [
        (a, b)
        for a, b in zip(_list(found.get("own")), _list(found.get("naive")), strict=False)
        if finite(a) is not None and finite(b) is not None
    ]
    won = sum(a < b for a, b in both)
    numbers = _list(found.get("channels"))
    of = f" of {numbers[0]} of {numbers[1]} channels" if len(numbers) == 2 and numbers[0] < numbers[1] else ""
    caption = (
        f"Mean over the rows{of} of a forecast, by its origin. Colour: {method}; dashed: {name}. It beats {name} at "
        f"{won} of {len(both)} origins."
    )
    return figure("Error by origin", drawn, caption)


def _steps(source: RunSource) -> Html | None:
    """The error of each step ahead: the run's own method, the best naive row, and the best of all others."""
    curves = {
        name: points
        for name in source.names
        if (points := _by_row(source.details.get(name, {}).get(source.split, {}).get("mse_by_row")))
    }
    if not source.names or source.names[0] not in curves:
        return None
    own = source.names[0]
    mean = {name: sum(y for _, y in points) / len(points) for name, points in curves.items()}
    naive = [name for name in curves if name in NAIVE and name != own]
    others = [name for name in curves if name not in (*NAIVE, own)]
    shown = [own, *(min(group, key=mean.__getitem__) for group in (naive, others) if group)]
    drawn = plot(
        [Curve(source.names.index(name), name, curves[name]) for name in shown],
        "Error by step",
        "mse of standardised values",
    )
    keys = [
        tag(
            "span",
            tag("strong", "— ", style="color:var(--s)"),
            name,
            class_=f"s{slot(source.names.index(name))}",
        )
        for name in shown
    ]
    legend = tag("p", *[part for key in keys for part in (key, " ")], class_="note")
    caption = "Step ahead against error: the method, the best naive row, and the best of the others."
    if naive:
        best = shown[1]
        pairs = list(zip(curves[own], curves[best], strict=False))
        won = sum(a[1] < b[1] for a, b in pairs)
        caption += f" It beats {best} at {won} of {len(pairs)} steps."
    return figure("Error by step", tag("div", legend, drawn), caption)


def _by_row(found: Any) -> list[tuple[float, float]]:
    return [
        (float(step), value) for step, one in enumerate(_list(found), 1) if (value := finite(one)) is not None
    ]


def _marks(found: Any) -> list[tuple[int, str]]:
    return [
        (int(one[0]), str(one[1]))
        for one in _list(found)
        if isinstance(one, list | tuple) and len(one) == 2 and finite(one[0]) is not None
    ]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
