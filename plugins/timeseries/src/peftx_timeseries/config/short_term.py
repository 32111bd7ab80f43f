"""Options of short-term forecasting. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftx_timeseries.config.tasks import QuantileConfig

__all__ = ["ShortTermConfig"]


class ShortTermConfig(QuantileConfig):
    """One forecast of each series, of its last rows, as the M competitions ask for it."""

    horizon: int | None = Field(
        default=None, ge=1, description="rows of the forecast, H (default: what the data set says)"
    )
    input_length: int | None = Field(
        default=None, ge=2, description="rows of the input, L (default: twice the horizon)"
    )
    windows: Literal["random", "all"] = Field(
        default="random",
        description="random: each epoch trains on windows of each series that are drawn anew; all: on every window",
    )
    draws: int = Field(default=1, ge=1, description="random windows of each series in an epoch")
    recent: float | None = Field(
        default=None,
        gt=0,
        description="train on targets that begin in the last so many horizons of the training rows (default: "
        "anywhere; TSLib on M4: 1.5 for years, quarters and months, else 10)",
    )
    stride: int = Field(default=1, ge=1, description="rows between two training windows")
    short_series: Literal["refuse", "pad"] = Field(
        default="pad",
        description="what to do with histories shorter than the input: no window, or missing values in front",
    )
    loss: Literal["smape", "mse", "mae"] = Field(
        default="smape",
        description="what a point forecast is trained by: smape in the units of the series, mse and mae standardised",
    )
