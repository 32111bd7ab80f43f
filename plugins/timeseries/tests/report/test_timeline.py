"""Lines over time: round ticks of the calendar, thinning that keeps both ends, gaps that stay gaps."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from peftx.report.markup import problem
from peftx.report.svg import Box
from peftx_timeseries.report.timeline import Line, chart, points_of, row_ticks, thinned, time_ticks

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("step", "count", "expected"),
    [
        (365.25 * 24 * HOUR, 24, ["2005", "2010", "2015", "2020"]),
        (24 * HOUR, 100, ["2000-07", "2000-08", "2000-09"]),
        (HOUR, 60, ["06-01 12:00", "06-02 00:00", "06-02 12:00", "06-03 00:00"]),
        (HOUR / 60, 200, ["06-01 01:00", "06-01 02:00", "06-01 03:00"]),
    ],
)
def test_ticks_stand_where_something_round_begins(step: timedelta, count: int, expected: list[str]) -> None:
    times = [datetime(2000, 6, 1) + at * step for at in range(count)]
    found = time_ticks(times, first=100, most=5)
    assert [text for _, text in found] == expected
    # the first row that has begun, and the one before has not
    for row, text in found:
        form = {4: "%Y", 7: "%Y-%m", 11: "%m-%d %H"}[len(text)]
        now, before = (times[row - at].strftime(form) for at in (100, 101))
        assert text.startswith(now) and not text.startswith(before)


def test_times_in_which_nothing_begins_have_their_ends() -> None:
    times = [datetime(2000, 1, 1, 0, 0, 0) + timedelta(microseconds=at) for at in range(5)]
    assert [row for row, _ in time_ticks(times)] == [0, 2, 4]
    assert time_ticks([]) == [] and time_ticks(times[:1]) == []
    assert row_ticks(0, 1000)[1] == (200, "200")


def test_thinning_keeps_both_ends() -> None:
    assert thinned(5, 10) == [0, 1, 2, 3, 4]
    found = thinned(1001, 11)
    assert found == list(range(0, 1001, 100))


def test_what_is_missing_is_a_gap_and_what_is_no_list_is_nothing() -> None:
    assert points_of([0, 1, 2, 3, 4], [1.0, None, 2.0, 3.0, float("nan")]) == [[(0, 1)], [(2, 2), (3, 3)]]
    assert points_of("rows", [1]) == [] and points_of([1], None) == [] and points_of(["x"], [True]) == []


def test_a_chart_is_sound_and_one_of_nothing_is_none() -> None:
    box = Box()
    assert chart(box, [Line("a", [])], [], "t", "l") is None
    band = [(0.0, -1.0, 1.0), (1.0, -2.0, 2.0)]
    lines = [Line("<a>", [[(0.0, 1.0), (1.0, 2.0)], [(3.0, 1.0)]], 0, [band, [(3.0, 0.0, 2.0)]], ["<tip>"])]
    drawn = chart(box, lines, [(0, "2000"), (1, "2001"), (999, "out")], "t", "<l>", origins=[1.0], zero=True)
    assert drawn is not None and not problem(drawn)
    assert "&lt;tip&gt;" in drawn and "out" not in drawn and "nan" not in drawn
    flat = chart(box, [Line("a", [[(5.0, 0.0)]])], [], "t", "l")
    assert flat is not None and "nan" not in flat
