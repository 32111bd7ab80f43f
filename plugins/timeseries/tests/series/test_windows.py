"""Windows of a split: how many, which rows, which channels, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.errors import DataError
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.series.windows import Windows


def series(rows: int, channels: int = 2, begin: int = 0, end: int = -1, name: str = "s") -> Series:
    values = np.arange(rows)[:, None] + 1000.0 * np.arange(channels)
    return Series(name, values, tuple(f"c{number}" for number in range(channels)), None, begin, end)


def windows(*held: Series, length: int, horizon: int, **options: object) -> Windows:
    split = SeriesSplit(held)
    return Windows(split, length, horizon, Scaler.identity(split).rows_for, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("horizon", "count"), [(96, 2785), (192, 2689), (336, 2545), (720, 2161)])
def test_as_many_as_the_protocol_of_ett_says_whatever_the_input(horizon: int, count: int) -> None:
    for length in (96, 336, 512):
        found = windows(series(17420, 7, 11520, 14400), length=length, horizon=horizon)
        assert found.windows == count and len(found) == 7 * count
    train = windows(series(17420, 7, 0, 8640), length=336, horizon=horizon)
    assert train.windows == 8640 - 336 - horizon + 1


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 20), st.integers(1, 4))
def test_every_window_is_cut_where_it_says(
    rows: int, length: int, horizon: int, begin: int, stride: int
) -> None:
    begin = min(begin, rows)
    one = series(rows, 2, begin, rows)
    starts = [t for t in range(max(begin, length), rows - horizon + 1)][::stride]
    if not starts:
        with pytest.raises(DataError, match="hold no window"):
            windows(one, length=length, horizon=horizon, stride=stride)
        return
    found = windows(one, length=length, horizon=horizon, stride=stride)
    inputs, targets = found.cut(np.arange(len(found)))
    assert inputs.shape == (2 * len(starts), length) and targets.shape == (2 * len(starts), horizon)
    for number, start in enumerate(starts):
        for channel in (0, 1):
            row = 2 * number + channel
            assert inputs[row].tolist() == [1000 * channel + t for t in range(start - length, start)]
            assert targets[row].tolist() == [1000 * channel + t for t in range(start, start + horizon)]


def test_no_target_of_one_split_is_an_input_of_an_earlier_one() -> None:
    whole = series(100)
    train = windows(whole.rows(0, 60), length=10, horizon=5)
    test = windows(whole.rows(60, 100), length=10, horizon=5)
    assert train.cut(np.arange(len(train)))[1].max() % 1000 == 59
    assert test.cut(np.arange(len(test)))[1].min() % 1000 == 60


def test_short_histories_are_padded_on_request_alone() -> None:
    short, long = series(8, name="short"), series(30, name="long")
    assert windows(short, long, length=10, horizon=4).owner.tolist() == [1] * 17
    found = windows(short, long, length=10, horizon=4, pad=True)
    assert found.owner.tolist().count(0) == 4
    inputs, targets = found.cut(np.array([0]))
    assert np.isnan(inputs[0, :-1]).all() and inputs[0, -1] == 0 and targets[0].tolist() == [1, 2, 3, 4]
    with pytest.raises(
        DataError, match=r"short, has 8 .* \(--task.short-series pad .*shorter --task.input-length"
    ):
        windows(short, length=10, horizon=4)


def test_values_are_standardised_by_their_own_series_and_missing_ones_stay_missing() -> None:
    first, second = series(30, name="a"), series(30, name="b")
    second.values[:] = second.values * 3 + 7
    second.values[12, 1] = np.nan
    train = SeriesSplit([first, second])
    found = Windows(train, 4, 2, Scaler.fit(train).rows_for)
    inputs, targets = found.cut(np.arange(len(found)))
    half = len(found) // 2
    own, other = (
        np.concatenate([inputs[:half], targets[:half]], 1),
        np.concatenate([inputs[half:], targets[half:]], 1),
    )
    assert np.isnan(other).sum() == sum(1 for t in range(4, 29) for r in range(t - 4, t + 2) if r == 12)
    # an affine map of the same series comes out the same, but for the statistics of the missing value
    channel0 = slice(0, None, 2)
    np.testing.assert_allclose(own[channel0], other[channel0], rtol=1e-5, atol=1e-6)


def with_covariates(rows: int = 30, begin: int = 0, name: str = "s", shift: float = 0.0) -> Series:
    plain = series(rows, 2, begin, name=name)
    count = np.arange(rows, dtype=np.float64) + shift
    return Series(
        name, plain.values, plain.channels, None, begin, rows, {"k": count, "p": -count, "j": count + 0.5}
    )


def test_a_window_has_known_covariates_of_all_its_rows_and_past_ones_of_its_input() -> None:
    held = (with_covariates(begin=12), with_covariates(20, 3, "t", shift=500))
    found = windows(*held, length=5, horizon=3, known=("k", "j"), past=("p",))
    samples = np.random.default_rng(0).permutation(len(found))
    cut = found.covariates(samples)
    assert cut["known"].shape == (len(found), 2, 8) and cut["past"].shape == (len(found), 1, 5)
    for row, sample in enumerate(samples):
        start = found.start[sample // 2] + 500 * found.owner[sample // 2]
        assert cut["known"][row, 0].tolist() == list(range(start - 5, start + 3))
        assert (cut["known"][row, 1] == cut["known"][row, 0] + 0.5).all()
        assert cut["past"][row, 0].tolist() == [-t for t in range(start - 5, start)]
    assert windows(*held, length=5, horizon=3).covariates(samples) == {}
    assert set(windows(*held, length=5, horizon=3, past=("p",)).covariates(samples)) == {"past"}
    with pytest.raises(DataError, match="s has no covariate 'x'"):
        windows(*held, length=5, horizon=3, known=("x",))


def test_missing_covariates_are_the_mean_of_the_training_rows() -> None:
    held = with_covariates()
    held.covariates["k"][7] = np.nan
    split = SeriesSplit([held])
    scaler = Scaler.fit(split)
    found = Windows(
        split, 5, 3, scaler.rows_for, pad=True, known=("k",), covariate_statistics=scaler.covariates_for
    )
    first = found.covariates(np.array([0]))["known"][0, 0]
    mean, std = np.nanmean(held.covariates["k"]), np.nanstd(held.covariates["k"])
    expected = [0, 0, 0, 0, *((np.array([0, 1, 2, 3]) - mean) / std)]
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    later = found.covariates(np.array([2 * 5]))["known"][0, 0]  # rows 1 .. 8
    assert later[6] == 0 and np.isfinite(later).all()


def test_partial_targets_end_with_the_split_and_show_nothing_behind_it() -> None:
    values = np.arange(10.0)[:, None]
    two = [Series("a", values, ("y",), begin=0, end=6), Series("b", values + 100, ("y",), begin=0, end=4)]
    found = windows(*two, length=2, horizon=3, pad=True, partial=True)
    assert found.start.tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    inputs, targets = found.cut(np.arange(len(found)))
    np.testing.assert_array_equal(targets[4], [5, np.nan, np.nan])
    np.testing.assert_array_equal(targets[6], [102, 103, np.nan])
    np.testing.assert_array_equal(inputs[5], [np.nan, 100])
    whole = windows(*two, length=2, horizon=3, pad=True)
    np.testing.assert_array_equal(whole.cut(np.arange(3))[1], targets[:3])


def test_a_horizon_longer_than_the_rows_says_how_long_it_may_be_and_offers_nothing_that_does_not_help() -> (
    None
):
    for begin, held in ((0, "has 40 of its own"), (30, "has 10 of its own and 30 before them")):
        with pytest.raises(DataError) as error:
            windows(series(40, begin=begin), length=8, horizon=48, what="val")
        most = 40 - begin
        assert str(error.value) == (
            f"the val rows hold no window of 8 + 48 rows: the longest series, s, {held}: take a shorter "
            f"--task.horizon, {most} at most"
        )


def test_series_without_a_window_are_counted() -> None:
    held = [series(rows, name=str(rows)) for rows in (8, 30, 13, 14)]
    assert windows(*held, length=10, horizon=4).idle == 2
    assert windows(*held, length=10, horizon=4, pad=True).idle == 0
