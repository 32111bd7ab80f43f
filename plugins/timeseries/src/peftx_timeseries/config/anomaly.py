"""Options of anomaly detection: its task, its data sets, and the rows to compare with. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AnomalyConfig", "FaultsConfig", "LabelledConfig", "PCAConfig", "RandomScoreConfig", "ZeroConfig"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AnomalyConfig(_Config):
    """How rows become windows, how a host reconstructs them, and where a score becomes an alarm."""

    length: int = Field(default=100, ge=2, description="rows of a window, which become its tokens")
    stride: int = Field(
        default=10, ge=1, description="rows between two training windows (TSLib: 1, and 100 for SMD)"
    )
    test_stride: int | None = Field(
        default=None,
        ge=1,
        description="rows between two windows where rows are scored (default: the length, so that each row is in one "
        "window); with less a row's score is the mean over its windows",
    )
    segment: int = Field(
        default=25,
        ge=0,
        description="rows that are standardised by themselves, channel by channel, as GPT4TS does; 0: none, so that a "
        "level that moved stays visible to the host",
    )
    embedding: Literal["pad", "linear"] = Field(
        default="pad",
        description="how a row's channels become a token: pad, as GPT4TS, filled up with zeros to the host's width; "
        "linear: by a projection, which takes any number of channels",
    )
    features: int | None = Field(
        default=None,
        ge=1,
        description="features of the host that are projected back to channels, the first so many (default: all; "
        "GPT4TS: 8 for MSL, 128 for SWaT)",
    )
    ratio: float | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="per cent of the reference rows that raise an alarm: the threshold is their (100 - ratio) "
        "percentile (default: what the data set's protocol has, else 1)",
    )
    threshold: Literal["train_val", "val", "train_test"] = Field(
        default="train_val",
        description="which rows the threshold is a percentile of: training and validation; validation alone; or, as "
        "in TSLib, training, validation and test rows, which looks at the test set",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, stride in (("stride", self.stride), ("test_stride", self.test_stride or 1)):
            if stride > self.length:
                raise ValueError(f"{name} {stride} would leave rows out of windows of {self.length}")
        if self.segment and self.length % self.segment:
            raise ValueError(
                f"a window of {self.length} rows is no whole number of segments of {self.segment}"
            )
        return self


class LabelledConfig(_Config):
    """Options of a folder with normal training rows and labelled test rows."""

    path: Path = Field(description="the folder, such as PSM, MSL, SMAP, SMD or SWaT as TSLib has them")
    layout: Literal["csv", "npy", "swat", "machines"] | None = Field(
        default=None,
        description="csv: train.csv, test.csv, test_label.csv; npy: NAME_train.npy, NAME_test.npy, "
        "NAME_test_label.npy; swat: swat_train2.csv, swat2.csv; machines: train/*.txt, test/*.txt, test_label/*.txt "
        "(default: what is there)",
    )
    val_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="fraction of the training rows held out for validation, the last"
    )
    train_rows: Literal["before_val", "all"] = Field(
        default="before_val",
        description="rows that are trained on and scaled by: those before validation, or, as in TSLib, validation "
        "rows as well",
    )
    missing: Literal["previous", "zero"] = Field(
        default="previous",
        description="what a missing value becomes: the last one before it (the first one after it, at the start), or, "
        "as in TSLib, 0 in the channel's own unit",
    )


class FaultsConfig(_Config):
    """Options of the synthetic faults."""

    rows: int = Field(default=4000, ge=1000, description="normal rows, and as many test rows")
    count: int = Field(default=8, ge=2, le=100, description="channels")
    events: int = Field(default=4, ge=1, le=50, description="faults of each kind in the test rows")
    noise: float = Field(default=0.1, ge=0, description="deviation of the noise, beside waves of about 1")
    fault_seed: int = Field(
        default=0, ge=0, description="seed of series and faults; apart from seed, so that runs share them"
    )


class ZeroConfig(_Config):
    """The distance from the training mean has no options."""


class RandomScoreConfig(_Config):
    """Options of scores that are noise."""

    score_seed: int = Field(default=0, ge=0, description="seed of the noise, apart from the run's")


class PCAConfig(_Config):
    """Options of the reconstruction from leading components."""

    explained: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="fraction of the variance of the training rows that the components have to explain",
    )
    rows: int = Field(
        default=1, ge=1, description="rows that are reconstructed together; must divide the window"
    )
