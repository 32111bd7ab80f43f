"""Options of classification: its data sets, the task, and its rows to compare with. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ClassificationConfig",
    "MajorityConfig",
    "NearestConfig",
    "PatternsConfig",
    "RocketConfig",
    "SamplesConfig",
    "UeaConfig",
]


class SamplesConfig(BaseModel):
    """Options every data set of labelled series shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    val_fraction: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="fraction of the training samples held out for validation, the same of each class; 0: none, and "
        "the last epoch is kept",
    )
    split_seed: int = Field(
        default=0, ge=0, description="seed of the validation split; apart from seed, so that runs share it"
    )
    limit_train: int | None = Field(
        default=None, ge=1, description="train on so many samples, drawn in the proportions of the classes"
    )


class UeaConfig(SamplesConfig):
    """Options of the UEA and UCR archives, and of your own files of that form."""

    path: Path = Field(
        description="folder with NAME_TRAIN.ts and NAME_TEST.ts, one of the two files (also .gz), or the name of a "
        "problem below --data-root"
    )


class PatternsConfig(SamplesConfig):
    """Options of the synthetic patterns."""

    train: int = Field(default=360, ge=12, description="samples to train and validate on")
    test: int = Field(default=240, ge=6, description="samples to test on")
    length: int = Field(default=96, ge=24, description="steps of the longest sample")
    unequal: bool = Field(
        default=False, description="samples of their own lengths, from half of the longest on"
    )
    missing: float = Field(default=0.0, ge=0, lt=0.9, description="fraction of the values that are missing")
    noise: float = Field(default=0.4, ge=0, description="deviation of the noise, beside waves of amplitude 1")
    pattern_seed: int = Field(
        default=0, ge=0, description="seed of the samples; apart from seed, so that runs share them"
    )


class ClassificationConfig(BaseModel):
    """How samples become the input of a classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scaling: Literal["train", "sample", "none"] = Field(
        default="train",
        description="standardise each channel by all training samples, by each sample itself, or not at all",
    )
    length: int | None = Field(
        default=None,
        ge=2,
        description="steps of the input; longer samples are cut at their end (default: the longest of the data set)",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="weight of the even distribution in the targets"
    )


class _RowConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MajorityConfig(_RowConfig):
    """The most frequent class has no options."""


class NearestConfig(_RowConfig):
    """Options of the nearest neighbour."""

    distance: Literal["euclidean", "dtw"] = Field(
        default="euclidean",
        description="step by step, or dynamic time warping, where steps may be matched to earlier and later ones",
    )
    window: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="dtw: how far apart matched steps may be, as a fraction of the longer of two samples; 1: anywhere",
    )


class RocketConfig(_RowConfig):
    """Options of ROCKET."""

    kernels: int = Field(
        default=1000, ge=1, le=100_000, description="random convolutions, each of which gives two features"
    )
    normalise: bool = Field(
        default=False,
        description="standardise each channel of each sample by itself before the convolutions, whatever the task's "
        "scaling",
    )
