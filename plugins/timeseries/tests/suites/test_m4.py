"""The averages of M4 are weighted by its series, and those of Naive2 are the published ones."""

from __future__ import annotations

import math

import pytest

from peftx.errors import DataError
from peftx_timeseries.data.m4 import GROUPS
from peftx_timeseries.suites.m4 import ALL, M4, SERIES, averages


def test_groups_are_those_of_the_data_set() -> None:
    assert {name: group.series for name, group in GROUPS.items()} == SERIES and sum(
        SERIES.values()
    ) == 100_000
    assert [one.name for one in M4.data] == [f"timeseries.m4:{name}" for name in SERIES]


def test_averages_are_weighted_by_series() -> None:
    scores = {f"timeseries.m4:{name}": float(at) for at, name in enumerate(SERIES)}
    found = averages(scores)
    assert found["Yearly"] == 0 and found["Quarterly"] == 1 and found["Monthly"] == 2
    others = (3 * 359 + 4 * 4_227 + 5 * 414) / 5_000
    assert found["Others"] == pytest.approx(others, rel=1e-12)
    assert found[ALL] == pytest.approx((24_000 + 2 * 48_000 + 5_000 * others) / 100_000, rel=1e-12)
    # the organisers print 13.564 for Naive2 over all series
    (naive2,) = M4.published_averages
    assert naive2.values[ALL] == 13.564


def test_an_average_of_fewer_groups_is_refused() -> None:
    scores = {f"timeseries.m4:{name}": 1.0 for name in SERIES}
    with pytest.raises(DataError, match=r"take all 6 groups; missing: daily, hourly"):
        averages({f"timeseries.m4:{name}": 1.0 for name in list(SERIES)[:4]})
    with pytest.raises(DataError, match="M4 has no group 'hours'"):
        averages(scores | {"timeseries.m4:hours": 1.0})
    with pytest.raises(DataError, match="the score of daily is nan"):
        averages(scores | {"timeseries.m4:daily": math.nan})
