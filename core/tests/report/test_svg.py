"""Scales, ticks and labels."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from peftx.report.labels import place_labels
from peftx.report.palette import SHAPES, shape
from peftx.report.svg import SHAPES_D, Box, Scale, mark, path, ticks

FLOATS = st.floats(-1e9, 1e9)


@given(st.lists(FLOATS, min_size=1, max_size=8))
def test_every_value_lies_within_the_ends(values: list[float]) -> None:
    scale = Scale.over(values, (10.0, 200.0))
    assert all(10.0 <= scale(value) <= 200.0 for value in values)


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=8))
def test_every_positive_value_lies_within_a_logarithmic_scale(values: list[float]) -> None:
    scale = Scale.over(values, (10.0, 200.0), log=True)
    assert all(10.0 - 1e-6 <= scale(value) <= 200.0 + 1e-6 for value in values)


def test_a_linear_scale_of_positive_values_does_not_go_below_zero() -> None:
    assert Scale.over([0.01, 10.0], (0.0, 1.0)).low == 0.0
    assert Scale.over([-0.01, 10.0], (0.0, 1.0)).low < -0.01


@given(FLOATS, FLOATS)
def test_ticks_are_round_within_and_a_handful(low: float, high: float) -> None:
    assume(high - low > 1e-6 * max(1.0, abs(low), abs(high)))
    found = ticks(low, high, 6)
    assert 2 <= len(found) <= 9
    step = found[1] - found[0]
    assert all(low - 1e-6 * step <= value <= high + 1e-6 * step for value in found)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert any(mantissa == pytest.approx(nice, rel=1e-3) for nice in (1, 2, 5, 10))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (900, 1.2e6, [1e3, 1e4, 1e5, 1e6]),
        (0.4, 3, [0.5, 1, 2]),
        (1.2e-3, 0.9, [0.01, 0.1, 0.003, 0.03, 0.3]),
    ],
)
def test_logarithmic_ticks(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high, 6, log=True)
    assert all(any(value == pytest.approx(e) for e in expected) for value in found) and len(found) >= 3


def test_ticks_of_bytes_are_round_in_their_unit() -> None:
    scale = Scale.over([80 * 2**20, 210 * 2**20], (0.0, 1.0), unit=2.0**20)
    assert {scale.label(value) for value in scale.ticks()} >= {"100", "140", "200"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1500, "1.5k"), (2e6, "2M"), (0.25, "0.25"), (98.5, "98.5"), (1e-5, "1e-05")],
)
def test_tick_texts(value: float, text: str) -> None:
    assert Scale(0, 1, 0, 1).label(value) == text


def test_every_shape_is_drawn() -> None:
    assert set(SHAPES) == set(SHAPES_D)
    assert {shape(i) for i in range(7)} == set(SHAPES)
    assert "<title>&lt;b&gt;</title>" in mark(3, 1.0, 2.0, tip="<b>")
    assert path([(0, 0.04), (1, 2.26)]) == "M0 0L1 2.3"


@given(st.lists(st.tuples(st.floats(46, 386), st.floats(24, 246)), min_size=1, max_size=12))
def test_labels_cover_neither_marks_nor_each_other(points: list[tuple[float, float]]) -> None:
    box = Box()
    names = [f"core.method{i}" for i in range(len(points))]
    placed = place_labels(names, points, [0.0] * len(points), box)
    areas = []
    for label in placed:
        if label is None:
            continue
        text, x, y, anchor = label
        width = len(text) * 11 * 0.56
        left = x - {"start": 0, "mid": width / 2, "end": width}[anchor]
        areas.append((left, y - 8.8, left + width, y + 2.75))
    for i, a in enumerate(areas):
        assert a[0] >= 0 and a[2] <= box.width
        for b in areas[:i]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def test_a_lone_label_stands_right_of_its_mark_and_a_long_one_is_cut() -> None:
    ((text, x, _, anchor),) = place_labels(["a" * 40], [(100.0, 100.0)], [0.0], Box())
    assert (text, x, anchor) == ("a" * 25 + "…", 109.0, "start")
