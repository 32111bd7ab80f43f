"""Names beside marks that neither cover a mark nor each other."""

from __future__ import annotations

from collections.abc import Sequence

from peftx.report.svg import Box

__all__ = ["place_labels"]

SIZE = 11.0
#: Mean width of a letter of a sans-serif face, in heights: names are Latin letters, digits, dots.
LETTER = 0.56
LONGEST = 26

Label = tuple[str, float, float, str]
Rectangle = tuple[float, float, float, float]


def place_labels(
    names: Sequence[str], points: Sequence[tuple[float, float]], heights: Sequence[float], box: Box
) -> list[Label | None]:
    """A text, its place and its anchor (start, mid, end) for each name; None where no place is free, and the reader has
    the legend. `heights`: half the length of each mark's error bar."""
    marks = [(x - 6, y - max(6, h), x + 6, y + max(6, h)) for (x, y), h in zip(points, heights, strict=True)]
    taken: list[Rectangle] = list(marks)
    found: list[Label | None] = [None] * len(names)
    crowd = sorted(range(len(names)), key=lambda i: -points[i][1])
    for index in crowd:
        text = names[index] if len(names[index]) <= LONGEST else names[index][: LONGEST - 1] + "…"
        width, (x, y), h = len(text) * SIZE * LETTER, points[index], max(6.0, heights[index])
        for dx, dy, anchor in (
            (9, 4, "start"),
            (-9, 4, "end"),
            (0, -h - 4, "mid"),
            (0, h + 12, "mid"),
            (8, -8, "start"),
            (8, 15, "start"),
            (-8, -8, "end"),
            (-8, 15, "end"),
        ):
            left = x + dx - {"start": 0.0, "mid": width / 2, "end": width}[anchor]
            area = (left, y + dy - SIZE * 0.8, left + width, y + dy + SIZE * 0.25)
            inside = (
                area[0] >= box.x[0]
                and area[2] <= box.width
                and box.top - 8 <= area[1]
                and area[3] <= box.y[0]
            )
            others = [mark for i, mark in enumerate(marks) if i != index] + taken[len(marks) :]
            if inside and not any(_overlap(area, other) for other in others):
                taken.append(area)
                found[index] = (text, x + dx, y + dy, anchor)
                break
    return found


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
