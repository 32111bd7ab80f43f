"""Options of the pack's methods. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from peftx.config.methods import FullConfig, RsLoRAConfig

__all__ = [
    "DLinearConfig",
    "GPT4TSConfig",
    "LeastSquaresConfig",
    "NaiveConfig",
    "OneForAllConfig",
    "SeasonalConfig",
]


class OneForAllConfig(RsLoRAConfig):
    """One-for-All (2026): rank-stabilised LoRA on the positional embedding and on the output projection."""

    targets: list[str] = Field(
        default=["embedding.position", "out_layer"],
        description="which sites to adapt: roles, globs, re:REGEX, or names",
    )
    also_train: list[str] = Field(
        default=[], description="modules the adapter owns and trains whole, besides those of `io`"
    )
    rank: int = Field(default=16, ge=1, description="rank R of the update")
    alpha: float = Field(default=16.0, gt=0, description="numerator of the scale alpha / sqrt(rank)")
    dropout: float = Field(
        default=0.01, ge=0, lt=1, description="dropout on the input of A at linear layers, in training only"
    )
    init: Literal["gaussian", "normal", "kaiming"] = Field(
        default="gaussian",
        description="how A starts at linear layers; gaussian, as the official code: standard deviation 1/rank, which "
        "is not rank-stable; normal and kaiming: a variance without the rank",
    )
    io: Literal["frozen", "in", "both"] = Field(
        default="frozen",
        description="frozen, as the official code: both projections stay random, the output one below its update; in: "
        "the input projection is trained; both: both are trained whole, and the update is at the embedding alone",
    )


class GPT4TSConfig(FullConfig):
    """GPT4TS (2023): norms, positional embedding and both projections are trained, attention and MLPs are not."""

    targets: list[str] = Field(
        default=["norm", "embedding.position", "head"], description="which parameters to own"
    )


class _RowConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NaiveConfig(_RowConfig):
    """A naive forecast has no options."""


class SeasonalConfig(_RowConfig):
    """Options of the seasonal naive forecast."""

    period: int | None = Field(
        default=None, ge=1, description="rows of a season (default: from the frequency of the data)"
    )


class LeastSquaresConfig(_RowConfig):
    """Options of the closed-form linear forecast."""

    ridge: float = Field(default=0.0, ge=0, description="weight of the squared coefficients")
    covariates: bool = Field(
        default=True, description="take the covariates that the task looks at, if any, as regressors too"
    )
    covariate_rows: int | None = Field(
        default=None,
        ge=0,
        description="rows of the covariates before the forecast that are regressors, within the input (default: a "
        "season)",
    )


class DLinearConfig(_RowConfig):
    """Options of DLinear."""

    kernel: int = Field(default=25, ge=1, description="rows of the moving average that is taken as the trend")
