"""sMAPE, MASE and OWA by hand, at zero, and with missing values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from peftx_timeseries.metrics.short_term import ShortTermMeter, relative_errors, smape_loss


def batch(
    y: Tensor, naive2: Tensor, scale: list[float], mean: float = 0.0, std: float = 1.0
) -> dict[str, Tensor]:
    count = len(y)
    return {
        "y": (y - mean) / std,
        "naive2": (naive2 - mean) / std,
        "mean": torch.full((count,), mean),
        "std": torch.full((count,), std),
        "scale": torch.tensor(scale),
    }


def scored(
    forecast: Tensor, told: dict[str, Tensor], mean: float = 0.0, std: float = 1.0
) -> dict[str, float]:
    meter = ShortTermMeter()
    meter.update((forecast - mean) / std, told)
    return meter.compute()


Y = torch.tensor([[100.0, 110.0], [10.0, 20.0]])
F = torch.tensor([[110.0, 110.0], [20.0, 20.0]])
N = torch.tensor([[100.0, 100.0], [10.0, 10.0]])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (50.0, 20.0)])
def test_the_figures_are_those_of_the_competition_whatever_the_scaling(mean: float, std: float) -> None:
    found = scored(F, batch(Y, N, [5.0, 4.0], mean, std), mean, std)
    smape = np.mean([200 * 10 / 210 / 2, 200 * 10 / 30 / 2])
    mase = np.mean([10 / 2 / 5, 10 / 2 / 4])
    smape2, mase2 = np.mean([200 * 10 / 210 / 2, 200 * 10 / 30 / 2]), np.mean([10 / 2 / 5, 10 / 2 / 4])
    assert found["smape"] == pytest.approx(smape, rel=1e-6) and found["mase"] == pytest.approx(mase, rel=1e-6)
    assert found["owa"] == pytest.approx((smape / smape2 + mase / mase2) / 2, rel=1e-6)
    assert found["n"] == 2 and found["mae_original"] == pytest.approx(5.0, rel=1e-6)
    half = scored(Y + (F - Y) / 2, batch(Y, N, [5.0, 4.0], mean, std), mean, std)
    assert half["mase"] == pytest.approx(mase / 2, rel=1e-5) and half["owa"] < 1


def test_every_series_has_the_same_weight_and_a_missing_row_none() -> None:
    y = torch.tensor([[100.0, math.nan], [10.0, 20.0]])
    found = scored(F, batch(y, N, [5.0, 4.0]))
    assert found["smape"] == pytest.approx(np.mean([200 * 10 / 210, 200 * 10 / 30 / 2]), rel=1e-6)
    assert found["mase"] == pytest.approx(np.mean([10 / 5, 10 / 2 / 4]), rel=1e-6)
    empty = torch.tensor([[math.nan, math.nan], [10.0, 20.0]])
    assert scored(F, batch(empty, N, [5.0, 4.0]))["smape"] == pytest.approx(200 * 10 / 30 / 2, rel=1e-6)


def test_nothing_is_divided_by_zero() -> None:
    y, zero = torch.tensor([[0.0, 0.0], [10.0, 20.0]]), torch.zeros(2, 2)
    assert relative_errors(zero, y).tolist() == [[0, 0], [200, 200]]
    found = scored(zero, batch(y, zero, [0.0, 4.0]))
    assert found["smape"] == 100 and found["mase"] == pytest.approx(15 / 4) and found["owa"] == 1
    meter = ShortTermMeter()
    meter.update(zero, batch(y, zero, [0.0, 4.0]))
    assert meter.details()["unscaled"] == 1 and meter.details()["smape_by_row"] == [100, 100]
    # none can be scaled, or Naive2 has no error: there is no such figure
    found = scored(F, batch(Y, Y, [0.0, 0.0]))
    assert math.isnan(found["mase"]) and math.isnan(found["owa"]) and found["smape"] > 0
    assert math.isnan(ShortTermMeter().compute()["smape"]) and ShortTermMeter().details() == {}


def test_the_loss_is_the_metric_and_finite_where_it_has_no_slope() -> None:
    y = torch.tensor([[100.0, math.nan, 0.0], [10.0, 20.0, 5.0]])
    forecast = torch.tensor([[110.0, 3.0, 0.0], [20.0, 20.0, -5.0]], requires_grad=True)
    loss = smape_loss(forecast, y)
    expected = np.mean([np.mean([200 * 10 / 210, 0]), np.mean([200 * 10 / 30, 0, 200])])
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert forecast.grad is not None and torch.isfinite(forecast.grad).all() and forecast.grad[0, 1] == 0


def test_quantiles_are_scored_by_their_median() -> None:
    spread = torch.stack([F - 5, F, F + 5], -1)
    meter = ShortTermMeter((0.1, 0.5, 0.9))
    meter.update(spread, batch(Y, N, [5.0, 4.0]))
    found = meter.compute()
    assert found["smape"] == scored(F, batch(Y, N, [5.0, 4.0]))["smape"]
    assert found["width"] == 10 and 0 <= found["coverage"] <= 1
