"""Forecasting as a task: batches, missing values, scores, whole runs, and forecasts of new tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import peftx
from peftx.config.run import RunConfig
from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.runs import predict as predict_run
from peftx.runs.reload import evaluate as evaluate_run
from peftx.tasks import ModelSource
from peftx.tasks.scoring import evaluate
from peftx_timeseries.config.methods import LeastSquaresConfig, NaiveConfig, SeasonalConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.dataset import make_dataset, split_rows
from peftx_timeseries.methods.linear import LeastSquares
from peftx_timeseries.methods.naive import RepeatLast, SeasonalNaive, WindowMean
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.series.series import Series
from peftx_timeseries.tasks.forecasting import Forecasting, filled

SHARED = os.environ.get("PEFTX_SHARED_DATA")


def waves(rows: int = 400, channels: int = 2, missing: bool = False) -> Dataset:
    draw = np.random.default_rng(0)
    time = np.arange(rows)[:, None]
    values = (
        50 + 10 * np.sin(2 * np.pi * time / 24 + np.arange(channels)) + draw.normal(size=(rows, channels))
    )
    if missing:
        values[draw.random(values.shape) < 0.1] = np.nan
    names = tuple(f"c{number}" for number in range(channels))
    times = np.datetime64("2020-01-01T00") + np.arange(rows) * np.timedelta64(1, "h")
    parts = split_rows(
        Series("w", values, names, times), {"train": (0, 250), "val": (250, 320), "test": (320, rows)}
    )
    return make_dataset(
        "timeseries.test",
        {k: [v] for k, v in parts.items()},
        frequency="h",
        period=24,
        source="x",
        licence="y",
    )


def task(data: Dataset | None = None, **options: Any) -> Forecasting:
    config = ForecastingConfig.model_validate({"input_length": 48, "horizon": 12, **options})
    source = ModelSource("timeseries.random", {"patch": 8, "stride": 4}, lambda _: random_trunk(16, 2, 1))
    return Forecasting(config, data or waves(), source, DataContext.create(offline=True))


def score(made: Forecasting, model: nn.Module, size: int = 64) -> dict[str, float]:
    return dict(evaluate(made, model, "test", size))


def test_every_window_of_every_channel_is_in_a_pass_once() -> None:
    made = task()
    seen = [batch["y"] for batch in made.batches("test", 7)]
    assert sum(map(len, seen)) == 2 * (80 - 12 + 1) and len(made.batches("test", 7)) == len(seen)
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.cat([batch["y"] for batch in made.batches("train", 7, train=True, generator=generator)])
    straight = torch.cat([batch["y"] for batch in made.batches("train", 7)])
    assert len(shuffled) == 2 * (250 - 48 - 12 + 1) and not torch.equal(shuffled, straight)
    assert torch.equal(shuffled.sort(0).values, straight.sort(0).values)
    strided = task(stride=5, val_stride=3)
    assert [strided.windows(name).windows for name in ("train", "val", "test")] == [39, 20, 69]


def test_an_epoch_may_have_some_windows_drawn_anew() -> None:
    made = task(epoch_samples=20)
    generator = torch.Generator().manual_seed(0)
    first, second = (made.batches("train", 7, train=True, generator=generator) for _ in range(2))
    assert len(first) == 3
    drawn = [torch.cat([batch["x"] for batch in one]) for one in (first, second)]
    assert [len(one) for one in drawn] == [20, 20] and not torch.equal(*drawn)
    every = torch.cat([batch["x"] for batch in made.batches("train", 64)])
    assert len(every) == 2 * (250 - 48 - 12 + 1)
    assert all((every == one).all(1).any() for one in drawn[0])
    many = task(epoch_samples=10_000)
    assert len(many.batches("train", 64, train=True)) == len(many.batches("train", 64)) == 6
    with pytest.raises(ValueError, match="epoch_samples"):
        ForecastingConfig(epoch_samples=0)


def test_a_score_does_not_depend_on_the_batch() -> None:
    made = task()
    torch.manual_seed(0)
    model = made.build_model()
    found = [score(made, model, size) for size in (1, 32, 256)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
    assert found[0]["n"] == 138


def test_naive_forecasts_against_numpy() -> None:
    made = task()
    values = (made.data.splits["test"][0].values - made.scaler.mean[0]) / made.scaler.std[0]
    starts = range(320, 400 - 12 + 1)

    def error(forecast: Any) -> float:
        gaps = [values[t : t + 12] - forecast(values[t - 48 : t]) for t in starts]
        return float(np.mean(np.square(gaps)))

    season = lambda x: np.tile(x[-24:], (1, 1))[:12]  # noqa: E731
    expected = {
        RepeatLast: error(lambda x: x[-1:]),
        WindowMean: error(lambda x: x.mean(0, keepdims=True)),
        SeasonalNaive: error(season),
    }
    for method, mse in expected.items():
        config = SeasonalConfig() if method is SeasonalNaive else NaiveConfig()
        assert score(made, method().build(made, config))["mse"] == pytest.approx(mse, rel=1e-5)
    # in original units every channel counts by its own deviation
    found = score(made, RepeatLast().build(made, NaiveConfig()))
    raw = made.data.splits["test"][0].values
    own = np.mean([np.square(raw[t : t + 12] - raw[t - 1 : t]) for t in starts])
    assert found["mse_original"] == pytest.approx(own, rel=1e-5)
    with pytest.raises(ConfigError, match="a season of 99 rows does not fit into an input of 48"):
        SeasonalNaive().build(made, SeasonalConfig(period=99))


def test_a_season_is_repeated_as_often_as_it_takes() -> None:
    made = task(horizon=30)
    model = SeasonalNaive().build(made, SeasonalConfig())
    x = torch.randn(3, 48)
    expected = np.stack([np.resize(row[-24:], 30) for row in x.numpy()])
    np.testing.assert_array_equal(model(x).numpy(), expected)


def test_many_series_are_each_scaled_by_their_own_training_rows() -> None:
    draw, held = np.random.default_rng(0), []
    for number in range(70):
        values = 10.0 ** (number % 5) * (5 + draw.normal(size=(90, 1)))
        held.append(Series(f"s{number}", values, ("y",)))
    splits = {
        name: [one.rows(*rows) for one in held]
        for name, rows in {"train": (0, 66), "val": (66, 78), "test": (78, 90)}.items()
    }
    data = make_dataset("timeseries.many", splits, frequency="h", period=1, source="x", licence="y")
    assert "scaler" not in data.card
    made = task(data)
    x = torch.cat([batch["x"] for batch in made.batches("train", 64)])
    assert float(x.abs().max()) < 6 and float(x.std()) == pytest.approx(1.0, abs=0.15)
    assert 0.5 < score(made, RepeatLast().build(made, NaiveConfig()))["mse"] < 4


def test_more_patches_than_positions_are_refused() -> None:
    made = task(input_length=48)
    trunk = random_trunk(16, 2, 1)
    trunk.positions = 40
    made.model = ModelSource("mine", {"patch": 1, "stride": 1}, lambda _: trunk)
    with pytest.raises(ConfigError, match="an input of 48 rows makes 49 patches, and mine has 40 positions"):
        made.build_model()


def test_missing_values_count_nowhere() -> None:
    made = task(waves(missing=True))
    batch = next(iter(made.batches("test", 32)))
    assert torch.isfinite(batch["x"]).all() and 0 < float((batch["seen"] == 0).float().mean()) < 0.3
    assert not torch.isfinite(batch["y"]).all()
    torch.manual_seed(0)
    model = made.build_model()
    made.loss(model, batch).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert np.isfinite(list(score(made, model).values())).all()
    values, seen = filled(torch.tensor([[np.nan, 1.0, np.nan, 3.0], [np.nan] * 4]))
    assert values.tolist() == [[1.0, 1.0, 1.0, 3.0], [0.0] * 4] and seen.tolist() == [[0, 1, 0, 1], [0] * 4]


def test_the_naive_forecast_of_a_backtest_is_the_row_of_that_name() -> None:
    made = task(waves(missing=True), input_length=24)
    found = made.exhibit(SeasonalNaive().build(made, SeasonalConfig()), "test", {})["errors"]
    assert found["name"] == "seasonal naive"
    np.testing.assert_allclose(found["own"], found["naive"], rtol=1e-4)


def test_the_residual_starts_as_the_closed_form() -> None:
    made = task()
    made.model = ModelSource("x", {"patch": 8, "stride": 4, "residual": "linear"}, made.model.build)
    model = made.build_model()
    line = LeastSquares().build(made, LeastSquaresConfig())
    line.load_state_dict(LeastSquares().fit(line, made, LeastSquaresConfig()))
    assert score(made, model)["mse"] == pytest.approx(score(made, line)["mse"], rel=1e-5)
    assert made.model_card()["residual"] == "linear"
    batch = next(iter(made.batches("test", 64)))
    with torch.autocast("cpu", torch.bfloat16):  # the forecast that the trunk corrects stays exact
        rounded = made.forward(model, batch)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, made.forward(model, batch))


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)])
def test_training_lowers_the_loss(quantiles: tuple[float, ...]) -> None:
    made = task(quantiles=quantiles)
    torch.manual_seed(0)
    adapted = peftx.attach(made.build_model(), "timeseries.one_for_all", rank=4, io="both")
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-2))
    generator = torch.Generator().manual_seed(0)
    losses = []
    for batch in (b for _ in range(3) for b in made.batches("train", 32, train=True, generator=generator)):
        loss = made.loss(adapted.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    if quantiles:
        found = score(made, adapted.model)
        assert 0.4 < found["coverage"] <= 1 and found["crps"] == pytest.approx(2 * found["pinball"])


RUN: dict[str, Any] = {
    "task": {"name": "timeseries", "input_length": 48, "horizon": 12, "stride": 8},
    "data": {"name": "waves", "rows": 600},
    "model": {"name": "random", "patch": 8, "stride": 4, "width": 16, "heads": 2, "blocks": 1},
    "train": {"epochs": 1},
    "device": "cpu",
    "offline": True,
    "efficiency": False,
}


def test_a_run_prints_every_row_and_can_be_scored_again(tmp_path: Path) -> None:
    result = execute(RunConfig.model_validate(RUN | {"out": tmp_path / "run"}))
    assert [row["method"] for row in result.rows] == [
        "timeseries.one_for_all",
        *(f"timeseries.{name}" for name in (
            "repeat_last", "seasonal_naive", "window_mean", "least_squares", "dlinear", "nlinear"
        )),
    ]  # fmt: skip
    assert not any("error" in row for row in result.rows)
    assert any("windows of 48 + 12 rows" in note for note in result.notes)
    assert evaluate_run(result.folder, get_registry()).exact
    page = (result.folder / "report.html").read_text()
    assert "timeseries.least_squares" in page


def test_a_forecast_of_a_new_table_is_in_its_own_units_and_times(tmp_path: Path) -> None:
    values = RUN | {
        "method": "timeseries.least_squares",
        "baselines": [],
        "out": tmp_path / "run",
        "report": False,
    }
    record = execute(RunConfig.model_validate(values)).record
    channels = record["data"]["card"]["channels"]
    times = pd.date_range("2030-03-01", periods=60, freq="h")
    wave = 1000 + 20 * np.sin(2 * np.pi * np.arange(72) / 24)
    frame = pd.DataFrame({"date": times, **{name: wave[:60] for name in channels}, "other": 0.0})
    frame.to_csv(tmp_path / "new.csv", index=False)
    (found,) = predict_run(tmp_path / "run", [tmp_path / "new.csv"])
    rows = found["forecast"]
    assert len(rows) == 12 * len(channels)
    assert rows[0]["time"] == "2030-03-03 12:00:00" and rows[11]["step"] == 12
    first = [row["forecast"] for row in rows[:12]]
    assert np.abs(np.array(first) - 1000).max() < 200
    frame.drop(columns=channels[0]).to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(
        DataError, match=r"less\.csv has no column 'wave1', and the run was trained on wave1, wave2"
    ):
        predict_run(tmp_path / "run", [tmp_path / "less.csv"])
    frame.head(20).to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(
        DataError, match="has 20 rows, and a forecast looks at the last 48: give a longer history"
    ):
        predict_run(tmp_path / "run", [tmp_path / "short.csv"])


def test_quantiles_ascend_and_hold_the_median() -> None:
    for wrong in ((0.1, 0.9), (0.9, 0.5), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(ValueError, match=r"quantiles"):
            ForecastingConfig(quantiles=wrong)
