"""Curves over the steps of training: loss, learning rate, validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftx.report.figures import finite, score
from peftx.report.markup import Html, tag
from peftx.report.palette import slot
from peftx.report.parts import figure, views
from peftx.report.series import smooth, thin
from peftx.report.source import RunSource
from peftx.report.svg import Box, Scale, axes, drawing, mark, path, place

__all__ = ["Curve", "curves", "plot"]

Point = tuple[float, float]
BOX = Box()


@dataclass(frozen=True, slots=True)
class Curve:
    """One row's points: (step, value). `ring`: a point to point out, with its text; `dots`: mark every point."""

    series: int
    name: str
    points: Sequence[Point]
    ring: Point | None = None
    ring_tip: str = ""
    dots: bool = False


def curves(source: RunSource) -> list[Html]:
    """Figures of the training: loss, validation, learning rate; those there is nothing of are left out."""
    found = [_loss(source), _validation(source), _rates(source)]
    return [one for one in found if one is not None]


def _loss(source: RunSource) -> Html | None:
    drawn = _steps(source, "loss")
    if not drawn:
        return None
    window = _window(drawn)
    unit = source.unit("loss")
    label = f"training loss{f' ({unit})' if unit else ''}"
    caption = "Loss of each step's batch."
    if window > 1:
        caption = f"Faint: each step's batch. Strong: mean over {window} steps."
    choices = [("linear", plot(drawn, "Training loss", label, window=window))]
    values = [y for curve in drawn for _, y in curve.points]
    if min(values) > 0:
        choices.append(("log", plot(drawn, "Training loss", label, log=True, window=window)))
    wide = len(choices) > 1 and max(values) > 30 * min(values)
    return figure("Training loss", views(choices, "scale of the loss", int(wide)), caption)


def _rates(source: RunSource) -> Html | None:
    drawn = _steps(source, "lr")
    if not drawn:
        return None
    return figure(
        "Learning rate",
        plot(drawn, "Learning rate", "learning rate"),
        "Peak and schedule as the optimizer used them.",
    )


def _validation(source: RunSource) -> Html | None:
    """Every validation metric as a view, the one that decides first."""
    metrics: dict[str, None] = {source.metric("val"): None}
    for name in source.names:
        for line in source.lines(name, "epoch"):
            # whole numbers are counts (samples, correct ones): they say nothing a share does not say better
            metrics.update(
                {k[4:]: None for k, v in line.items() if k.startswith("val_") and isinstance(v, float)}
            )
    choices: list[tuple[str, object]] = []
    for metric in metrics:
        drawn = [
            curve for i, name in enumerate(source.names) if (curve := _epochs(source, i, name, metric)).points
        ]
        if drawn:
            unit = source.unit(metric)
            label = f"validation {metric}{f' ({unit})' if unit else ''}"
            choices.append((metric, plot(drawn, f"Validation {metric}", label)))
    if not choices:
        return None
    caption = "After each epoch. A ring marks the epoch that was kept."
    return figure("Validation", views(choices, "validation metric"), caption)


def _epochs(source: RunSource, series: int, name: str, metric: str) -> Curve:
    row = next((row for row in source.rows if row.get("method") == name), {})
    best, points, ring = row.get("best_epoch"), [], None
    for line in source.lines(name, "epoch"):
        x, y = finite(line.get("step")), finite(line.get(f"val_{metric}"))
        if x is None or y is None:
            continue
        points.append((x, y))
        if line.get("epoch") == best:
            ring = (x, y)
    tip = f"{name}: epoch {best}, {metric} {score(ring[1], source.unit(metric))}" if ring else ""
    return Curve(series, name, points, ring, tip, dots=True)


def _steps(source: RunSource, key: str) -> list[Curve]:
    found = []
    for series, name in enumerate(source.names):
        points = [
            (x, y)
            for line in source.lines(name, "step")
            if (x := finite(line.get("step"))) is not None and (y := finite(line.get(key))) is not None
        ]
        if points:
            found.append(Curve(series, name, points))
    return found


def _window(drawn: Sequence[Curve]) -> int:
    """Steps to take a mean over: a thirtieth of the training, odd, one for a short one."""
    longest = max(len(curve.points) for curve in drawn)
    return 1 if longest < 60 else longest // 30 | 1


def plot(drawn: Sequence[Curve], title: str, label: str, *, log: bool = False, window: int = 1) -> Html:
    """The curves over steps, each thinned to 400 points. A script reads the values of ``data-points`` to say what is
    under the pointer."""
    shown = [(curve, thin([p for p in curve.points if not log or p[1] > 0])) for curve in drawn]
    shown = [(curve, points) for curve, points in shown if points]
    x = Scale.over((px for _, points in shown for px, _ in points), BOX.x, pad=0.02)
    y = Scale.over((py for _, points in shown for _, py in points), BOX.y, log=log)
    lines: list[Html] = []
    for curve, points in reversed(shown):  # the run's own method is drawn last, on top
        places = [(x(px), y(py)) for px, py in points]
        marks = (
            [mark(curve.series, px, py, 2.6) for px, py in places] if curve.dots and len(places) <= 60 else []
        )
        raw = tag("path", d=path(places), class_="line faint" if window > 1 else "line")
        strong = None
        if window > 1:
            mean = [p for p in smooth(curve.points, window) if not log or p[1] > 0]
            mean = mean[:: max(1, len(mean) // 200)] + mean[-1:]
            strong = tag("path", d=path([(x(px), y(py)) for px, py in mean]), class_="line")
        ring = None
        if curve.ring is not None and not (log and curve.ring[1] <= 0):
            ring = tag(
                "circle",
                tag("title", curve.ring_tip),
                cx=place(x(curve.ring[0])),
                cy=place(y(curve.ring[1])),
                r=7,
                class_="ring",
            )
        lines.append(
            tag(
                "g",
                raw,
                strong,
                *marks,
                ring,
                class_=f"curve s{slot(curve.series)}",
                data_series=curve.series,
                data_name=curve.name,
                data_points=" ".join(f"{px:.10g},{py:.6g}" for px, py in points),
            )
        )
    return drawing(
        BOX,
        title,
        _describe(drawn, label),
        axes(BOX, x, y, "step →", f"↑ {label}"),
        *lines,
        class_="plot cross",
        data_x=f"{x.low:.9g} {x.high:.9g} {x.start:g} {x.end:g}",
    )


def _describe(drawn: Sequence[Curve], label: str) -> str:
    parts = [
        f"{curve.name} from {curve.points[0][1]:.4g} to {curve.points[-1][1]:.4g} in {len(curve.points)} points"
        for curve in drawn
        if curve.points
    ]
    return f"{label} by step: " + "; ".join(parts)
