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


def with_covariates(end: int = -1, name: str = "s") -> Series:
    draw = np.random.default_rng(2)
    columns = {"a": draw.normal(3, 2, 50), "b": draw.normal(-1, 5, 50)}
    columns["b"][::4] = np.nan
    return Series(name, draw.normal(size=(50, 1)), ("y",), None, 0, end, columns)


def test_covariates_are_standardised_by_their_own_training_rows_alone() -> None:
    held = with_covariates(30)
    scaler = Scaler.fit(SeriesSplit([held]))
    mean, std = scaler.covariates_for(held, ("b", "a"))
    np.testing.assert_allclose(mean, [np.nanmean(held.covariates[name][:30]) for name in ("b", "a")])
    np.testing.assert_allclose(std, [np.nanstd(held.covariates[name][:30]) for name in ("b", "a")])
    for column in held.covariates.values():
        column[30:] *= 1000
    again = Scaler.from_dict(json.loads(json.dumps(Scaler.fit(SeriesSplit([held])).to_dict())))
    assert np.array_equal(again.covariates_for(held, ("b", "a")), (mean, std))
    assert scaler.covariates_for(held, ())[0].shape == (0,)
    two = Scaler.fit(SeriesSplit([with_covariates(30, "p"), with_covariates(20, "q")]))
    assert two.covariates_for(with_covariates(name="q"), ("a",))[0] == pytest.approx(
        held.covariates["a"][:20].mean()
    )
    with pytest.raises(DataError, match="no series 'z' was trained on"):
        two.covariates_for(with_covariates(name="z"), ("a",))


def test_a_covariate_that_cannot_be_scaled_is_refused() -> None:
    held = with_covariates(30)
    with pytest.raises(DataError, match="s has the covariate 'c', but the scaling was made on a, b: give"):
        Scaler.fit(SeriesSplit([held])).covariates_for(held, ("c",))
    with pytest.raises(DataError, match="but the scaling was made on none"):
        Scaler.fit(SeriesSplit([one(np.ones((5, 1)))])).covariates_for(held, ("a",))
    held.covariates["b"][:30] = np.nan
    with pytest.raises(DataError, match=r"^covariate 'b' of s has no value in its 30 training rows"):
        Scaler.fit(SeriesSplit([held]))
    lacking = Series("t", np.ones((9, 1)), ("y",))
    with pytest.raises(DataError, match="t has no covariate 'a', which is looked at here"):
        Scaler.fit(SeriesSplit([with_covariates(), lacking]))
    with pytest.raises(ValueError, match=r"covariate a of shape \(3,\) for 9 rows"):
        Series("t", np.ones((9, 1)), ("y",), covariates={"a": np.ones(3)})
