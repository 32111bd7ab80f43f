"""Scaling: training rows alone, the population's deviation, constant and missing channels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from peftx.errors import DataError
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit


def one(values: np.ndarray, end: int = -1, name: str = "s") -> Series:
    return Series(name, values, tuple(f"c{number}" for number in range(values.shape[1])), None, 0, end)


def test_the_statistics_of_the_training_rows() -> None:
    values = np.random.default_rng(0).normal(5, 3, (100, 3))
    scaler = Scaler.fit(SeriesSplit([one(values, 60)]))
    np.testing.assert_allclose(scaler.mean[0], values[:60].mean(0))
    np.testing.assert_allclose(scaler.std[0], values[:60].std(0))
    values[60:] *= 1000
    assert np.array_equal(Scaler.fit(SeriesSplit([one(values, 60)])).mean, scaler.mean)


def test_missing_values_are_left_out_and_a_channel_without_any_is_refused() -> None:
    values = np.random.default_rng(0).normal(size=(50, 2))
    values[::3, 1] = np.nan
    scaler = Scaler.fit(SeriesSplit([one(values)]))
    np.testing.assert_allclose(scaler.mean[0], np.nanmean(values, 0))
    np.testing.assert_allclose(scaler.std[0], np.nanstd(values, 0))
    values[:, 1] = np.nan
    with pytest.raises(
        DataError, match=r"^channel 'c1' of s has no value in its 50 training rows: leave it out$"
    ):
        Scaler.fit(SeriesSplit([one(values)]))


@pytest.mark.parametrize("level", [0.0, 7.0, 0.1, 1e12, -3e-9])
def test_a_constant_channel_is_zero_and_stays_finite(level: float) -> None:
    scaler = Scaler.fit(SeriesSplit([one(np.full((30, 1), level))]))
    assert scaler.std.tolist() == [[1.0]]


def test_a_scaler_of_other_data_is_refused() -> None:
    scaler = Scaler.fit(SeriesSplit([one(np.ones((5, 2)), name="a"), one(np.ones((5, 2)), name="b")]))
    other = Series("a", np.ones((5, 1)), ("x",))
    with pytest.raises(DataError, match="a has the channels x, but the scaling was made on c0, c1"):
        scaler.rows_for(other)
    with pytest.raises(DataError, match=r"no series 'z' was trained on.*there are a, b$"):
        scaler.rows_for(one(np.ones((5, 2)), name="z"))
    alone = Scaler.fit(SeriesSplit([one(np.ones((5, 2)), name="a")]))
    assert alone.rows_for(one(np.ones((5, 2)), name="new"))[0].tolist() == [1.0, 1.0]


def test_it_goes_through_json() -> None:
    scaler = Scaler.fit(SeriesSplit([one(np.random.default_rng(1).normal(size=(9, 2)))]))
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert np.array_equal(again.mean, scaler.mean) and np.array_equal(again.std, scaler.std)
