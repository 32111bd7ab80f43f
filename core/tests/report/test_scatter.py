"""Points, error bars and the front of a plot of quality over cost."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from peftx.report.markup import problem
from peftx.report.scatter import Point, front, scatter

POINTS = [
    Point(0, "core.lora", 66_826, 98.05, 0.2, 3),
    Point(1, "core.head", 1_290, 96.94, 0.1, 3),
    Point(2, "core.full", 809_098, 98.89, None, 1),
    Point(3, "core.dora", 71_434, 97.77, 0.3, 3),
]


def drawn(points: list[Point], **more):
    return scatter(
        points, "a title", kind="count", cost="trained parameters", quality="accuracy", unit="%", **more
    )


def test_the_front_is_what_nothing_beats() -> None:
    assert [p.name for p in front(POINTS)] == ["core.head", "core.lora", "core.full"]
    assert [p.name for p in front(POINTS, higher_is_better=False)] == ["core.head"]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=9))
def test_the_front_by_its_definition(pairs: list[tuple[int, int]]) -> None:
    points = [Point(i, f"p{i}", cost, quality) for i, (cost, quality) in enumerate(pairs)]
    kept = {p.series for p in front(points)}
    for p in points:
        beaten = any(
            o.quality >= p.quality and o.cost <= p.cost and (o.quality > p.quality or o.cost < p.cost)
            for o in points
        )
        assert (p.series in kept) == (not beaten)


def test_marks_say_their_exact_figures_and_bars_are_one_deviation() -> None:
    found = drawn(POINTS)
    assert found is not None and problem(found) == ""
    assert "<title>core.lora\naccuracy 98.05 ± 0.20 % (sd, n = 3)\ntrained parameters 66,826</title>" in found
    assert "<title>core.full\naccuracy 98.89 %\ntrained parameters 809,098</title>" in found
    assert len(re.findall(r'class="bar ', found)) == 3, "one seed has no bar"
    heights = {
        int(series): float(low) - float(high)
        for low, high, series in re.findall(
            r'd="M[\d.]+ ([\d.]+)V([\d.]+)M[^"]*" class="bar s\d" data-series="(\d)"', found
        )
    }
    assert abs(heights[3] / heights[1] - 3) < 0.1, "0.3 against 0.1"


def test_a_better_row_stands_higher_and_a_dearer_one_further_right() -> None:
    at = {
        int(series): (float(x), float(y))
        for x, y, series in re.findall(
            r'translate\(([\d.]+) ([\d.]+)\)[^>]*data-series="(\d)"', drawn(POINTS)
        )
    }
    assert at[1][0] < at[0][0] < at[3][0] < at[2][0]
    assert at[1][1] > at[3][1] > at[0][1] > at[2][1]


def test_the_axis_says_which_way_is_better() -> None:
    assert "accuracy (%), ↑ better" in drawn(POINTS)
    assert "accuracy (%), ↓ better" in drawn(POINTS, higher_is_better=False)


def test_one_point_is_no_plot_and_equal_points_are_one() -> None:
    assert drawn(POINTS[:1]) is None and drawn([]) is None
    same = [Point(0, "a", 0, 50.0, 0.0, 2), Point(1, "b", 0, 50.0, 0.0, 2)]
    assert problem(drawn(same)) == ""


def test_names_are_escaped() -> None:
    found = drawn([Point(0, "<script>", 1, 2), Point(1, '"b"', 3, 4)])
    assert "<script>" not in found and problem(found) == ""
