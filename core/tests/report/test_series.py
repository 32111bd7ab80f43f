"""Thinning keeps spikes and ends; smoothing keeps means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.report.series import smooth, thin


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(4, 400))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], most: int) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    kept = thin(points, most)
    assert len(kept) <= max(most, 4)
    assert set(kept) <= set(points) and kept == sorted(kept)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert max(y for _, y in kept) == max(values) and min(y for _, y in kept) == min(values)


def test_one_spike_of_one_step_survives() -> None:
    points = [(float(i), 0.0) for i in range(100_000)]
    points[54_321] = (54_321.0, 7.0)
    assert (54_321.0, 7.0) in thin(points, 400)
    assert len(thin(points, 400)) <= 400


def test_a_short_series_is_left_alone() -> None:
    points = [(0.0, 1.0), (1.0, 2.0)]
    assert thin(points) == points


def test_smoothing_is_the_mean_of_a_window_that_narrows_at_the_ends() -> None:
    points = [(float(i), float(v)) for i, v in enumerate([0, 3, 6, 0, 6])]
    assert smooth(points, 3) == [(0, 0), (1, 3), (2, 3), (3, 4), (4, 6)]


@given(st.integers(1, 60), st.integers(1, 9))
def test_a_straight_line_stays_one(length: int, window: int) -> None:
    points = [(float(i), 2.0 * i - 5) for i in range(length)]
    for (x, y), (sx, sy) in zip(points, smooth(points, window), strict=True):
        assert x == sx and sy == pytest.approx(y)
