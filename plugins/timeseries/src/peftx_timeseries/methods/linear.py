"""Linear forecasts: in closed form, and the two small networks that made transformers look bad.

A. Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, arXiv:2205.13504.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftx.tasks import ModelMethod, Task
from peftx_timeseries.config.methods import DLinearConfig, LeastSquaresConfig, NaiveConfig
from peftx_timeseries.models.covariates import CovariateMap
from peftx_timeseries.models.linear import least_squares
from peftx_timeseries.models.regression import least_squares_with_covariates
from peftx_timeseries.tasks.covariates import ignored
from peftx_timeseries.tasks.shapes import HasWindows, Shapes, shapes_of

__all__ = ["DLinear", "LeastSquares", "NLinear"]


class _Relative(nn.Module):
    """A linear map of the window relative to its last value: of all L rows (NLinear), or of the L - 1 before it."""

    def __init__(self, inputs: int, horizon: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.linear = nn.Linear(inputs, horizon)

    def forward(self, x: Tensor) -> Tensor:  # (B, L) -> (B, H)
        last = x[:, -1:]
        return self.linear(x[:, : self.inputs] - last) + last


class _Decomposed(nn.Module):
    """The trend is a moving average with the ends repeated; trend and rest have a linear map each."""

    def __init__(self, length: int, horizon: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.seasonal = nn.Linear(length, horizon)
        self.trend = nn.Linear(length, horizon)

    def forward(self, x: Tensor) -> Tensor:  # (B, L) -> (B, H)
        before = (self.kernel - 1) // 2
        padded = F.pad(x[:, None], (before, self.kernel - 1 - before), mode="replicate")
        trend = F.avg_pool1d(padded, self.kernel, 1)[:, 0]
        return self.seasonal(x - trend) + self.trend(trend)


class _WithCovariates(_Relative):
    """The same, and what the covariates add."""

    def __init__(self, shapes: Shapes, rows: int) -> None:
        super().__init__(shapes.length - 1, shapes.horizon)
        held = {"known": len(shapes.known), "past": len(shapes.past)}
        #: what it looks at of a batch, besides the windows
        self.reads = tuple(kind for kind, count in held.items() if count)
        self.covariates = CovariateMap(**held, length=shapes.length, horizon=shapes.horizon, rows=rows)

    def forward(self, x: Tensor, *covariates: Tensor) -> Tensor:  # (B, L) -> (B, H)
        held = dict(zip(self.reads, covariates, strict=True))
        return super().forward(x) + self.covariates(held.get("known"), held.get("past"))


class LeastSquares(ModelMethod):
    """`timeseries.least_squares`: see `peftx_timeseries.models.linear`, and `peftx_timeseries.models.regression` where
    there are covariates."""

    Config = LeastSquaresConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        shapes = shapes_of(task)
        rows = _rows(shapes, config)
        if config.covariates and (shapes.known or len(shapes.past) * rows):
            return _WithCovariates(shapes, rows)
        return _Relative(shapes.length - 1, shapes.horizon)

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """The coefficients from all training windows. Raises DataError when these are too few."""
        windows = cast("HasWindows", task).windows("train", stride=1)
        if not isinstance(model, _WithCovariates):
            weight, bias = least_squares(windows, config.ridge)
            return {"linear.weight": torch.from_numpy(weight), "linear.bias": torch.from_numpy(bias)}
        found = least_squares_with_covariates(windows, model.covariates.rows, config.ridge)
        values = {"linear.weight": found.weight, "linear.bias": found.bias}
        values |= {
            f"covariates.{name}": value
            for name, value in (("future", found.future), ("history", found.history))
            if value.size
        }
        return {name: torch.from_numpy(value) for name, value in values.items()}


def _rows(shapes: Shapes, config: LeastSquaresConfig) -> int:
    return (
        shapes.covariate_rows if config.covariate_rows is None else min(config.covariate_rows, shapes.length)
    )


class NLinear(ModelMethod):
    """`timeseries.nlinear`: one linear map of the window relative to its last value."""

    Config = NaiveConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        shapes = shapes_of(task)
        ignored(task)
        return _Relative(shapes.length, shapes.horizon)


class DLinear(ModelMethod):
    """`timeseries.dlinear`: a linear map of a moving average and one of the rest."""

    Config = DLinearConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        shapes = shapes_of(task)
        ignored(task)
        return _Decomposed(shapes.length, shapes.horizon, config.kernel)
