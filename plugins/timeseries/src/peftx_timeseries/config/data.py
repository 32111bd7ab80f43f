"""Options of the time-series data sets. Torch-free, so that help and validation cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CsvConfig",
    "DemandConfig",
    "FewShotConfig",
    "LongConfig",
    "M4Config",
    "MonthsConfig",
    "OfficialConfig",
    "SplitConfig",
    "TableConfig",
    "TsfConfig",
    "WavesConfig",
]


class FewShotConfig(BaseModel):
    """Options every time-series data set shares: the season, and training on a part of the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: int | None = Field(
        default=None, ge=1, description="rows of a season (default: from the frequency; 1: none)"
    )
    train_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="train on this fraction of each series' training rows, in one piece (few-shot)",
    )
    train_part: Literal["first", "last"] = Field(
        default="first",
        description="which end of the training rows train_fraction keeps; GPT4TS keeps the first",
    )
    train_context: int = Field(
        default=0,
        ge=0,
        description="training rows that are kept in any case; train_fraction is taken of the others (GPT4TS: the "
        "input length)",
    )
    train_scaling: Literal["whole", "kept"] = Field(
        default="whole",
        description="training rows that the scaling is made of with a train_fraction: the whole split, so that errors "
        "keep their unit (GPT4TS), or the rows kept",
    )

    @model_validator(mode="after")
    def _part_of_something(self) -> Self:
        for name in ("train_part", "train_scaling"):
            if self.train_fraction == 1 and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} {getattr(self, name)} is about training on a part of the rows: give a train_fraction "
                    "below 1"
                )
        return self


class OfficialConfig(FewShotConfig):
    """Options of data sets whose splits are fixed by a protocol."""

    channels: tuple[str, ...] = Field(
        default=(), description="columns to forecast, by name (default: all of the set)"
    )


class WavesConfig(FewShotConfig):
    """Options of the synthetic waves."""

    rows: int = Field(default=2400, ge=200, description="hours of the series")
    count: int = Field(default=3, ge=1, le=100, description="channels")
    noise: float = Field(default=0.3, ge=0, description="deviation of the noise, beside waves of about 1")
    wave_seed: int = Field(
        default=0, ge=0, description="seed of the series; apart from seed, so that runs share it"
    )


class MonthsConfig(FewShotConfig):
    """Options of the synthetic monthly series."""

    count: int = Field(default=120, ge=1, le=100_000, description="series")
    horizon: int = Field(default=18, ge=1, le=20, description="months of each series in test, and in val")
    wave_seed: int = Field(
        default=0, ge=0, description="seed of the series; apart from seed, so that runs share it"
    )


class DemandConfig(FewShotConfig):
    """Options of the synthetic demand with its covariates."""

    rows: int = Field(default=4800, ge=200, description="hours of the series")
    noise: float = Field(default=0.2, ge=0, description="deviation of the noise, beside a daily wave of 1")
    demand_seed: int = Field(
        default=0, ge=0, description="seed of the series; apart from seed, so that runs share it"
    )


class SplitConfig(FewShotConfig):
    """Where one's own series are split: by fractions of their rows in time, or at a horizon before their end."""

    split: Literal["fractions", "horizon"] | None = Field(
        default=None,
        description="fractions: train, val and test follow one another in time; horizon: test is the last rows of each "
        "series and val the rows before (default: horizon where one is known)",
    )
    val_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="fraction of the rows held out for validation"
    )
    test_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="fraction of the rows, the last, for testing"
    )
    horizon: int | None = Field(
        default=None, ge=1, description="rows of each series in test, and in val, when split at a horizon"
    )
    too_short: Literal["refuse", "drop"] = Field(
        default="refuse", description="what becomes of series with too few rows to split"
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction:g} and test_fraction {self.test_fraction:g} "
                "leave nothing to train on"
            )
        if self.split == "fractions" and self.horizon is not None:
            raise ValueError("horizon has no meaning with split fractions: leave one of them out")
        return self


class TableConfig(SplitConfig):
    """Options of tables with a column of times."""

    time: str | None = Field(
        default=None,
        description="name of the column of times (default: one called date, datetime, time, timestamp or ds, or the "
        "first if it holds dates)",
    )
    time_format: str | None = Field(
        default=None, description="how times are written, such as %d/%m/%Y, where that is ambiguous"
    )
    timezone: str | None = Field(
        default=None,
        description="zone of the times, such as Europe/Berlin: local times of hours and less become UTC, so that "
        "days of 23 and 25 hours are none",
    )
    frequency: str | None = Field(
        default=None,
        description="step of the rows, as pandas writes it: h, 15min, D, B, W-MON, MS ... (default: from the times)",
    )
    regular: Literal["refuse", "sort", "fill", "keep"] = Field(
        default="refuse",
        description="rows out of order or missing: refuse; sort; fill (sort, and put in missing values); keep (take "
        "rows as they stand, whatever their times)",
    )
    duplicates: Literal["refuse", "first", "last", "mean"] = Field(
        default="refuse",
        description="rows of the same time: refuse, or keep the first, the last or their mean",
    )
    known: tuple[str, ...] = Field(
        default=(), description="columns that are covariates known ahead of time, and are not forecast"
    )
    past: tuple[str, ...] = Field(
        default=(), description="columns that are covariates known only as they happen, and are not forecast"
    )

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        twice = sorted(set(self.known) & set(self.past))
        if twice:
            raise ValueError(f"{twice[0]} is both in known and in past: a covariate is one of them")
        return self


class CsvConfig(TableConfig):
    """Options of a wide table: one row for each time, one column for each channel."""

    path: Path = Field(description="the table: CSV (also .gz) or Parquet")
    channels: tuple[str, ...] = Field(
        default=(), description="columns to forecast, by name (default: all that are left)"
    )
    drop: tuple[str, ...] = Field(default=(), description="columns to leave out, by name")


class LongConfig(TableConfig):
    """Options of a long table: one row for each time of each series."""

    path: Path = Field(description="the table: CSV (also .gz) or Parquet")
    id: str = Field(
        default="unique_id", description="name of the column that says which series a row belongs to"
    )
    target: str = Field(default="y", description="name of the column to forecast")


class TsfConfig(SplitConfig):
    """Options of a file of the Monash archive."""

    path: Path = Field(description="the file: .tsf, also .tsf.gz, or .zip with one inside")
    frequency: str | None = Field(
        default=None, description="step of the rows, as pandas writes it (default: @frequency of the file)"
    )


class M4Config(FewShotConfig):
    """Options of the M4 competition."""

    path: str = Field(description="the group: yearly, quarterly, monthly, weekly, daily or hourly")
    too_short: Literal["refuse", "drop"] = Field(
        default="refuse", description="what becomes of series with too few rows to hold a horizon out"
    )
