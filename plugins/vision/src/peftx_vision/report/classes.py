"""The panel of the vision pack on the page of a run: which classes are taken for which others.

Torch-free: it reads the counts that classification leaves in details.json, up to 200 classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peftx.report import Panel, RunSource
from peftx.report.markup import Html, join, tag
from peftx.report.parts import Field, reveal, table, views
from peftx.report.svg import place

__all__ = ["Confusion", "confusion"]

#: Up to as many classes each cell is drawn with its count and name; beyond, the cells are too small for letters.
NAMED = 20
#: Rows of a table of the hardest classes and of the most frequent confusions.
WORST = 10
#: Shades of a matrix of many classes: cells of one shade are one path, so that 100 classes do not take megabytes.
SHADES = 8

Matrix = list[list[int]]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of one classifier. `matrix[t][p]`: samples of class t that were taken for class p."""

    classes: tuple[str, ...]
    matrix: Matrix

    def total(self, true: int) -> int:
        """Samples of a class."""
        return sum(self.matrix[true])

    def recall(self, true: int) -> float | None:
        """Share (%) of a class's samples that were recognised; None for a class without samples."""
        total = self.total(true)
        return 100 * self.matrix[true][true] / total if total else None

    def precision(self, predicted: int) -> float | None:
        """Share (%) of the samples taken for a class that are of it; None for a class nothing was taken for."""
        total = sum(row[predicted] for row in self.matrix)
        return 100 * self.matrix[predicted][predicted] / total if total else None

    def f1(self, held: int) -> float | None:
        """F1 (%) of a class, ``2 TP / (2 TP + FP + FN)``: the harmonic mean of its recall and precision; None for a
        class that has no samples and nothing was taken for."""
        hits, taken = self.matrix[held][held], sum(row[held] for row in self.matrix)
        both = self.total(held) + taken
        return 200 * hits / both if both else None

    def mistakes(self) -> list[tuple[int, int, int]]:
        """(true, predicted, count) of every confusion, the most frequent first."""
        size = range(len(self.classes))
        found = [(t, p, self.matrix[t][p]) for t in size for p in size if t != p and self.matrix[t][p]]
        return sorted(found, key=lambda one: (-one[2], one[0], one[1]))


def confusion(source: RunSource) -> Panel | None:
    """Confusion matrix and recall, precision and F1 of each class; None where a run left no counts.

    With up to 20 classes there is a view for every row of the run, with more for the run's own method alone.
    """
    found = [(name, held) for name in source.names if (held := _read(source, name)) is not None]
    if not found:
        return None
    if len(found[0][1].classes) > NAMED:
        found = found[:1]
    choices = [(name, _view(name, held)) for name, held in found]
    split = {"test": "test", "val": "validation"}[source.split]
    note = (
        f"On the {split} split, {found[0][0]} first. "
        if len(found) > 1
        else f"{found[0][0]} on the {split} split. "
    )
    note += "A cell's shade is its share of the true class; mistakes are shaded more strongly than hits, to be seen."
    return Panel("Classes", views(choices, "method"), note)


def _read(source: RunSource, name: str) -> Confusion | None:
    """A row's counts; None where there are none, or they are no square of whole numbers."""
    matrix = source.details.get(name, {}).get(source.split, {}).get("confusion")
    if not isinstance(matrix, list) or not matrix:
        return None
    if any(
        not isinstance(row, list) or len(row) != len(matrix) or any(not isinstance(n, int) for n in row)
        for row in matrix
    ):
        return None
    names = source.classes
    if len(names) != len(matrix):
        names = [str(index) for index in range(len(matrix))]
    return Confusion(tuple(names), matrix)


def _view(name: str, held: Confusion) -> Html:
    many = len(held.classes) > NAMED
    drawn = _shaded(name, held) if many else _named(name, held)
    order = list(range(len(held.classes)))
    if not many:
        return tag("div", drawn, tag("div", _class_table(held, order), _extremes(held)), class_="pair")
    hardest = sorted(order, key=lambda c: (100.0 if (r := held.recall(c)) is None else r, held.classes[c]))[
        :WORST
    ]
    side = tag(
        "div",
        tag("h3", f"{len(hardest)} classes with the lowest recall"),
        _class_table(held, hardest),
        _extremes(held),
        tag("h3", "Most frequent confusions"),
        _mistake_table(held),
    )
    return join(
        [
            tag("div", drawn, side, class_="pair"),
            reveal(f"All {len(order)} classes", _class_table(held, order)),
        ]
    )


def _class_table(held: Confusion, order: Sequence[int]) -> Html:
    fields = [
        Field("class", [held.classes[c] for c in order], "text"),
        Field("samples", [held.total(c) for c in order], "count"),
        Field(
            "recall",
            [held.recall(c) for c in order],
            "percent",
            "%",
            "share of its samples that were recognised",
        ),
        Field(
            "precision",
            [held.precision(c) for c in order],
            "percent",
            "%",
            "share of what was taken for it that is",
        ),
        Field(
            "F1",
            [held.f1(c) for c in order],
            "percent",
            "%",
            "harmonic mean of recall and precision",
        ),
        Field("taken most for", [_rival(held, c) for c in order], "text", missing=""),
    ]
    return table(fields, caption="recall, precision and F1 by class")


def _extremes(held: Confusion) -> Html | None:
    """The best and the worst class by F1, and the mean over classes, in a line; None where no class has one."""
    found = [(score, c) for c in range(len(held.classes)) if (score := held.f1(c)) is not None]
    if not found:
        return None
    best, worst = max(found, key=lambda one: (one[0], -one[1])), min(found)
    # a class without samples does not count in the mean
    present = [score for score, c in found if held.total(c)]
    told = f"Best F1: {held.classes[best[1]]} with {best[0]:.2f} %."
    told += f" Worst: {held.classes[worst[1]]} with {worst[0]:.2f} %."
    if present:
        told += f" Mean over the {len(present)} classes with samples (macro F1): {sum(present) / len(present):.2f} %."
    return tag("p", told, class_="note")


def _rival(held: Confusion, true: int) -> str:
    """The class a class is mistaken for most often, and how often."""
    others = [(count, -p) for p, count in enumerate(held.matrix[true]) if p != true and count]
    if not others:
        return ""
    count, place_ = max(others)
    return f"{held.classes[-place_]} ({count})"


def _mistake_table(held: Confusion) -> Html:
    found = held.mistakes()[:WORST]
    fields = [
        Field("true class", [held.classes[t] for t, _, _ in found], "text"),
        Field("taken for", [held.classes[p] for _, p, _ in found], "text"),
        Field("samples", [count for _, _, count in found], "count"),
        Field("of the class", [100 * count / held.total(t) for t, _, count in found], "percent", "%"),
    ]
    return table(fields, caption="most frequent confusions")


def _named(name: str, held: Confusion) -> Html:
    """The matrix with a count in each cell that has one, and the classes' names on both sides."""
    classes = [text if len(text) <= 14 else text[:13] + "…" for text in held.classes]
    count, longest = len(classes), max(len(text) for text in classes)
    cell = 52.0 if count <= 4 else 36.0 if count <= 10 else 24.0
    left, upright = 26 + 6.2 * longest, longest * 6.2 > cell - 4
    top, side = 20.0, cell * count
    below = 12 + 6.2 * longest if upright else 22.0
    parts: list[Html] = []
    for true, row in enumerate(held.matrix):
        total = held.total(true)
        y = top + true * cell
        parts.append(
            tag(
                "text",
                classes[true],
                x=place(left - 7),
                y=place(y + cell / 2),
                dy="0.32em",
                class_="tick end",
            )
        )
        for predicted, number in enumerate(row):
            if number:
                tip = (
                    f"{held.classes[true]} taken for {held.classes[predicted]}\n{number:,} of {total:,} "
                    f"({100 * number / total:.1f} %)"
                )
                parts.append(_cell(left + predicted * cell, y, cell, number, total, true == predicted, tip))
    for predicted, text in enumerate(classes):
        x, y = left + (predicted + 0.5) * cell, top + side + 15
        turn = f"rotate(-90 {place(x)} {place(top + side + 7)})" if upright else None
        where = {
            "x": place(x),
            "y": place(top + side + 7 if upright else y),
            "dy": "0.32em" if upright else None,
        }
        parts.append(tag("text", text, transform=turn, class_="tick end" if upright else "tick mid", **where))
    return _drawing(name, held, left + side + 4, top + side + below + 16, left, top, side, parts)


def _cell(x: float, y: float, size: float, number: int, total: int, hit: bool, tip: str) -> Html:
    rectangle = tag(
        "rect",
        x=place(x + 0.75),
        y=place(y + 0.75),
        width=place(size - 1.5),
        height=place(size - 1.5),
        rx=2,
        fill_opacity=f"{_strength(number, total, hit):.2f}",
        class_="hit" if hit else "miss",
    )
    text = tag(
        "text", f"{number}", x=place(x + size / 2), y=place(y + size / 2), dy="0.34em", class_="cell mid"
    )
    return tag("g", tag("title", tip), rectangle, text)


def _strength(number: int, total: int, hit: bool) -> float:
    """How strongly a cell is coloured: letters on it stay readable at the strongest."""
    share = number / total
    return 0.06 + 0.5 * share if hit else 0.12 + 0.6 * math.sqrt(share)


def _shaded(name: str, held: Confusion) -> Html:
    """The matrix of many classes without letters: a path for each shade."""
    count, left, top, side = len(held.classes), 40.0, 20.0, 400.0
    cell = side / count
    paths: dict[tuple[bool, int], list[str]] = {}
    for true, row in enumerate(held.matrix):
        total = held.total(true)
        for predicted, number in enumerate(row):
            if number:
                shade = math.ceil(
                    SHADES * (number / total if true == predicted else math.sqrt(number / total))
                )
                start = f"M{place(left + predicted * cell)} {place(top + true * cell)}"
                paths.setdefault((true == predicted, shade), []).append(
                    f"{start}h{cell:.2f}v{cell:.2f}h-{cell:.2f}z"
                )
    parts = [
        tag("path", d="".join(d), fill_opacity=f"{shade / SHADES:.2f}", class_="hit" if hit else "miss")
        for (hit, shade), d in sorted(paths.items())
    ]
    stride = next(step for step in (5, 10, 20, 25, 50) if count / step <= 10)
    for index in range(0, count, stride):
        at = (index + 0.5) * cell
        parts.append(tag("text", index, x=left - 6, y=place(top + at), dy="0.32em", class_="tick end"))
        parts.append(tag("text", index, x=place(left + at), y=top + side + 15, class_="tick mid"))
    return _drawing(name, held, left + side + 4, top + side + 38, left, top, side, parts)


def _drawing(
    name: str,
    held: Confusion,
    width: float,
    height: float,
    left: float,
    top: float,
    side: float,
    parts: list[Html],
) -> Html:
    hits = sum(row[c] for c, row in enumerate(held.matrix))
    total = sum(map(sum, held.matrix))
    worst = "; ".join(
        f"{held.classes[t]} taken for {held.classes[p]} {n} times" for t, p, n in held.mistakes()[:5]
    )
    frame = tag("rect", x=left, y=top, width=place(side), height=place(side), class_="frame")
    return tag(
        "svg",
        tag("title", f"Confusion matrix of {name}"),
        tag("desc", f"{hits} of {total} samples recognised. {worst or 'No sample was mistaken'}."),
        frame,
        tag("text", "true class ↓", x=2, y=11, class_="label", aria_hidden="true"),
        *parts,
        tag(
            "text",
            "predicted class →",
            x=place(width - 4),
            y=place(height - 4),
            class_="label end",
            aria_hidden="true",
        ),
        viewBox=f"0 0 {place(width)} {place(height)}",
        role="img",
        class_="plot",
        style=f"max-width:{place(width)}px",
    )
