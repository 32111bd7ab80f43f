"""Configurations of the methods that ship with core. Torch-free."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from peftx.config.adapter import AdapterConfig, Trunk

__all__ = [
    "BitFitConfig",
    "DoRAConfig",
    "FullConfig",
    "HeadConfig",
    "LoRAConfig",
    "RsLoRAConfig",
    "ShiRAConfig",
]


class FullConfig(AdapterConfig):
    """Full fine-tuning: the adapter owns a copy of every parameter it targets."""

    targets: list[str] = Field(
        default=["glob:*"], description="which parameters to own (keys such as blocks.0.attn.qkv.weight)"
    )
    also_train: list[str] = Field(default=[], description="nothing to add: the head is among the targets")
    trunk: Trunk = Field(
        default="train", description="live dropout and batch-norm statistics, as full tuning has"
    )


class HeadConfig(AdapterConfig):
    """Linear probing: only the head is trained, the trunk stays in evaluation mode."""

    targets: list[str] = Field(default=[], description="no site besides the head")
    trunk: Trunk = Field(default="eval", description="a linear probe needs a deterministic trunk")


class BitFitConfig(AdapterConfig):
    """BitFit: the biases of linear, convolution and normalisation layers, and the head."""

    targets: list[str] = Field(
        default=["glob:*"], description="layers whose bias is trained: roles, globs, re:REGEX, or names"
    )
    norms: bool = Field(default=True, description="include the biases of normalisation layers")


class LoRAConfig(AdapterConfig):
    """LoRA (Hu et al., 2022): ``W + (alpha / rank) B A``."""

    rank: int = Field(default=8, ge=1, description="rank R of the update")
    alpha: float = Field(default=16.0, gt=0, description="numerator of the scale alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the input of A, in training only")
    init: Literal["kaiming", "gaussian", "normal"] = Field(
        default="kaiming",
        description="how A starts: kaiming-uniform with a = sqrt(5); gaussian, PEFT's normal with standard deviation "
        "1/rank; normal with the variance of kaiming, which holds no rank",
    )
    rank_pattern: dict[str, int] = Field(
        default={}, description="regular expression on the end of a site key -> its own rank; first hit wins"
    )
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="regular expression on the end of a site key -> its own alpha; first hit wins"
    )

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _expressions(cls, value: dict[str, Any]) -> dict[str, Any]:
        for expression in value:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression} is not a regular expression, {error}") from None
        return value


class RsLoRAConfig(LoRAConfig):
    """Rank-stabilised LoRA (Kalajdzievski, 2023): ``W + (alpha / sqrt(rank)) B A``."""

    alpha: float = Field(default=8.0, gt=0, description="numerator of the scale alpha / sqrt(rank)")


class DoRAConfig(LoRAConfig):
    """DoRA (Liu et al., 2024): magnitude times direction of ``W + (alpha / rank) B A``."""

    rank_stabilised: bool = Field(
        default=False, description="scale alpha / sqrt(rank) instead of alpha / rank"
    )


class ShiRAConfig(AdapterConfig):
    """SHiRA (Bhardwaj et al., 2024): the values at a fixed, sparse set of the weight's entries."""

    rank: int = Field(
        default=8, ge=1, description="as many values as LoRA of this rank has, R (out + in), at most all"
    )
    mask: Literal["random", "magnitude"] = Field(
        default="random", description="which entries: random ones by `seed`, or those of largest magnitude"
    )
    seed: int = Field(default=0, ge=0, description="seed of the random choice, with each site's key")
