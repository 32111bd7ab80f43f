"""Options of forecasting. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["ForecastingConfig", "QuantileConfig"]


class QuantileConfig(BaseModel):
    """What every forecast may be asked for: quantiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quantiles: tuple[float, ...] = Field(
        default=(),
        description="forecast these quantiles, such as 0.1,0.5,0.9, by the pinball loss; 0.5 must be among them",
    )

    backtest: int = Field(
        default=8,
        ge=0,
        le=100,
        description="origins whose forecasts the page shows with the values of the test rows (0: none are kept)",
    )

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            return value
        if any(not 0 < one < 1 for one in value) or list(value) != sorted(set(value)):
            raise ValueError(
                f"quantiles ascend between 0 and 1, as 0.1,0.5,0.9 do (got {', '.join(map(str, value))})"
            )
        if 0.5 not in value:
            raise ValueError("0.5 must be among the quantiles: the median is the point forecast")
        return value


class ForecastingConfig(QuantileConfig):
    """How series become windows, and what is asked of a forecast."""

    input_length: int = Field(default=336, ge=2, description="rows of the input, L")
    horizon: int = Field(default=96, ge=1, description="rows of the forecast, H")
    stride: int = Field(default=1, ge=1, description="rows between two training windows")
    val_stride: int = Field(
        default=1, ge=1, description="rows between two validation windows; the test set has every window"
    )
    epoch_samples: int | None = Field(
        default=None,
        ge=1,
        description="train on so many windows of one channel each epoch, drawn anew (default: on all of them); long "
        "series have far more windows than a small model needs between two validations",
    )
    short_series: Literal["refuse", "pad"] = Field(
        default="refuse",
        description="what to do with histories shorter than the input: no window, or missing values in front",
    )
    loss: Literal["mse", "mae"] = Field(default="mse", description="what a point forecast is trained by")
    covariates: Literal["auto", "none", "known", "past", "all"] = Field(
        default="auto",
        description="covariates that are looked at: auto, those that the data declare, if any; none; or those known "
        "ahead of time, known only as they happen, or all, which are then demanded",
    )
