"""Naive2 and what it is made of: the test for a season, the decomposition, and series that have none of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx_timeseries.series.seasonality import (
    CRITICAL,
    carried,
    is_seasonal,
    naive2,
    naive_scale,
    seasonal_factors,
    seasonal_naive,
)


def season(period: int, seed: int = 0) -> np.ndarray:
    factors = np.random.default_rng(seed).uniform(0.5, 1.5, period)
    return factors / factors.mean()


@pytest.mark.parametrize("period", [3, 4, 7, 12])
@pytest.mark.parametrize("rest", [0, 1, 2])
def test_a_level_times_a_season_is_taken_apart_and_continued(period: int, rest: int) -> None:
    count = 4 * period + rest
    factors = season(period)
    history = 250 * factors[np.arange(count) % period]
    np.testing.assert_allclose(seasonal_factors(history, period), factors, rtol=1e-12)
    assert is_seasonal(history, period)
    expected = 250 * factors[(count + np.arange(2 * period)) % period]
    np.testing.assert_allclose(naive2(history, period, 2 * period), expected, rtol=1e-12)
    np.testing.assert_allclose(seasonal_naive(history, period, 2 * period), expected, rtol=1e-12)


def test_the_trend_of_an_even_season_has_halves_at_its_ends() -> None:
    history = np.array([2.0, 6, 3, 9, 4, 8, 5, 13])
    trend = [
        (1 + 6 + 3 + 9 + 2) / 4,
        (3 + 3 + 9 + 4 + 4) / 4,
        (1.5 + 9 + 4 + 8 + 2.5) / 4,
        (4.5 + 4 + 8 + 5 + 6.5) / 4,
    ]
    ratio = np.array([4 / trend[2], 8 / trend[3], 3 / trend[0], 9 / trend[1]])
    np.testing.assert_allclose(seasonal_factors(history, 4), ratio / ratio.mean(), rtol=1e-12)


def test_the_test_is_the_one_of_the_organisers() -> None:
    draw = np.random.default_rng(3)
    found = set()
    for strength in np.linspace(0, 1.5, 16):
        history = 50 + strength * np.sin(np.pi * np.arange(40) / 2) + draw.normal(size=40)
        centred = history - history.mean()
        r = [np.sum(centred[k:] * centred[: len(centred) - k]) / np.sum(centred**2) for k in range(5)]
        limit = CRITICAL * np.sqrt((1 + 2 * (r[1] ** 2 + r[2] ** 2 + r[3] ** 2)) / 40)
        assert is_seasonal(history, 4) == (abs(r[4]) > limit)
        found.add(is_seasonal(history, 4))
    assert found == {True, False}


def test_no_season_is_found_where_none_can_be() -> None:
    wave = 10 + np.sin(np.pi * np.arange(11) / 2)
    assert not is_seasonal(wave, 4)  # fewer than three seasons
    assert not is_seasonal(np.full(60, 0.1), 12)
    assert not is_seasonal(np.zeros(60), 12)
    assert not is_seasonal(np.random.default_rng(0).normal(size=60), 1)
    # a lag that R's acf does not reach: 10 log10(72) is 18
    long = 10 + np.sin(2 * np.pi * np.arange(72) / 24)
    assert not is_seasonal(long, 24) and is_seasonal(np.tile(long, 4), 24)


@pytest.mark.parametrize(
    "history",
    [
        np.zeros(40),
        np.full(40, 7.0),
        np.sin(np.pi * np.arange(40) / 2),  # a trend of zero
        np.where(np.arange(40) % 4 == 1, 0.0, 5.0),  # a factor of zero
        -5 - np.sin(np.pi * np.arange(40) / 2),
        np.array([3.0]),
    ],
)
def test_what_cannot_be_decomposed_is_repeated(history: np.ndarray) -> None:
    found = naive2(history, 4, 6)
    np.testing.assert_array_equal(found, np.full(6, history[-1]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 12), st.integers(1, 20))
def test_forecasts_are_finite_whatever_the_history(values: list[float], period: int, horizon: int) -> None:
    history = np.array(values)
    for made in (naive2, seasonal_naive):
        found = made(history, period, horizon)
        assert found.shape == (horizon,) and np.isfinite(found).all()
    assert naive_scale(history, period) >= 0


def test_missing_values_are_carried_and_leave_the_scale_alone() -> None:
    history = np.array([np.nan, 2, np.nan, 5, np.nan])
    np.testing.assert_array_equal(carried(history), [2, 2, 2, 5, 5])
    np.testing.assert_array_equal(carried(np.full(3, np.nan)), np.zeros(3))
    assert naive2(history, 1, 2).tolist() == [5, 5]
    assert naive_scale(history, 2) == 3  # 5 after 2, two rows apart
    assert naive_scale(np.array([1.0, 2, 4]), 1) == 1.5
    assert (
        naive_scale(np.array([1.0, 2]), 2) == naive_scale(np.full(9, 2.0), 1) == naive_scale(history, 1) == 0
    )


def test_a_season_longer_than_the_history_is_its_last_value() -> None:
    assert seasonal_naive(np.array([1.0, 2, 3]), 5, 3).tolist() == [3, 3, 3]
