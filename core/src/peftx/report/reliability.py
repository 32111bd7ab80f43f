"""Calibration: how often a classifier is right when it says how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftx.report.figures import finite
from peftx.report.markup import Html, join, tag
from peftx.report.palette import slot
from peftx.report.source import mapping, sequence
from peftx.report.svg import Box, Scale, drawing, place

__all__ = ["bins", "diagram", "wilson"]

BOX = Box(width=300, height=330, left=40, right=10, top=24, bottom=92)
COUNTS = (282.0, 252.0)  # bottom and top of the counts, under the plot


def wilson(right: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson (1927): where the true share may lie when `right` of `n` came out."""
    if n <= 0:
        return 0.0, 1.0
    share = min(1.0, max(0.0, right / n))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bins(details: Mapping[str, Any]) -> list[tuple[float, float, int, float, float]]:
    """The bins that hold anything: (lower edge, upper edge, count, mean confidence, accuracy)."""
    table = mapping(details.get("reliability"))
    edges, counts = sequence(table.get("edges")), sequence(table.get("count"))
    confidence, accuracy = sequence(table.get("confidence")), sequence(table.get("accuracy"))
    found = []
    for low, high, count, c, a in zip(edges, edges[1:], counts, confidence, accuracy, strict=False):
        numbers = [finite(v) for v in (low, high, count, c, a)]
        if None not in numbers and numbers[2]:
            low, high, count, c, a = (float(v or 0.0) for v in numbers)
            found.append((low, high, int(count), c, a))
    return found


def diagram(details: Mapping[str, Any], name: str, series: int) -> Html | None:
    """A reliability diagram with the number of samples in each bin below; None without bins."""
    found = bins(details)
    if not found:
        return None
    x, y = Scale(0.0, 1.0, *BOX.x), Scale(0.0, 1.0, *BOX.y)
    most = max(count for _, _, count, _, _ in found)
    counted = Scale(0.0, float(most), *COUNTS)
    columns = [_column(one, x, y, counted) for one in found]
    total = sum(count for _, _, count, _, _ in found)
    text = "; ".join(f"{low:.2f} to {high:.2f}: {a:.3f} right of {n}" for low, high, n, _, a in found)
    return drawing(
        BOX,
        f"Reliability of {name}",
        f"Accuracy by confidence for {total} samples: {text}",
        _frame(x, y, most),
        tag("g", *columns, class_=f"s{slot(series)}"),
        class_="plot",
    )


def _column(one: tuple[float, float, int, float, float], x: Scale, y: Scale, counted: Scale) -> Html:
    low, high, count, confidence, accuracy = one
    left, width = x(low) + 0.7, max(1.0, x(high) - x(low) - 1.4)
    down, up = wilson(accuracy * count, count)
    at = x(confidence)
    tip = (
        f"confidence {low:.3f} to {high:.3f}\n{count:,} sample{'s' if count != 1 else ''}\n"
        f"mean confidence {confidence:.4f}\naccuracy {accuracy:.4f}\n95 % interval {down:.3f} to {up:.3f}"
    )
    bottom = COUNTS[0]
    return tag(
        "g",
        tag("title", tip),
        _rectangle(left, y(accuracy), width, y(0.0) - y(accuracy), "bin"),
        tag("path", d=f"M{place(at)} {place(y(down))}V{place(y(up))}", class_="bar"),
        tag("circle", cx=place(at), cy=place(y(accuracy)), r=3.4, class_="mark"),
        _rectangle(left, counted(count), width, bottom - counted(count), "count"),
    )


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> Html:
    return tag(
        "rect", x=place(x), y=place(y), width=place(width), height=place(max(height, 0.8)), class_=kind
    )


def _frame(x: Scale, y: Scale, most: int) -> Html:
    left, right = BOX.x
    parts: list[Html] = [tag("text", "↑ accuracy", x=2, y=11, class_="label")]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = place(y(value))
        parts.append(tag("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", f"{value:g}", x=left - 6, y=at, dy="0.32em", class_="tick end"))
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(tag("text", f"{value:g}", x=place(x(value)), y=COUNTS[0] + 15, class_="tick mid"))
    diagonal = f"M{place(x(0))} {place(y(0))}L{place(x(1))} {place(y(1))}"
    parts.append(tag("path", d=diagonal, class_="front"))
    for height in (COUNTS[0], BOX.y[0]):
        parts.append(tag("line", x1=left, x2=right, y1=place(height), y2=place(height), class_="axis"))
    parts.append(tag("text", f"{most:,}", x=left - 6, y=COUNTS[1], dy="0.7em", class_="tick end"))
    parts.append(tag("text", "0", x=left - 6, y=COUNTS[0], class_="tick end"))
    parts.append(tag("text", "samples", x=left + 4, y=COUNTS[1] + 4, class_="label"))
    parts.append(tag("text", "confidence →", x=right, y=BOX.height - 6, class_="label end"))
    return tag("g", join(parts), aria_hidden="true")
