"""Metrics of forecasts against float64 by hand, with missing values, in any cut into batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peftx_timeseries.metrics.forecast import ForecastMeter, pinball_loss, squared_loss

LEVELS = (0.1, 0.5, 0.9)


def draw(
    rows: int = 37, horizon: int = 5, levels: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (rows, horizon, levels) if levels else (rows, horizon)
    forecast = (
        torch.randn(shape, generator=generator).sort(-1).values
        if levels
        else torch.randn(shape, generator=generator)
    )
    target = torch.randn(rows, horizon, generator=generator)
    target[torch.rand(rows, horizon, generator=generator) < 0.2] = torch.nan
    return forecast, target, torch.rand(rows, generator=generator) + 0.5


@pytest.mark.parametrize("size", [1, 8, 37])
def test_errors_are_those_of_all_observed_values_whatever_the_batch(size: int) -> None:
    forecast, target, unit = draw()
    meter = ForecastMeter()
    for at in range(0, len(target), size):
        rows = slice(at, at + size)
        meter.update(forecast[rows], {"y": target[rows], "std": unit[rows]})
    error = (forecast.double() - target.double()).numpy()
    own = error * unit.double().numpy()[:, None]
    found = meter.compute()
    assert found == pytest.approx({
        "mse": np.nanmean(error**2), "mae": np.nanmean(abs(error)),
        "mse_original": np.nanmean(own**2), "mae_original": np.nanmean(abs(own)), "n": 37,
    }, rel=1e-12)  # fmt: skip
    assert meter.details()["mse_by_row"] == pytest.approx(np.nanmean(error**2, 0).tolist(), rel=1e-12)


def test_quantiles_against_their_definition() -> None:
    forecast, target, unit = draw(levels=3)
    meter = ForecastMeter(LEVELS)
    meter.update(forecast, {"y": target, "std": unit})
    f, y = forecast.double().numpy(), target.double().numpy()
    gap = y[..., None] - f
    pinball = np.maximum(np.array(LEVELS) * gap, (np.array(LEVELS) - 1) * gap)
    found = meter.compute()
    assert found["pinball"] == pytest.approx(np.nanmean(pinball), rel=1e-12)
    assert found["crps"] == pytest.approx(2 * np.nanmean(pinball), rel=1e-12)
    inside = ((f[..., 0] <= y) & (y <= f[..., 2]))[np.isfinite(y)]
    assert found["coverage"] == pytest.approx(inside.mean(), rel=1e-12)
    assert found["width"] == pytest.approx((f[..., 2] - f[..., 0])[np.isfinite(y)].mean(), rel=1e-12)
    assert found["mae"] == pytest.approx(np.nanmean(abs(y - f[..., 1])), rel=1e-12)
    loss = pinball_loss(forecast.double(), target.double(), torch.tensor(LEVELS, dtype=torch.float64))
    assert float(loss) == pytest.approx(found["pinball"], rel=1e-12)


def test_the_pinball_loss_of_a_quantile_is_least_at_it() -> None:
    sample = torch.randn(2001, 1, generator=torch.Generator().manual_seed(0)).double()
    for level in (0.1, 0.5, 0.8):
        at = [
            float(pinball_loss(torch.full((2001, 1, 1), value).double(), sample, torch.tensor([level])))
            for value in torch.linspace(-2, 2, 401).tolist()
        ]
        best = torch.linspace(-2, 2, 401)[int(np.argmin(at))]
        assert float(best) == pytest.approx(float(sample.quantile(level)), abs=0.02)


def test_losses_pass_over_what_is_missing_and_give_it_no_gradient() -> None:
    forecast, target, _ = draw()
    forecast.requires_grad_()
    loss = squared_loss(forecast, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        float(np.nanmean((forecast.detach() - target).numpy() ** 2)), rel=1e-5
    )
    assert forecast.grad is not None and torch.isfinite(forecast.grad).all()
    assert (forecast.grad[~torch.isfinite(target)] == 0).all()
    absolute = squared_loss(forecast, target, 1)
    assert float(absolute.detach()) == pytest.approx(
        float(np.nanmean(abs((forecast.detach() - target).numpy()))), rel=1e-5
    )
    nothing = squared_loss(forecast, torch.full_like(target, torch.nan))
    assert float(nothing.detach()) == 0.0


def test_a_row_that_was_never_observed_has_no_error() -> None:
    meter = ForecastMeter()
    target = torch.tensor([[1.0, torch.nan], [2.0, torch.nan]])
    meter.update(torch.zeros(2, 2), {"y": target, "std": torch.ones(2)})
    assert meter.details() == {"mse_by_row": [2.5, None]}
    nothing = ForecastMeter()
    nothing.update(torch.zeros(2, 1), {"y": target[:, 1:], "std": torch.ones(2)})
    assert np.isnan(nothing.compute()["mse"])  # 0 would be the best of all scores
    assert ForecastMeter().compute() == {"n": 0} and ForecastMeter().details() == {}
