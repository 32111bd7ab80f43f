"""A split that keeps to itself: its rows and their history, and nothing that comes after them."""

from __future__ import annotations

import numpy as np

from peftx_timeseries.series.series import Series, SeriesSplit


def test_a_split_alone_has_its_rows_and_their_history_and_no_row_of_a_later_split() -> None:
    times = np.arange(np.datetime64("2020-01-01T00"), np.datetime64("2020-01-01T10"))
    values = np.arange(20.0).reshape(10, 2)
    one = Series("s", values, ("a", "b"), times, 3, 6, {"heat": np.arange(10.0)})
    other = Series("t", values, ("a", "b"))
    split = SeriesSplit([one, other])
    alone = split.alone()
    first, second = alone.series
    assert (first.begin, first.end, len(first)) == (3, 6, 3) and alone.extent == split.extent
    assert np.array_equal(first.values, values[:6])
    assert first.times is not None and np.array_equal(first.times, times[:6])
    assert np.array_equal(first.covariates["heat"], np.arange(6.0))
    assert np.array_equal(second.values, values) and second.times is None
    assert one.values.shape == (10, 2), "the split itself is as it was"
