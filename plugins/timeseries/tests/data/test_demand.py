"""Synthetic demand: the same everywhere, and with covariates that do what they are said to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from peftx.data.contract import DataContext
from peftx.testing import check
from peftx_timeseries.config.data import DemandConfig
from peftx_timeseries.data.demand import demand, load

CTX = DataContext(None, Path("nowhere"), offline=True)


def test_it_is_the_same_everywhere_and_more_rows_leave_the_first_as_they_are() -> None:
    made = demand(4800, 0.2, 0)
    digest = hashlib.sha256(np.stack(made).astype("<f8").tobytes()).hexdigest()[:16]
    assert digest == "60ecc9a691ebef91"
    for long, short in zip(made, demand(500, 0.2, 0), strict=True):
        assert np.array_equal(long[:500], short)
    assert not np.array_equal(demand(500, 0.2, 1)[0], made[0][:500])


def test_the_covariates_act_as_the_equation_says() -> None:
    values, closed, temperature = demand(4800, 0.0, 0)
    hours = np.arange(4800)
    waves = [f(2 * np.pi * hours / period) for period in (24, 12) for f in (np.sin, np.cos)]
    columns = np.stack([np.ones(4800), closed, *waves], 1)[12:]
    columns = np.concatenate([columns, temperature[:-12, None]], 1)
    found, *_ = np.linalg.lstsq(columns, values[12:], rcond=None)
    np.testing.assert_allclose(columns @ found, values[12:], atol=1e-4)
    np.testing.assert_allclose(found[[0, 1, -1]], [100, -15, -6], rtol=1e-5)
    np.testing.assert_allclose([np.hypot(*found[2:4]), np.hypot(*found[4:6])], [10, 4], rtol=1e-5)
    days = closed.reshape(200, 24)
    assert (days == days[:, :1]).all() and 15 < days[:, 0].sum() < 45
    assert 0.6 < temperature.std() < 1.4


def test_it_keeps_the_laws_and_declares_its_covariates() -> None:
    report = check("timeseries.demand")
    assert report.ok, report.render()
    data = load(DemandConfig(rows=300, train_fraction=0.5, train_part="last"), CTX)
    assert data.card["known"] == ["closed"] and data.card["past"] == ["temperature"]
    assert data.card["synthetic"] and [split.extent for split in data.splits.values()] == [105, 30, 60]
    assert len(data.splits["train"][0].covariates["closed"]) == 105
    assert data.card["scaler"]["covariates"]["channels"] == ["closed", "temperature"]
