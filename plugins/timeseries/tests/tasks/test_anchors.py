"""Figures that anybody gets on the real ETTh1 and ETTh2: naive forecasts, and the closed-form linear one.

All windows of the test months, no last batch left out, standardised by the training months.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from peftx.config.run import RunConfig
from peftx.data.contract import DataContext, Dataset
from peftx.runs import execute
from peftx.tasks import ModelSource
from peftx.tasks.scoring import evaluate
from peftx_timeseries.config.data import OfficialConfig
from peftx_timeseries.config.methods import LeastSquaresConfig, NaiveConfig, SeasonalConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.official import ETTH1, ETTH2
from peftx_timeseries.methods.linear import LeastSquares
from peftx_timeseries.methods.naive import RepeatLast, SeasonalNaive, WindowMean
from peftx_timeseries.tasks.forecasting import Forecasting

SHARED = os.environ.get("PEFTX_SHARED_DATA")
pytestmark = pytest.mark.skipif(
    not SHARED, reason="PEFTX_SHARED_DATA is not set: the real ETT is not at hand"
)

HORIZONS = (96, 192, 336, 720)
WINDOWS = dict(zip(HORIZONS, (2785, 2689, 2545, 2161), strict=True))
#: MSE and MAE at the four horizons, to three digits
NAIVE = {
    ("etth1", "repeat_last"): ((1.294, 0.713), (1.325, 0.733), (1.330, 0.746), (1.335, 0.755)),
    ("etth1", "day"): ((0.512, 0.433), (0.581, 0.469), (0.650, 0.501), (0.655, 0.514)),
    ("etth1", "week"): ((0.657, 0.509), (0.662, 0.513), (0.683, 0.520), (0.658, 0.521)),
    ("etth1", "window_mean"): ((0.706, 0.567), (0.713, 0.575), (0.706, 0.579), (0.701, 0.596)),
    ("etth2", "repeat_last"): ((0.432, 0.422), (0.534, 0.473), (0.597, 0.511), (0.594, 0.519)),
    ("etth2", "day"): ((0.391, 0.380), (0.482, 0.429), (0.532, 0.466), (0.525, 0.474)),
    ("etth2", "window_mean"): ((0.385, 0.419), (0.402, 0.430), (0.393, 0.428), (0.432, 0.455)),
}
ROWS = {
    "repeat_last": (RepeatLast(), NaiveConfig()),
    "day": (SeasonalNaive(), SeasonalConfig()),  # 24 rows, from the frequency
    "week": (SeasonalNaive(), SeasonalConfig(period=168)),
    "window_mean": (WindowMean(), NaiveConfig()),
}


@pytest.fixture(scope="module")
def data() -> dict[str, Dataset]:
    context = DataContext.create(Path(str(SHARED)) / "timeseries" / "ETT-small", offline=True)
    return {name: one.load(OfficialConfig(), context) for name, one in (("etth1", ETTH1), ("etth2", ETTH2))}


def task(data: Dataset, horizon: int) -> Forecasting:
    source = ModelSource("timeseries.random", {}, None)
    return Forecasting(ForecastingConfig(horizon=horizon), data, source, DataContext.create(offline=True))


@pytest.mark.parametrize("horizon", [96, *(pytest.param(h, marks=pytest.mark.slow) for h in HORIZONS[1:])])
@pytest.mark.parametrize(("name", "row"), NAIVE, ids=lambda value: str(value))
def test_naive_forecasts(data: dict[str, Dataset], name: str, row: str, horizon: int) -> None:
    made = task(data[name], horizon)
    method, config = ROWS[row]
    found = evaluate(made, method.build(made, config), "test", 2048)
    assert found["n"] == WINDOWS[horizon] * 7
    assert (round(found["mse"], 3), round(found["mae"], 3)) == NAIVE[name, row][HORIZONS.index(horizon)]


@pytest.mark.parametrize(
    ("name", "horizon", "mse", "mae"),
    [
        ("etth1", 96, 0.3702, 0.3915),
        pytest.param("etth1", 192, 0.4034, 0.4112, marks=pytest.mark.slow),
        pytest.param("etth1", 336, 0.4277, 0.4262, marks=pytest.mark.slow),
        pytest.param("etth1", 720, 0.4344, 0.4505, marks=pytest.mark.slow),
        ("etth2", 96, 0.2726, 0.3352),
    ],
)
def test_the_closed_form(data: dict[str, Dataset], name: str, horizon: int, mse: float, mae: float) -> None:
    made = task(data[name], horizon)
    row, config = LeastSquares(), LeastSquaresConfig()
    model = row.build(made, config)
    model.load_state_dict(
        {key: torch.as_tensor(value) for key, value in row.fit(model, made, config).items()}
    )
    found = evaluate(made, model, "test", 2048)
    assert (round(found["mse"], 4), round(found["mae"], 4)) == (mse, mae)


@pytest.mark.slow
def test_dlinear_is_near_what_its_paper_prints(tmp_path: Path) -> None:
    config = {
        "task": {"name": "timeseries.forecasting", "epoch_samples": 7168, "val_stride": 8},
        "data": {"name": "etth1"},
        "data_root": Path(str(SHARED)) / "timeseries" / "ETT-small",
        "method": "timeseries.dlinear",
        "baselines": [],
        "device": "cpu",
        "efficiency": False,
        "report": False,
        "offline": True,
        "out": tmp_path / "run",
    }
    found = execute(RunConfig.model_validate(config)).rows[0]["metrics"]["test"]
    assert abs(found["mse"] - 0.375) < 0.005
