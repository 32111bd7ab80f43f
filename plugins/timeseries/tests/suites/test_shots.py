"""timeseries/few_shot and zero_shot: GPT4TS's count of windows on the real ETTh1, whole val and test, sound grids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from peftx.bench import Request, prepare
from peftx.config.suite import Suite, label
from peftx.data.by_name import named_dataset
from peftx.data.contract import DataContext
from peftx.tasks import ModelSource
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.suites.shots import FEW_SHOT, INPUT, ZERO_SHOT
from peftx_timeseries.tasks.forecasting import Forecasting

SHARED = os.environ.get("PEFTX_SHARED_DATA")
real = pytest.mark.skipif(not SHARED, reason="PEFTX_SHARED_DATA is not set")


def task(ctx: DataContext, name: str, horizon: int, **options: object) -> Forecasting:
    config = ForecastingConfig(input_length=INPUT, horizon=horizon)
    data = named_dataset(name, options).load(ctx)
    return Forecasting(config, data, ModelSource("timeseries.random", {}), ctx)


@real
@pytest.mark.parametrize("percent", [5, 10])
def test_few_shots_are_those_of_gpt4ts_and_nothing_else_changes(tmp_path: Path, percent: int) -> None:
    ctx = DataContext(Path(str(SHARED)), tmp_path, offline=True)
    options = {"train_fraction": percent / 100, "train_context": INPUT}
    assert options in [one.options for one in FEW_SHOT.data]
    # its data set reads the rows [0, border2), and its length is rows - L - H + 1 for each channel
    border2 = (8640 - INPUT) * percent // 100 + INPUT
    for horizon in (96, 192, 336):
        few = task(ctx, "timeseries.etth1", horizon, **options)
        whole = task(ctx, "timeseries.etth1", horizon)
        expected = max(border2 - INPUT - horizon + 1, 0)
        assert few.windows("train").windows == expected, horizon
        assert few.windows("train").start[[0, -1]].tolist() == [INPUT, border2 - horizon]
        for split in ("val", "test"):
            assert (few.windows(split).start == whole.windows(split).start).all()
            part = np.arange(0, len(few.windows(split)), 997)
            cuts = (made.windows(split).cut(part) for made in (few, whole))
            for found, same in zip(*cuts, strict=True):
                assert (found == same).all()
    assert border2 - INPUT - 96 + 1 == {5: 320, 10: 735}[percent] and "320 and 735 windows" in FEW_SHOT.about


@real
@pytest.mark.parametrize(("suite", "name"), [(FEW_SHOT, "few_shot"), (ZERO_SHOT, "zero_shot")])
def test_every_row_of_the_grid_can_be_run(tmp_path: Path, suite: Suite, name: str) -> None:
    request = Request(
        suite=f"timeseries/{name}", data_root=Path(str(SHARED)), out=tmp_path / "out", offline=True
    )
    rows = prepare(request).rows
    assert len(rows) == len(suite.data) * len(suite.methods) and {row.seeds for row in rows} == {3}
    assert {row.model for row in rows} == {"timeseries.minilm"}
    labels = {label(one) for one in suite.data}
    assert labels == {row.data for row in rows} and len(labels) == len(suite.data)
