"""The synthetic months: as many as asked for, positive, some with a season, and always the same."""

from __future__ import annotations

import numpy as np
import pytest

from peftx.data.contract import DataContext
from peftx_timeseries.config.data import MonthsConfig
from peftx_timeseries.data.months import load, months
from peftx_timeseries.series.seasonality import is_seasonal


def test_series_are_of_many_lengths_and_split_at_the_horizon(ctx: DataContext) -> None:
    data = load(MonthsConfig(), ctx)
    train, test = data.splits["train"], data.splits["test"]
    lengths = {len(one.values) for one in test.series}
    assert len(train) == len(test) == 120 and min(lengths) >= 45 and max(lengths) <= 120 and len(lengths) > 30
    assert (
        {len(one) for one in test.series} == {18} and data.card["horizon"] == 18 and data.card["period"] == 12
    )
    seasonal = [is_seasonal(one.values[:, 0], 12) for one in test.series]
    assert 40 < sum(seasonal) < 110 and data.card["synthetic"]
    assert all((one.values > 0).all() for one in test.series)


def test_a_series_is_the_same_whatever_is_asked_for_beside_it(ctx: DataContext) -> None:
    few, many = load(MonthsConfig(count=3), ctx), load(MonthsConfig(count=9), ctx)
    np.testing.assert_array_equal(few.splits["test"][2].values, many.splits["test"][2].values)
    assert few.fingerprint == load(MonthsConfig(count=3), ctx).fingerprint != many.fingerprint
    assert not np.array_equal(months(1, 0)[:40], months(1, 1)[:40])
    assert months(1, 0)[0] == pytest.approx(months(1, 0)[0].round(4), abs=0)
