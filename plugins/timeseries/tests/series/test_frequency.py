"""Frequencies: told from times of which some are missing, read from text, counted along, and their seasons."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.errors import DataError
from peftx_timeseries.series.frequency import Frequency, infer_frequency, parse_frequency

SEASONS = {
    "s": 3600,
    "10s": 360,
    "min": 1440,
    "5min": 288,
    "15min": 96,
    "30min": 48,
    "h": 24,
    "2h": 12,
    "6h": 4,
    "D": 7,
    "2D": 1,
    "B": 5,
    "W-TUE": 52,
    "2W-SUN": 26,
    "MS": 12,
    "ME": 12,
    "2MS": 6,
    "QS-OCT": 4,
    "QE-DEC": 4,
    "YS-JAN": 1,
    "YE-DEC": 1,
    "5h": 1,
}


def index(alias: str, count: int, start: str = "2019-01-01") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=count, freq=alias)


@pytest.mark.parametrize("alias", SEASONS)
def test_it_is_told_from_times_written_in_text_and_has_its_season(alias: str) -> None:
    times = index(alias, 60)
    found = infer_frequency(times.to_numpy())
    # quarters that begin in October begin in January too: what counts is that both are the same times
    assert pd.date_range(times[0], periods=60, freq=found.alias).equals(times), found
    assert found.period == SEASONS[alias] == parse_frequency(alias).period
    assert parse_frequency(found.alias) == found


@given(st.sampled_from([alias for alias in SEASONS if alias != "5h"]), st.randoms(use_true_random=False))
def test_a_third_of_the_rows_may_be_missing(alias: str, random: object) -> None:
    whole = index(alias, 90).to_numpy()
    kept = sorted(random.sample(range(90), 75))  # type: ignore[attr-defined]
    found = infer_frequency(whole[kept])
    assert found.unit == parse_frequency(alias).unit and found.count == parse_frequency(alias).count
    steps, off = found.steps(whole[kept])
    assert not off.any() and (steps == np.array(kept) - kept[0]).all()


@pytest.mark.parametrize("alias", SEASONS)
@pytest.mark.parametrize("start", ["2019-01-31 07:30", "2020-02-29", "1899-12-31"])
def test_counting_and_going_are_inverse(alias: str, start: str) -> None:
    frequency = parse_frequency(alias)
    times = index(alias, 40, start).to_numpy()
    went = frequency.times(times[0], np.arange(40))
    assert (went == times).all()
    steps, off = frequency.steps(times)
    assert steps.tolist() == list(range(40)) and not off.any()


def test_a_day_that_a_month_does_not_have_is_its_last() -> None:
    days = Frequency("M").times(np.datetime64("2023-01-31"), np.arange(4))
    assert days.astype("datetime64[D]").astype(str).tolist() == [
        "2023-01-31",
        "2023-02-28",
        "2023-03-31",
        "2023-04-30",
    ]
    assert not Frequency("M").steps(days)[1].any()


def test_times_between_steps_are_rounded_down() -> None:
    stamps = np.array(
        ["2024-01-05T10", "2024-01-05T23", "2024-01-06T10", "2024-01-08T09"], dtype="datetime64[s]"
    )
    for unit, expected in (("D", [0, 0, 1, 2]), ("B", [0, 0, 0, 0]), ("h", [0, 13, 24, 71])):
        steps, off = Frequency(unit).steps(stamps)
        assert steps.tolist() == expected, unit
    assert Frequency("D").steps(stamps)[1].tolist() == [False, True, False, True]
    assert Frequency("B").steps(stamps)[1].tolist() == [False, True, True, True]
    months = np.array(["2024-01-15", "2024-02-14", "2024-02-15", "2024-04-30"], dtype="datetime64[D]")
    steps, off = Frequency("M").steps(months)
    assert steps.tolist() == [0, 0, 1, 3] and off.tolist() == [False, True, False, True]


def test_days_without_a_weekend_are_days_until_one_is_stepped_over() -> None:
    week = index("D", 5, "2024-01-01").to_numpy()  # Monday to Friday
    assert infer_frequency(week).alias == "D"
    assert infer_frequency(index("B", 6, "2024-01-01").to_numpy()).alias == "B"
    assert infer_frequency(index("D", 14, "2024-01-01").to_numpy()).alias == "D"


@pytest.mark.parametrize(
    ("text", "alias"),
    [
        *[
            ("H", "h"),
            ("T", "min"),
            ("15T", "15min"),
            ("S", "s"),
            ("M", "ME"),
            ("Q", "QE"),
            ("A-DEC", "YE-DEC"),
        ],
        *[
            ("AS", "YS"),
            ("Y", "YE"),
            ("w-mon", "W-MON"),
            ("hourly", "h"),
            ("half_hourly", "30min"),
            ("yearly", "YS"),
        ],
        *[
            ("10_minutes", "10min"),
            ("4_seconds", "4s"),
            ("minutely", "min"),
            ("Daily", "D"),
            (" weekly ", "W"),
        ],
        *[("quarterly", "QS"), ("monthly", "MS"), ("3MS", "3MS")],
    ],
)
def test_older_names_and_words_are_read(text: str, alias: str) -> None:
    assert parse_frequency(text).alias == alias


@pytest.mark.parametrize(
    "text", ["", "fortnight", "0h", "h-MON", "W-JAN", "QS-MON", "-1D", "1.5h", "15", "W-XYZ"]
)
def test_what_is_no_frequency_is_one_sentence(text: str) -> None:
    with pytest.raises(
        DataError, match=r"is no frequency: give one such as h, 15min, D, B, W-MON, MS"
    ) as error:
        parse_frequency(text)
    assert "\n" not in str(error.value)


def test_no_even_step_is_one_sentence_that_says_what_to_give() -> None:
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-01-01T00:00:00") + np.cumsum(rng.integers(60, 90_000, 50)).astype(
        "timedelta64[s]"
    )
    with pytest.raises(
        DataError, match=r"^x\.csv: the frequency cannot be told .* --data\.frequency, such as h,"
    ):
        infer_frequency(times, "x.csv")
    with pytest.raises(DataError, match=r"2 times are too few to tell .* --data\.frequency"):
        infer_frequency(times[:2], "x.csv")


@pytest.mark.parametrize(
    "alias", ["W-MON", "W-SUN", "QS-FEB", "QE-NOV", "QE-DEC", "YS-APR", "YE-JUN", "MS", "ME", "D", "B"]
)
@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_the_round_time_before_is_that_of_pandas(alias: str, time: datetime) -> None:
    frequency, day = parse_frequency(alias), pd.Timestamp(time).normalize()
    before = frequency.before(np.datetime64(time, "us"))
    assert pd.Timestamp(before) == pd.tseries.frequencies.to_offset(alias).rollback(day)
    assert frequency.keeps(np.array([before])).all()


def test_an_anchor_that_was_stated_stays_and_one_that_was_not_is_that_of_the_first_row() -> None:
    tuesday = np.datetime64("2024-01-02")
    assert [
        parse_frequency(alias).anchored(tuesday).alias for alias in ("W", "W-MON", "QS", "QS-OCT", "D")
    ] == [
        "W-TUE",
        "W-MON",
        "QS-JAN",
        "QS-OCT",
        "D",
    ]
    months = index("MS", 12, "2024-01-01").to_numpy()
    assert parse_frequency("QS-FEB").keeps(months).tolist() == [False, True, False] * 4
    assert (
        parse_frequency("YS-FEB").keeps(months).sum() == 1 and not parse_frequency("ME").keeps(months).any()
    )
    assert (
        parse_frequency("W-MON").keeps(index("D", 7, "2024-01-01").to_numpy()).tolist()
        == [True] + [False] * 6
    )
    assert parse_frequency("h").keeps(months).all() and parse_frequency("MS").keeps(months).all()


def test_the_round_time_before() -> None:
    time = np.datetime64("2024-05-17T13:47:21")
    for alias, expected in (
        ("h", "2024-05-17T13:00"),
        ("15min", "2024-05-17T13:45"),
        ("D", "2024-05-17"),
        ("W", "2024-05-17"),
        ("W-MON", "2024-05-13"),
        ("QS-FEB", "2024-05-01"),
        ("QS-MAR", "2024-03-01"),
        ("MS", "2024-05-01"),
        ("QS", "2024-04-01"),
        ("YS", "2024-01-01"),
        ("ME", "2024-04-30"),
    ):
        assert parse_frequency(alias).before(time) == np.datetime64(expected), alias


def test_an_m_alone_is_asked_about() -> None:
    with pytest.raises(
        DataError, match=r"^'15m' may be minutes or months: give .* 15min for minutes, 15MS for months$"
    ):
        parse_frequency("15m")
    with pytest.raises(DataError, match="'Ms' is no frequency"):
        parse_frequency("Ms")
    assert (parse_frequency("M").alias, parse_frequency("ms").alias) == ("ME", "ms")
