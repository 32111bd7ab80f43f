"""Ranks and fronts: ties, what has no score, and the laws both must keep."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.report.order import front, level, lower_is_better, ranks

SCORES = st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), max_size=8)


def test_equal_values_share_the_better_rank() -> None:
    assert ranks([90.0, 95.0, 90.0, 99.0]) == [3, 2, 3, 1]
    assert ranks([0.1, 0.3, 0.1], higher_is_better=False) == [1, 3, 1]


def test_what_has_no_score_has_no_rank() -> None:
    assert ranks([None, 1.0, math.nan, math.inf]) == [None, 1, None, None]
    assert ranks([]) == []


def test_a_difference_in_the_last_bit_is_none() -> None:
    low, high = 97.77, math.nextafter(97.77, 98)
    assert low != high and level(low) == level(high)
    assert ranks([low, high, 97.78]) == [2, 2, 1]
    assert front([low, high], [1, 1]) == [True, True]


@given(SCORES, st.booleans())
def test_laws_of_ranks(values: list[float | None], higher: bool) -> None:
    found = ranks(values, higher_is_better=higher)
    known = [(value, rank) for value, rank in zip(values, found, strict=True) if value is not None]
    assert all(rank is None for value, rank in zip(values, found, strict=True) if value is None)
    for value, rank in known:
        better = sum(other > value if higher else other < value for other, _ in known)
        assert rank == better + 1
    if known:
        assert min(rank for _, rank in known) == 1


def test_the_front_of_four_rows() -> None:
    # the third is worse than the first and larger; the fourth is best and largest
    assert front([90.0, 80.0, 89.0, 95.0], [10, 5, 11, 20]) == [True, True, False, True]
    assert front([0.2, 0.1], [5, 5], higher_is_better=False) == [False, True]


def test_a_row_without_score_or_cost_is_not_on_the_front_and_beats_none() -> None:
    assert front([None, 90.0, 91.0], [1, 10, None]) == [False, True, False]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=10), st.booleans())
def test_laws_of_the_front(points: list[tuple[int, int]], higher: bool) -> None:
    scores, costs = [float(a) for a, _ in points], [float(b) for _, b in points]
    marks = front(scores, costs, higher_is_better=higher)
    assert any(marks), "something is always unbeaten"
    best = max(scores) if higher else min(scores)
    cheapest = min(cost for score, cost in zip(scores, costs, strict=True) if score == best)
    for mark, score, cost in zip(marks, scores, costs, strict=True):
        if (score, cost) == (best, cheapest):
            assert mark
        at_least = [
            (s >= score if higher else s <= score) and c <= cost for s, c in zip(scores, costs, strict=True)
        ]
        equal = [s == score and c == cost for s, c in zip(scores, costs, strict=True)]
        assert mark == (at_least == equal), "only its equals are at least as good and as small"


@pytest.mark.parametrize("higher", [True, False])
def test_the_front_does_not_depend_on_the_order_of_the_rows(higher: bool) -> None:
    scores, costs = [1.0, 2.0, 3.0, 2.0], [4.0, 3.0, 5.0, 3.0]
    there = front(scores, costs, higher_is_better=higher)
    back = front(scores[::-1], costs[::-1], higher_is_better=higher)
    assert there == back[::-1]


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("loss", True),
        ("top1_error", True),
        ("WER", True),
        ("classwise-ece", True),
        ("accuracy", False),
        ("lossless", False),
    ],
)
def test_what_the_name_of_a_metric_says(metric: str, lower: bool) -> None:
    assert lower_is_better(metric) is lower
