"""Short-term forecasting: its windows, its rows to compare with, whole runs, and figures of the competitions."""

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
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.config.methods import LeastSquaresConfig, NaiveConfig, SeasonalConfig
from peftx_timeseries.config.short_term import ShortTermConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.borders import at_horizon
from peftx_timeseries.data.dataset import make_dataset, split_rows
from peftx_timeseries.data.waves import load as load_waves
from peftx_timeseries.methods.linear import LeastSquares
from peftx_timeseries.methods.naive import Naive2, RepeatLast, SeasonalNaive, WindowMean
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.series.seasonality import naive2
from peftx_timeseries.series.series import Series
from peftx_timeseries.tasks.forecasting import Forecasting
from peftx_timeseries.tasks.short_term import ShortTerm

SHARED = os.environ.get("PEFTX_SHARED_DATA")


def quarters(count: int = 12, period: int = 4, longest: int = 44) -> Dataset:
    """Series of 20 rows and more, horizon 4; after the training rows their values are above 1,000."""
    held = []
    for number in range(count):
        rows = 20 + (number * 7) % (longest - 19)
        time = np.arange(rows)
        wave = 100 + 20 * np.sin(np.pi * time / 2 + number) + 0.1 * number * time
        wave[rows - 8 :] += 1000
        held.append(Series(f"q{number}", wave[:, None], ("value",)))
    return dataset(held, period=period)


def dataset(held: list[Series], period: int = 4, horizon: int = 4) -> Dataset:
    cuts = [split_rows(one, at_horizon(len(one.values), horizon)) for one in held]
    return make_dataset(
        "timeseries.test",
        {name: [one[name] for one in cuts] for name in ("train", "val", "test")},
        frequency="QS",
        period=period,
        source="x",
        licence="y",
        horizon=horizon,
    )


def task(data: Dataset | None = None, **options: Any) -> ShortTerm:
    source = ModelSource("timeseries.random", {}, lambda _: random_trunk(16, 2, 1))
    return ShortTerm(
        ShortTermConfig.model_validate(options), data or quarters(), source, DataContext.create(offline=True)
    )


def score(made: ShortTerm, model: nn.Module, split: str = "test", size: int = 5) -> dict[str, float]:
    return dict(evaluate(made, model, split, size))


def raw(batch: dict[str, torch.Tensor], name: str) -> np.ndarray:
    return (batch[name].double() * batch["std"][:, None] + batch["mean"][:, None]).numpy()


def whole(made: ShortTerm, split: str, **options: Any) -> dict[str, torch.Tensor]:
    (batch,) = made.batches(split, 10_000, **options)
    return batch


def test_the_horizon_is_the_data_sets_and_the_input_twice_as_long() -> None:
    made = task()
    assert (made.shapes.horizon, made.shapes.length, made.shapes.period) == (4, 8, 4)
    assert (task(horizon=2).shapes.horizon, task(input_length=20).shapes.length) == (2, 20)
    waves = load_waves(WavesConfig(), DataContext.create(offline=True))
    with pytest.raises(
        DataError, match=r"does not say how many rows are to be forecast: give --task\.horizon"
    ):
        task(waves)
    assert task(waves, horizon=24).samples("test") == 3  # one of each channel
    with pytest.raises(
        DataError, match="q0 has 4 rows in val, and 5 are to be forecast: split the data at the hor"
    ):
        task(horizon=5).prepare(["val"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_each_series_is_forecast_once_from_the_rows_before(split: str) -> None:
    made = task()
    batch, held = whole(made, split), made.data.splits[split].series
    assert len(batch["y"]) == made.samples(split) == 12
    for number, one in enumerate(held):
        np.testing.assert_allclose(
            raw(batch, "y")[number],
            one.values[-4:, 0] if split == "test" else one.values[-8:-4, 0],
            rtol=1e-5,
        )
        np.testing.assert_allclose(
            raw(batch, "x")[number], one.values[one.end - 12 : one.end - 4, 0], rtol=1e-5
        )
        past = one.values[: one.begin, 0]
        assert batch["scale"][number] == pytest.approx(np.abs(past[4:] - past[:-4]).mean(), rel=1e-6)
        np.testing.assert_allclose(raw(batch, "naive2")[number], naive2(past, 4, 4), rtol=1e-5)
        np.testing.assert_allclose(raw(batch, "seasonal_naive")[number], past[-4:], rtol=1e-5)


@pytest.mark.parametrize("windows", ["random", "all"])
def test_training_sees_nothing_behind_its_rows(windows: str) -> None:
    made = task(windows=windows)
    generator = torch.Generator().manual_seed(0)
    for batch in (whole(made, "train", train=True, generator=generator), whole(made, "train")):
        assert np.nanmax(raw(batch, "y")) < 200 and raw(batch, "x").max() < 200
        assert batch["y"].isfinite().any(1).all() and batch["seen"].bool().any(1).all()


def test_an_epoch_draws_a_window_of_each_series_anew() -> None:
    made = task(draws=2)
    assert made.samples("train") == 24 == len(whole(made, "train")["y"])
    generator = torch.Generator().manual_seed(0)
    starts: dict[int, set[int]] = {}
    windows = made.windows("train")
    for _ in range(200):
        samples = made.batches("train", 5, train=True, generator=generator).order()
        owners = windows.owner[samples]
        assert np.bincount(owners).tolist() == [2] * 12
        for owner, start in zip(owners, windows.start[samples], strict=True):
            starts.setdefault(int(owner), set()).add(int(start))
    for number, one in enumerate(made.data.splits["train"].series):
        assert starts[number] == set(range(1, one.end))
    again = [torch.Generator().manual_seed(4) for _ in range(2)]
    one, two = (whole(made, "train", train=True, generator=each) for each in again)
    assert torch.equal(one["x"], two["x"])
    # what is scored of a training split are the last targets that are whole
    last = windows.start[made.batches("train", 5).order()].reshape(12, 2)
    assert last.tolist() == [[one.end - 5, one.end - 4] for one in made.data.splits["train"].series]


def test_training_can_be_on_every_window_or_on_the_last_ones() -> None:
    made = task(windows="all")
    assert made.samples("train") == sum(one.end - 1 for one in made.data.splits["train"].series)
    assert len(made.batches("train", 7, train=True)) == -(-made.samples("train") // 7)
    near = task(recent=1.5).windows("train")
    ends = np.array([one.end for one in made.data.splits["train"].series])
    assert (near.start >= ends[near.owner] - 6).all() and len(near.start) == 12 * 6
    strided = task(windows="all", stride=3)
    assert strided.samples("train") == sum(-(-(one.end - 1) // 3) for one in made.data.splits["train"].series)


def test_short_histories_are_padded_and_masked_or_left_out() -> None:
    made = task(input_length=16)
    batch = whole(made, "val")
    lengths = [one.begin for one in made.data.splits["val"].series]
    assert batch["seen"].sum(1).tolist() == [min(16, rows) for rows in lengths] and min(lengths) == 12
    assert batch["x"].isfinite().all()
    torch.manual_seed(0)
    model = made.build_model()
    assert np.isfinite(list(score(made, model).values())).all()
    assert task(input_length=16, short_series="refuse").samples("val") == sum(rows >= 16 for rows in lengths)


def test_a_score_does_not_depend_on_the_batch() -> None:
    made = task()
    torch.manual_seed(0)
    model = made.build_model()
    found = [score(made, model, "val", size) for size in (1, 5, 100)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)
    assert found[0]["n"] == 12 and {"smape", "mase", "owa", "mse", "mae_original"} <= set(found[0])


def test_rows_to_compare_with_are_scored_in_the_units_of_the_series() -> None:
    made = task()
    held = made.data.splits["val"].series
    truth = [one.values[one.begin : one.end, 0] for one in held]
    expected = {
        RepeatLast: [one.values[one.begin - 1, 0] for one in held],
        WindowMean: [one.values[one.begin - 8 : one.begin, 0].mean() for one in held],
        SeasonalNaive: [one.values[one.begin - 4 : one.begin, 0] for one in held],
        Naive2: [naive2(one.values[: one.begin, 0], 4, 4) for one in held],
    }
    for method, forecasts in expected.items():
        config = SeasonalConfig() if method is SeasonalNaive else NaiveConfig()
        found = score(made, method().build(made, config), "val")
        errors = [
            200 * np.abs(y - f) / (np.abs(y) + np.abs(f)) for y, f in zip(truth, forecasts, strict=True)
        ]
        assert found["smape"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert score(made, Naive2().build(made, NaiveConfig()))["owa"] == pytest.approx(1, rel=1e-6)
    line = LeastSquares().build(made, LeastSquaresConfig())
    line.load_state_dict(LeastSquares().fit(line, made, LeastSquaresConfig()))
    assert np.isfinite(score(made, line)["smape"])


def test_a_season_longer_than_the_input_is_that_of_the_history() -> None:
    made = task(quarters(period=11))
    model = SeasonalNaive().build(made, SeasonalConfig())
    (batch,) = made.batches("test", 100)
    one = made.data.splits["test"].series[3]
    forecast = made.forward(model, batch)[3] * batch["std"][3] + batch["mean"][3]
    np.testing.assert_allclose(forecast.numpy(), one.values[one.begin - 11 : one.begin - 7, 0], rtol=1e-5)
    with pytest.raises(ConfigError, match="a season of 9 rows does not fit into an input of 8"):
        SeasonalNaive().build(made, SeasonalConfig(period=9))


def test_naive2_needs_a_history() -> None:
    source = ModelSource("timeseries.random", {}, lambda _: random_trunk(16, 2, 1))
    data = load_waves(WavesConfig(), DataContext.create(offline=True))
    other = Forecasting(ForecastingConfig(), data, source, DataContext.create(offline=True))
    with pytest.raises(ConfigError, match="needs the whole history: take --task short_term"):
        Naive2().build(other, NaiveConfig())


def test_series_that_never_change_divide_nothing_by_zero() -> None:
    held = [Series("zero", np.zeros((20, 1)), ("value",)), Series("flat", np.full((20, 1), 7.0), ("value",))]
    moving = Series("moving", np.arange(1.0, 21)[:, None], ("value",))
    made = task(dataset([*held, moving]))
    found = score(made, RepeatLast().build(made, NaiveConfig()))
    own = np.mean([200 * h / (32 + h) for h in range(1, 5)])
    assert found["smape"] == pytest.approx(own / 3, rel=1e-5)
    assert found["mase"] == pytest.approx(2.5 / 4, rel=1e-5) and found["owa"] == pytest.approx(1)
    torch.manual_seed(0)
    model = made.build_model()
    loss = made.loss(model, whole(made, "train", train=True))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", [{}, {"loss": "mae"}, {"quantiles": (0.1, 0.5, 0.9)}])
def test_training_lowers_the_loss(options: dict[str, Any]) -> None:
    made = task(draws=8, **options)
    torch.manual_seed(0)
    adapted = peftx.attach(made.build_model(), "timeseries.one_for_all", rank=4, io="both")
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-2))
    generator, losses = torch.Generator().manual_seed(0), []
    for batch in (b for _ in range(4) for b in made.batches("train", 16, train=True, generator=generator)):
        loss = made.loss(adapted.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    if not options:
        batch = whole(made, "val")
        adapted.model.eval()
        metric = score(made, adapted.model, "val")["smape"]
        assert float(made.loss(adapted.model, batch).detach()) == pytest.approx(metric, rel=1e-4)


RUN: dict[str, Any] = {
    "task": {"name": "timeseries.short_term"},
    "data": {"name": "months", "count": 12, "horizon": 6},
    "model": {"name": "random", "width": 16, "heads": 2, "blocks": 1},
    "train": {"epochs": 1},
    "device": "cpu",
    "offline": True,
    "efficiency": False,
}


def test_a_run_prints_every_row_and_forecasts_what_comes_next(tmp_path: Path) -> None:
    result = execute(RunConfig.model_validate(RUN | {"out": tmp_path / "run"}))
    assert [row["method"] for row in result.rows] == [
        "timeseries.one_for_all",
        *(f"timeseries.{name}" for name in (
            "naive2", "repeat_last", "seasonal_naive", "window_mean", "least_squares", "dlinear", "nlinear"
        )),
    ]  # fmt: skip
    assert not any("error" in row for row in result.rows)
    assert result.record["primary"] == "smape" and result.rows[0]["metrics"]["test"]["n"] == 12
    assert result.rows[1]["metrics"]["test"]["owa"] == pytest.approx(1)
    assert result.record["model"]["patches"] == 13 and result.record["model"]["patch"] == "1 rows, 1 apart"
    assert any("windows of 12 + 6 rows: a random one of each of 12 series" in note for note in result.notes)
    assert evaluate_run(result.folder, get_registry()).exact
    assert "timeseries.naive2" in (result.folder / "report.html").read_text()


def test_a_forecast_of_naive2_looks_at_the_whole_table(tmp_path: Path) -> None:
    values = RUN | {"method": "timeseries.naive2", "baselines": [], "out": tmp_path / "run", "report": False}
    values["data"] = {"name": "months", "count": 70, "horizon": 6}  # more than a record keeps the scaling of
    execute(RunConfig.model_validate(values))
    season = np.array([1.5, 1, 0.5, 1, 1, 1, 1, 1, 1, 1, 0.7, 1.3])
    times = pd.date_range("2030-01-01", periods=50, freq="MS")
    frame = pd.DataFrame({"unique_id": "mine", "ds": times, "y": 300 * season[np.arange(50) % 12]})
    frame.to_csv(tmp_path / "new.csv", index=False)
    (found,) = predict_run(tmp_path / "run", [tmp_path / "new.csv"])
    forecast = [row["forecast"] for row in found["forecast"]]
    np.testing.assert_allclose(forecast, 300 * season[(50 + np.arange(6)) % 12], rtol=1e-5)


@pytest.mark.skipif(not SHARED, reason="PEFTX_SHARED_DATA is not set: the real M3 and M4 are not at hand")
@pytest.mark.parametrize(
    ("data", "method", "smape", "mase", "count"),
    [
        # as the organisers of M4 printed them
        ("m4:hourly", "naive2", 18.383, 2.395, 414),
        ("m4:hourly", "seasonal_naive", 13.912, 1.193, 414),
        ("m4:weekly", "naive2", 9.161, 2.777, 359),
        # M3 printed 17.88 for its own Naive2; years have no season that it could adjust for otherwise
        ("tsf:monash/m3_yearly_dataset.tsf.gz", "naive2", 17.880, None, 645),
    ],
)
def test_published_figures_on_the_real_series(
    tmp_path: Path, data: str, method: str, smape: float, mase: float | None, count: int
) -> None:
    config = RUN | {
        "data": {"name": data},
        "model": {"name": "random"},
        "data_root": Path(str(SHARED)) / "timeseries",
        "method": f"timeseries.{method}",
        "baselines": [],
        "out": tmp_path / "run",
        "report": False,
    }
    found = execute(RunConfig.model_validate(config)).rows[0]["metrics"]["test"]
    assert found["n"] == count and round(found["smape"], 3) == smape
    assert mase is None or round(found["mase"], 3) == mase
