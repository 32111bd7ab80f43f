"""Rows at even steps: the first that is not is named, and what is asked for is mended and told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.errors import DataError
from peftx_timeseries.series.frequency import parse_frequency
from peftx_timeseries.series.regular import Rows, regularise


def rows(*times: str) -> Rows:
    stamps = np.array(times, dtype="datetime64[us]")
    values = np.column_stack([np.arange(len(times)), 10.0 + np.arange(len(times))])
    return Rows("x.csv", stamps, values, np.arange(2, 2 + len(times)))


def hours(count: int, start: str = "2024-01-01") -> list[str]:
    return [str(time) for time in pd.date_range(start, periods=count, freq="h")]


def refused(held: Rows, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        regularise(held, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_regular_rows_stay_what_they_are() -> None:
    held = rows(*hours(30))
    for regular in ("refuse", "sort", "fill", "keep"):
        found, frequency = regularise(held, regular=regular)  # type: ignore[arg-type]
        assert frequency.alias == "h" and np.array_equal(found.values, held.values) and found.notes == ()
        assert (found.times == held.times).all()


def test_a_row_out_of_order_is_named_and_sorted_on_request() -> None:
    times = hours(10)
    times[3], times[4] = times[4], times[3]
    message = refused(rows(*times))
    assert message == (
        "x.csv: line 6 (2024-01-01 03:00:00) comes after a later time, line 5 (2024-01-01 04:00:00): put the rows in "
        "order, or give --data.regular sort"
    )
    found, _ = regularise(rows(*times), regular="sort")
    assert found.values[:, 0].tolist() == [0, 1, 2, 4, 3, 5, 6, 7, 8, 9] and found.notes == (
        "rows sorted by time",
    )


def test_a_double_row_is_named_and_one_is_kept_on_request() -> None:
    times = [*hours(6)[:4], *hours(6)[3:]]
    held = rows(*times)
    assert refused(held).startswith(
        "x.csv: line 6 (2024-01-01 03:00:00) has the time of line 5 again: remove one, or give --data.duplicates first"
    )
    assert "duplicates" in refused(held, regular="fill")
    for duplicates, expected in (("first", 3), ("last", 4), ("mean", 3.5)):
        found, _ = regularise(held, duplicates=duplicates)  # type: ignore[arg-type]
        assert found.values[3].tolist() == [expected, 10 + expected] and len(found.values) == 6
        assert found.notes == (f"1 rows of a time that was there already: {duplicates} kept",)


def test_the_mean_is_of_what_is_there() -> None:
    held = rows(*hours(4)[:2], *hours(4)[1:])
    held.values[1, 0] = np.nan
    held.values[1:3, 1] = np.nan
    found, _ = regularise(held, duplicates="mean")
    assert found.values[1, 0] == 2 and np.isnan(found.values[1, 1])


def test_a_gap_is_named_and_filled_on_request() -> None:
    times = hours(12)
    del times[5:8]
    message = refused(rows(*times))
    assert message == (
        "x.csv: before line 7 (2024-01-01 08:00:00) 3 rows are missing, from 2024-01-01 05:00:00 on at the frequency "
        "h: give --data.regular fill, which takes them for missing values, or keep, which takes the rows as they "
        "stand"
    )
    found, _ = regularise(rows(*times), regular="fill")
    assert np.isnan(found.values[5:8]).all() and np.isfinite(np.delete(found.values, [5, 6, 7], 0)).all()
    assert found.lines[4:9].tolist() == [6, 0, 0, 0, 7] and found.notes == ("3 missing rows put in",)
    assert [str(time)[:13] for time in found.times] == [time[:13].replace(" ", "T") for time in hours(12)]


@given(st.sampled_from(["15min", "h", "D", "B", "W", "MS", "QS", "YE"]), st.randoms(use_true_random=False))
def test_filling_gives_back_the_grid(alias: str, random: Any) -> None:
    whole = pd.date_range("2020-01-01", periods=40, freq=alias.replace("YE", "YE-DEC")).to_numpy()
    kept = sorted({0, 39, *random.sample(range(40), 30)})
    shuffled = random.sample(kept, len(kept))
    held = Rows("x", whole[shuffled], np.array(shuffled, dtype=float)[:, None], np.arange(len(kept)))
    found, _ = regularise(held, regular="fill")
    assert (found.times == whole).all()
    expected = np.full(40, np.nan)
    expected[kept] = kept
    np.testing.assert_array_equal(found.values[:, 0], expected)


def test_a_time_off_the_grid_is_named_and_moved_with_a_frequency() -> None:
    times = hours(10)
    times[4] = "2024-01-01 04:07:00"
    message = refused(rows(*times))
    assert message.startswith(
        "x.csv: line 6 (2024-01-01 04:07:00) stands between two steps of the frequency h, counted from 2024-01-01: "
    )
    assert "stands between" in refused(rows(*times), regular="fill")
    found, _ = regularise(rows(*times), parse_frequency("h"), regular="fill", given=True)
    assert len(found.times) == 10 and str(found.times[4]) == "2024-01-01T04:00:00"
    assert found.notes == ("1 times moved to the beginning of their steps of h",)


def test_a_sensor_without_a_clock_is_put_on_the_grid_it_is_given() -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.integers(200, 400, 500))  # about every five minutes
    stamps = np.datetime64("2024-01-01T00:13:07", "us") + seconds.astype("timedelta64[s]")
    held = Rows("x", stamps, seconds[:, None].astype(float), np.arange(500))
    found, _ = regularise(held, parse_frequency("h"), regular="fill", duplicates="mean", given=True)
    assert (np.diff(found.times).astype("timedelta64[s]").astype(int) == 3600).all()
    expected = pd.Series(seconds.astype(float), stamps).resample("h").mean()
    assert (found.times == expected.index.to_numpy()).all()
    np.testing.assert_allclose(found.values[:, 0], expected.to_numpy())


def test_a_frequency_that_the_rows_do_not_have_is_told_at_the_first() -> None:
    assert "line 3 (2024-01-01 01:00:00) stands between two steps of the frequency D" in refused(
        rows(*hours(50)), frequency=parse_frequency("D"), given=True
    )
    message = refused(rows(*hours(10)), frequency=parse_frequency("15min"), given=True)
    assert "before line 3 (2024-01-01 01:00:00) 3 rows are missing, from 2024-01-01 00:15:00 on" in message


def test_a_grid_of_nearly_nothing_but_gaps_is_refused() -> None:
    held = rows("1990-01-01T00:00:00", "1990-01-01T00:00:01", "2020-01-01T00:00:00")
    message = refused(held, frequency=parse_frequency("s"), regular="fill")
    assert "3 rows from 1990-01-01 to 2020-01-01 are 946,684,801 steps, nearly all of them missing" in message


def test_the_first_row_with_a_fault_is_told_whatever_its_fault() -> None:
    times = hours(40)
    double = [*times[:30], times[29], *times[30:]]
    swapped = [*times[:20], times[21], times[20], *times[22:]]
    assert "line 32" in refused(rows(*double)) and "line 23" in refused(rows(*swapped))
    for faulty in (double, swapped):
        assert "before line 12 (2024-01-01 11:00:00) 1 row is missing" in refused(
            rows(*faulty[:10], *faulty[11:])
        )
    moved = [*times[:5], "2024-01-01 05:20:00", *times[6:10], times[9], *times[10:]]
    assert "line 7 (2024-01-01 05:20:00) stands between" in refused(rows(*moved))
    # by request the one is mended, and what is left is told
    assert "line 31" in refused(rows(*[time for time in double if time != times[10]]), regular="fill")


def test_keep_takes_rows_as_they_stand_and_tells_how_many_are_uneven() -> None:
    times = hours(20)
    times[3], times[7] = times[7], times[7]
    found, frequency = regularise(rows(*times), parse_frequency("h"), regular="keep")
    assert found.values[:, 0].tolist() == list(range(20)) and frequency.alias == "h"
    assert found.notes == ("rows taken as they stand, 2 of them not a step of h after the one before",)
    months = rows("2024-01-31", "2024-02-29", "2024-03-31", "2024-05-31")
    assert (
        "1 of them not a step of ME" in regularise(months, parse_frequency("ME"), regular="keep")[0].notes[0]
    )
    counted = replace(rows(*hours(3)), times=np.array([4, 6, 7]).astype("datetime64[s]"), counted=True)
    assert (
        "1 of them not a step of 2 " in regularise(counted, parse_frequency("2s"), regular="keep")[0].notes[0]
    )


def test_rows_that_are_only_counted_are_named_by_their_number() -> None:
    held = replace(rows(*hours(5)), times=np.array([1, 2, 4, 5, 6]).astype("datetime64[s]"), counted=True)
    message = refused(held, frequency=parse_frequency("s"))
    assert "before line 4 (4) 1 row is missing, from 3 on at the step 1: " in message


@pytest.mark.parametrize(
    "times",
    [
        [*hours(3, "2024-10-27 01:00:00")[:2], *hours(3, "2024-10-27 02:00:00")],  # an hour comes twice
        [*hours(2, "2024-03-31"), *hours(3, "2024-03-31 03:00:00")],  # and one never
    ],
)
def test_a_day_of_23_or_25_hours_gets_a_hint(times: list[str]) -> None:
    message = refused(rows(*times))
    assert message.endswith("give the zone, such as --data.timezone Europe/Berlin")


@pytest.mark.parametrize(
    ("alias", "times", "moved"),
    [
        # the first row stands on no working day
        ("B", "2024-01-06 2024-01-08 2024-01-09 2024-01-11", "2024-01-05 2024-01-08 2024-01-09 2024-01-11"),
        # the first row alone stands at the end of its month
        ("ME", "2024-01-31 2024-03-14 2024-04-14 2024-06-14", "2024-01-31 2024-02-29 2024-03-31 2024-05-31"),
    ],
)
def test_values_go_with_their_times_where_the_first_row_moves(alias: str, times: str, moved: str) -> None:
    found, _ = regularise(rows(*times.split()), parse_frequency(alias), regular="fill", given=True)
    held = {str(t)[:10]: v for t, v in zip(found.times, found.values[:, 0].tolist(), strict=True) if v == v}
    assert held == dict(zip(moved.split(), range(4), strict=True))
    assert len(found.times) == 5 and np.isnan(found.values).any(1).sum() == 1


TUESDAYS = [str(day)[:10] for day in pd.date_range("2024-01-02", periods=8, freq="W-TUE")]


@pytest.mark.parametrize(
    ("alias", "times", "place", "other"),
    [
        ("W-MON", TUESDAYS, "on a Monday", "W"),
        (
            "QS-FEB",
            ["2024-01-01", "2024-04-01", "2024-07-01"],
            "in February, May, August or November",
            "QS",
        ),
        ("YS-APR", ["2022-01-01", "2023-01-01", "2024-01-01"], "in April", "YS"),
        ("ME", ["2024-01-01", "2024-02-01", "2024-03-01"], "on the last day of a month", "MS"),
        ("YE-JUN", ["2022-06-29", "2023-06-29", "2024-06-29"], "on the last day of June", "YS"),
    ],
)
def test_a_day_or_month_that_was_given_is_held_to(
    alias: str, times: list[str], place: str, other: str
) -> None:
    frequency = parse_frequency(alias)
    for regular in ("refuse", "sort"):
        assert refused(rows(*times), frequency=frequency, regular=regular, given=True) == (
            f"x.csv: line 2 ({times[0]}) does not stand {place}, as the given frequency {alias} wants: correct the "
            f"row, give the frequency of the rows (--data.frequency {other} takes the day and month of the first), or "
            "--data.regular fill, which moves times to the beginning of their steps"
        )
    found, kept = regularise(rows(*times), frequency, regular="fill", given=True)
    assert kept == frequency and frequency.keeps(found.times).all()
    assert found.values[:, 0].tolist() == list(range(len(times)))  # no row lost, none put in
    assert (found.times <= np.array(times, dtype="datetime64[us]")).all()
    assert f"{len(times)} times moved" in found.notes[0]
    # told from the rows themselves, or of another series, it binds nobody
    assert regularise(rows(*times), parse_frequency(other), given=True)[0].notes == ()


def test_the_first_row_that_is_not_where_it_should_be_is_told_before_a_later_fault() -> None:
    times = [*TUESDAYS[:3], TUESDAYS[4], TUESDAYS[3]]
    assert "line 2 (2024-01-02) does not stand on a Monday" in refused(
        rows(*times), frequency=parse_frequency("W-MON"), given=True
    )
    # of rows that are to be sorted it is the earliest
    assert "line 6 (2024-01-02)" in refused(
        rows(*TUESDAYS[1:5], TUESDAYS[0]), frequency=parse_frequency("W-MON"), regular="sort", given=True
    )
