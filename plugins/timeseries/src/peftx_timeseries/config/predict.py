"""What `peftx predict` may be asked of a forecaster. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["ForecastConfig", "ReadingConfig"]


class ReadingConfig(BaseModel):
    """How a new table is read, where not as the run's own was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str | None = Field(default=None, description="name of the column of times (default: as in the run)")
    time_format: str | None = Field(
        default=None, description="how times are written, such as %d/%m/%Y (default: as in the run)"
    )
    timezone: str | None = Field(
        default=None, description="zone of the times, such as Europe/Berlin (default: the run's)"
    )
    frequency: str | None = Field(
        default=None,
        description="step of the rows, which has to be the run's (default: as the run was told, else from the times)",
    )
    regular: Literal["refuse", "sort", "fill", "keep"] | None = Field(
        default=None, description="rows out of order or missing (default: as in the run)"
    )
    duplicates: Literal["refuse", "first", "last", "mean"] | None = Field(
        default=None, description="rows of the same time (default: as in the run)"
    )
    id: str | None = Field(
        default=None, description="of a long table, the column of the series (default: the run's)"
    )
    target: str | None = Field(
        default=None, description="of a long table, the column to forecast (default: the run's)"
    )


class ForecastConfig(BaseModel):
    """How far ahead, and how sure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    horizon: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="rows to forecast (default: as many as the run was trained for)",
    )
    iterate: bool = Field(
        default=False,
        description="go on beyond the run's horizon by forecasting from its own forecasts; such rows are marked, and "
        "have no interval",
    )
    level: tuple[float, ...] | None = Field(
        default=None,
        description="nominal coverage of the intervals (default: 0.8,0.95; with a quantile head, those it has)",
    )
    scaling: Literal["run", "own"] = Field(
        default="run",
        description="what series are standardised by: the run's training rows, or their own rows in the file, for "
        "series that the run was not trained on",
    )
    history: int | None = Field(
        default=None,
        ge=1,
        description="rows of history in a picture (default: the input's, three horizons at most)",
    )
    data: ReadingConfig = Field(default_factory=ReadingConfig, description="how tables are read")

    @field_validator("level")
    @classmethod
    def _inside(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        if any(not 0 < one < 1 for one in value):
            raise ValueError(f"must lie between 0 and 1, as 0.8 does (got {', '.join(map(str, value))})")
        return tuple(sorted(set(value)))
