"""Forecasts without a single parameter. A method that cannot beat them has learned nothing.

repeat last        y_h = x_L
seasonal naive     y_h = x_{L - m + 1 + (h - 1) mod m}      m rows of a season
window mean        y_h = (x_1 + ... + x_L) / L
naive 2            y_h = (x_n / s_n) s_{n + h}              n rows of history, factors s (see `series.seasonality`)

The last one, and a season that is longer than the input, need a series' whole history, which only short-term
forecasting has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftx.errors import ConfigError
from peftx.tasks import ModelMethod, Task
from peftx_timeseries.config.methods import NaiveConfig, SeasonalConfig
from peftx_timeseries.tasks.covariates import ignored
from peftx_timeseries.tasks.shapes import shapes_of, told_by

__all__ = ["Naive2", "RepeatLast", "SeasonalNaive", "WindowMean"]


class _Last(nn.Module):
    def __init__(self, horizon: int, period: int = 1) -> None:
        super().__init__()
        self.horizon, self.period = horizon, period

    def forward(self, x: Tensor) -> Tensor:  # (B, L) -> (B, H)
        season = x[:, -self.period :]
        return season[:, torch.arange(self.horizon, device=x.device) % self.period]


class _Mean(nn.Module):
    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, x: Tensor) -> Tensor:  # (B, L) -> (B, H)
        return x.mean(1, keepdim=True).expand(-1, self.horizon)


class _Told(nn.Module):
    """A forecast that the task made from a series' whole history."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.reads = (name,)

    def forward(self, x: Tensor, forecast: Tensor) -> Tensor:  # (B, L), (B, H) -> (B, H)
        return forecast


class RepeatLast(ModelMethod):
    """`timeseries.repeat_last`: the last value, for ever."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        ignored(task)
        return _Last(shapes_of(task).horizon)


class WindowMean(ModelMethod):
    """`timeseries.window_mean`: the mean of the input, for ever."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        ignored(task)
        return _Mean(shapes_of(task).horizon)


class SeasonalNaive(ModelMethod):
    """`timeseries.seasonal_naive`: the last season, again and again."""

    Config = SeasonalConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        """As `ModelMethod.build`.

        Raises:
            ConfigError: the season is longer than the input.
        """
        shapes = shapes_of(task)
        period = config.period or shapes.period
        if period > shapes.length and config.period is None and "seasonal_naive" in told_by(task):
            return _Told("seasonal_naive")
        if period > shapes.length:
            raise ConfigError(
                f"a season of {period} rows does not fit into an input of {shapes.length}: take a longer "
                "--task.input-length or a shorter --method.period"
            )
        ignored(task)
        return _Last(shapes.horizon, period)


class Naive2(ModelMethod):
    """`timeseries.naive2`: the last value, adjusted for the season where a test finds one."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        """As `ModelMethod.build`.

        Raises:
            ConfigError: the task knows nothing of a series but its window.
        """
        shapes_of(task)
        if "naive2" not in told_by(task):
            raise ConfigError(
                f"{type(task).__name__} shows a forecast a window alone, and naive2 needs the whole history: take "
                "--task short_term"
            )
        return _Told("naive2")
