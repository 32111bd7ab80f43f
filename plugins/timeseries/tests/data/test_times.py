"""How times are written, in which zone, and what is said where one cannot be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from peftx.errors import DataError
from peftx_timeseries.data.times import is_count, looks_like_times, parse_times, to_utc


def column(*cells: object) -> pd.Series:
    return pd.Series(list(cells), name="date")


def parsed(*cells: object, **options: str) -> list[str]:
    times, _ = parse_times(column(*cells), np.arange(2, 2 + len(cells)), "x.csv", **options)
    return [str(time) for time in times.astype("datetime64[s]")]


def refused(*cells: object, **options: str) -> str:
    with pytest.raises(DataError) as error:
        parsed(*cells, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "cells",
    [
        ("2024-01-30 00:00:00", "2024-01-31 06:00:00"),
        ("2024-01-30", "2024-01-31 06:00"),
        ("2024-01-30T00:00", "2024-01-31T06:00:00.000"),
        ("2024/1/30 0:00", "2024/1/31 6:00"),
        ("30.01.2024 00:00", "31.01.2024 06:00"),
        ("01/30/2024 00:00", "01/31/2024 06:00"),
        ("30/01/2024 00:00:00", "31/01/2024 06:00:00"),
        ("30-01-2024 00:00", "31-01-2024 06:00"),
        (" 2024-01-30 00:00:00", "2024-01-31 06:00:00 "),
        ("01/30/2024 12:00 AM", "01/31/2024 6:00 AM"),
        (pd.Timestamp("2024-01-30"), pd.Timestamp("2024-01-31 06:00")),
    ],
)
def test_ways_of_writing_the_same(cells: tuple[str, str]) -> None:
    assert parsed(*cells) == ["2024-01-30T00:00:00", "2024-01-31T06:00:00"]
    assert looks_like_times(column(*cells)) and not is_count(column(*cells))


def test_years_and_days_without_a_separator_are_times_and_other_whole_numbers_count_rows() -> None:
    assert parsed(1999, 2000) == ["1999-01-01T00:00:00", "2000-01-01T00:00:00"]
    assert parsed(20240130, 20240131) == ["2024-01-30T00:00:00", "2024-01-31T00:00:00"]
    assert parsed("1990Q1", "1990-q4") == ["1990-01-01T00:00:00", "1990-10-01T00:00:00"]
    assert looks_like_times(column("1990Q1")) and "'1990Q5'" in refused("1990Q1", "1990Q5")
    assert parsed(1704067200, 1704070800) == ["2024-01-01T00:00:00", "2024-01-01T01:00:00"]
    assert parsed("1704067200000", "1704070800000")[1] == "2024-01-01T01:00:00"
    assert not is_count(column(1704067200, 1704070800)) and is_count(column(1704067200, 5))
    assert not is_count(column(1999, 2000)) and not is_count(column("20240130", "20240131"))
    assert is_count(column(1, 2, 3)) and is_count(column(20240132, 20240133)) and not is_count(column(1.5, 2))
    assert (
        not looks_like_times(column("3.5"))
        and not looks_like_times(column("abc"))
        and not looks_like_times(column())
    )


def test_day_and_month_that_cannot_be_told_apart_are_asked_for() -> None:
    message = refused("01/02/2024", "01/03/2024", "01/04/2024")
    assert message == (
        "x.csv: the times of the column 'date', such as '01/02/2024', may be day and month or month and day: say which "
        "with --data.time-format '%d/%m/%Y' or '%m/%d/%Y'"
    )
    assert parsed("01/02/2024", "01/03/2024", time_format="%d/%m/%Y")[1] == "2024-03-01T00:00:00"
    assert "'%d-%m-%Y %H:%M'" in refused("01-02-2024 00:00", "01-03-2024 00:00")


def test_a_cell_that_is_no_time_is_named() -> None:
    assert refused("2024-01-01", "2024-01-02", "soon", "2024-01-04") == (
        "x.csv: line 4 has 'soon' in the column 'date', which is no time: correct it, or say how times are written "
        "with --data.time-format"
    )
    assert "line 3 has '31/02/2024' in the column 'date', which is no time written as %d/%m/%Y" in refused(
        "30/01/2024", "31/02/2024", "01/03/2024"
    )
    assert "line 3 has no time in the column 'date': write it, or remove the row" in refused(
        "2024-01-01", None
    )
    assert (
        "line 2 has '2024-01-01' in the column 'date', which is no time written as %Y: correct it"
        in refused("2024-01-01", time_format="%Y")
    )


def test_offsets_are_taken_into_account() -> None:
    local = ("2024-03-31T00:00+01:00", "2024-03-31T01:00+01:00", "2024-03-31T03:00+02:00")
    times, utc = parse_times(column(*local), np.arange(3), "x")
    assert utc and [str(time)[:13] for time in times] == ["2024-03-30T23", "2024-03-31T00", "2024-03-31T01"]
    assert parsed("2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z")[1] == "2024-01-01T01:00:00"
    assert parsed("2024-01-01 00:00+01", "2024-01-01 01:00+01")[0] == "2023-12-31T23:00:00"
    assert parsed("2024-01-01T00:00+0100", "2024-07-01T00:00 +0200")[1] == "2024-07-01T00:00:00"
    assert refused("2024-01-01 00:00", "2024-01-01 01:00+01:00") == (
        "x.csv: line 3 has '2024-01-01 01:00+01:00' in the column 'date', a time with an offset from UTC, which those "
        "before it do not have: write all times the same way"
    )
    # dates alone are dates, in summer and in winter
    assert parsed("2024-03-30 00:00+01:00", "2024-04-01 00:00+02:00") == [
        "2024-03-30T00:00:00",
        "2024-04-01T00:00:00",
    ]
    zoned = pd.Series(pd.date_range("2024-03-30", periods=3, freq="D", tz="Europe/Berlin"))
    assert parse_times(zoned, np.arange(3), "x")[0].astype("datetime64[h]").astype(int).tolist()[0] % 24 == 0


def test_local_times_become_utc_whose_days_have_24_hours() -> None:
    local = pd.date_range("2024-03-30", "2024-11-01", freq="h", tz="Europe/Berlin").tz_localize(None)
    steps = np.diff(to_utc(local.to_numpy(), "Europe/Berlin", "x")).astype("timedelta64[m]").astype(int)
    assert (steps == 60).all()
    assert 0 in np.diff(local.to_numpy()).astype(int)  # an hour was there twice
    days = pd.date_range("2024-03-01", periods=60, freq="D").to_numpy()
    assert (to_utc(days, "Europe/Berlin", "x") == days).all()
    noons = days + np.timedelta64(12, "h")  # one time of day, all year: days still, in summer as in winter
    assert (to_utc(noons, "Europe/Berlin", "x") == noons).all()
    assert (to_utc(noons[:1], "Europe/Berlin", "x") == noons[:1] - np.timedelta64(1, "h")).all()


def test_a_zone_that_does_not_fit_is_one_sentence() -> None:
    hours = pd.date_range("2024-03-31", periods=6, freq="h").to_numpy()
    with pytest.raises(
        DataError, match=r"^x: clocks of Europe/Berlin never showed 2024-03-31 02:00:00, which they skip"
    ):
        to_utc(hours, "Europe/Berlin", "x")
    hours = pd.date_range("2024-10-27", periods=6, freq="h").to_numpy()  # the hour from two is there once
    with pytest.raises(
        DataError, match=r"^x: clocks of Europe/Berlin show an hour twice .*write times with their off"
    ):
        to_utc(hours, "Europe/Berlin", "x")
    with pytest.raises(
        DataError, match=r"^there is no time zone 'Mars/Olympus': give one such as Europe/Berlin"
    ):
        to_utc(hours, "Mars/Olympus", "x")
