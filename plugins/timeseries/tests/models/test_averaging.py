"""A trunk whose forecasts are averaged with the closed form's: what is trained, what is told, what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import peftx
from peftx import artifacts
from peftx.data.contract import DataContext
from peftx.errors import ConfigError, ModelError
from peftx.tasks import ModelSource
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.config.methods import LeastSquaresConfig
from peftx_timeseries.config.models import HostConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.waves import load
from peftx_timeseries.methods.linear import LeastSquares
from peftx_timeseries.models.forecaster import Forecaster
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.tasks.forecasting import Forecasting

OPTIONS = {"patch": 8, "stride": 4}


def task(**options: object) -> Forecasting:
    context = DataContext.create(offline=True)
    source = ModelSource("timeseries.random", OPTIONS | options, lambda _: random_trunk(16, 2, 1))
    config = ForecastingConfig(input_length=48, horizon=12)
    return Forecasting(config, load(WavesConfig(), context), source, context)


def built(made: Forecasting) -> Forecaster:
    torch.manual_seed(0)
    model = made.build_model()
    assert isinstance(model, Forecaster)
    return model


def test_a_forecast_is_an_average_and_a_loss_sees_the_trunk_alone() -> None:
    alone, averaged = built(task()), built(task(residual="average", share=0.25))
    made = task()
    batch = next(iter(made.batches("val", 32)))
    line = LeastSquares().build(made, LeastSquaresConfig())
    line.load_state_dict(LeastSquares().fit(line, made, LeastSquaresConfig()))
    with torch.no_grad():
        trunk, closed = alone.eval()(batch["x"]), line(batch["x"])
        torch.testing.assert_close(
            averaged.eval()(batch["x"]), 0.25 * trunk + 0.75 * closed, rtol=1e-5, atol=1e-5
        )
        assert torch.equal(made.trained_forecast(averaged, batch), made.forward(alone, batch))
        assert not torch.equal(made.trained_forecast(averaged, batch), made.forward(averaged, batch))


def test_a_model_that_is_no_host_is_refused_in_one_sentence() -> None:
    made = task()
    made.model = ModelSource("mine.other", {}, lambda _: torch.nn.Linear(3, 3))
    with pytest.raises(ModelError, match=r"^mine\.other is a Linear and no host: take one of"):
        made.build_model()


@pytest.mark.parametrize("method", ["timeseries.one_for_all", "timeseries.gpt4ts", "core.head"])
def test_training_leaves_the_line_and_a_file_brings_it(tmp_path: Path, method: str) -> None:
    made = task(residual="average")
    model = built(made)
    before = [p.detach().clone() for p in (model.residual.weight, model.residual.bias)]
    adapted = peftx.attach(model, method)
    optimizer = torch.optim.AdamW(adapted.param_groups(lr=1e-2, weight_decay=0.1))
    batch = next(iter(made.batches("train", 32)))
    losses = []
    for _ in range(8):
        model.train()
        loss = made.loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(map(torch.equal, (model.residual.weight, model.residual.bias), before))
    artifacts.save(adapted, tmp_path / "adapter")
    # as where the data are not at hand: nobody fits the line
    other = built(made)
    with torch.no_grad():
        for p in other.residual.parameters():
            p.zero_()
    artifacts.load(other, tmp_path / "adapter")
    x = next(iter(made.batches("val", 16)))["x"]
    with torch.no_grad():
        assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("residual", ["none", "linear"])
def test_a_share_of_no_average_is_refused(residual: str) -> None:
    with pytest.raises(ValidationError, match=r"share 0\.5 is a weight in the average.*residual average"):
        HostConfig.model_validate({"share": 0.5, "residual": residual})
    for options in ({"residual": residual}, {"residual": "average", "share": 0.5}):
        held = HostConfig.model_validate(options)
        assert HostConfig.model_validate_json(held.model_dump_json()) == held


def test_the_card_says_so_and_quantiles_are_refused() -> None:
    made = task(residual="average")
    built(made)
    assert made.model_card()["residual"] == "average, share 0.3"
    made.config = ForecastingConfig(input_length=48, horizon=12, quantiles=(0.1, 0.5, 0.9))
    with pytest.raises(ConfigError, match="leave out --task"):
        made.build_model()
