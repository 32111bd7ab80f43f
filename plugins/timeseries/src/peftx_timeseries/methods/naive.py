"""Forecasts without a single parameter. A method that cannot beat them has learned nothing.

repeat last        y_h = x_L
seasonal naive     y_h = x_{L - m + 1 + (h - 1) mod m}      m rows of a season
window mean        y_h = (x_1 + ... + x_L) / L
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftx.errors import ConfigError
from peftx.tasks import ModelMethod, Task
from peftx_timeseries.config.methods import NaiveConfig, SeasonalConfig
from peftx_timeseries.tasks.shapes import shapes_of

__all__ = ["RepeatLast", "SeasonalNaive", "WindowMean"]


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


class RepeatLast(ModelMethod):
    """`timeseries.repeat_last`: the last value, for ever."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        return _Last(shapes_of(task).horizon)


class WindowMean(ModelMethod):
    """`timeseries.window_mean`: the mean of the input, for ever."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
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
        if period > shapes.length:
            raise ConfigError(
                f"a season of {period} rows does not fit into an input of {shapes.length}: take a longer "
                "--task.input-length or a shorter --method.period"
            )
        return _Last(shapes.horizon, period)
