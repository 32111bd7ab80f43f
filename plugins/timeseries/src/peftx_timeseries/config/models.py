"""Options of the forecasters that adapters are attached to. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["HostConfig", "RandomConfig"]


class HostConfig(BaseModel):
    """How a language model becomes a forecaster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained: bool = Field(
        default=True, description="start from the pretrained weights, or from random ones of the same shape"
    )
    blocks: int | None = Field(
        default=None,
        ge=1,
        description="keep the first so many blocks (default: 6, or all where there are fewer)",
    )
    patch: int | None = Field(
        default=None,
        ge=1,
        description="rows of a patch, which becomes a token (default: 16; 1 in short-term forecasting, 8 in "
        "classification)",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="rows between two patches (default: 8; 1 in short-term forecasting, 4 in classification)",
    )
    residual: Literal["none", "linear", "average"] = Field(
        default="none",
        description="linear: the model only corrects the closed-form linear forecast, which it starts as; average: it "
        "is trained alone, and its forecasts are averaged with the closed form's",
    )
    share: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="weight of the model's forecast in the average with the closed form",
    )
    projection_seed: int = Field(
        default=0,
        ge=0,
        description="seed of the random projections in front of and behind the language model; apart from the "
        "run's, so that an adapter that leaves them frozen can be loaded anywhere",
    )

    @model_validator(mode="after")
    def _share_of_an_average(self) -> Self:
        # the default is in every configuration that was written down
        if self.residual != "average" and self.share != type(self).model_fields["share"].default:
            raise ValueError(
                f"share {self.share:g} is a weight in the average with the closed form: it goes with residual average"
            )
        return self


class RandomConfig(HostConfig):
    """A small decoder with random weights."""

    pretrained: Literal[False] = Field(default=False, description="there are no pretrained weights")
    width: int = Field(default=64, ge=2, description="width D of a token")
    heads: int = Field(default=4, ge=1, description="attention heads")
    blocks: int | None = Field(default=3, ge=1, description="number of blocks")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> RandomConfig:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is no multiple of the {self.heads} heads")
        return self
