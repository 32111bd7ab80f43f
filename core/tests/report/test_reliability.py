"""Reliability diagrams and the interval behind their whiskers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.report.markup import problem
from peftx.report.reliability import bins, diagram, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Wilson 1927 by hand: z^2/(n+z^2) = 3.8415/13.8415
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (351, 359, 0.95665, 0.98866),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_the_interval_holds_the_share(n: int, share: float) -> None:
    low, high = wilson(share * n, n)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1


def test_empty_bins_are_left_out_and_the_rest_is_as_recorded(make_details) -> None:
    details = make_details()
    table = details["reliability"]
    found = bins(details)
    assert [count for _, _, count, _, _ in found] == [c for c in table["count"] if c]
    assert [a for *_, a in found] == [a for a in table["accuracy"] if a is not None]
    assert sum(count for _, _, count, _, _ in found) == 359


def test_every_bin_is_drawn_as_high_as_it_is_right(make_details) -> None:
    details = make_details()
    found = diagram(details, "<core.lora>", 0)
    assert problem(found) == "" and "<core.lora>" not in found
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" class="bin"', found)]
    plot = 330 - 92 - 24  # the height of the plot, for an accuracy of 1
    assert heights == pytest.approx([max(0.8, a * plot) for *_, a in bins(details)], abs=0.06)
    assert len(re.findall("<circle", found)) == len(bins(details))


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"reliability": None},
        {"reliability": {"edges": [0, 1], "count": [0], "confidence": [None], "accuracy": [None]}},
        {"reliability": {"edges": "ab", "count": 3}},
    ],
)
def test_no_bins_no_diagram(details: dict) -> None:
    assert diagram(details, "core.lora", 0) is None
