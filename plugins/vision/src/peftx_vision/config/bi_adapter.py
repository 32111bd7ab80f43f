"""Options of the low-bit adapters. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftx.config.adapter import AdapterConfig

__all__ = ["BiAdaptFormerConfig", "BiLoRAConfig"]


class BiAdaptFormerConfig(AdapterConfig):
    """Bi-AdaptFormer (Jie et al., 2023): a bottleneck beside the MLP, of few bits an entry while it is trained."""

    targets: list[str] = Field(default=["block"], description="blocks whose MLP gets a branch")
    width: int = Field(default=32, ge=1, description="hidden width of the bottleneck")
    bits: Literal[1, 2, 4, 32] = Field(default=1, description="bits an entry; 32 leaves the maps as they are")
    head_bits: Literal[1, 2, 4, 32] = Field(
        default=32,
        description="bits an entry of the head, which then has no bias (Bi-Head: 1); 32 leaves it as it is",
    )
    scale: float = Field(
        default=0.1, description="constant factor s (official code: 0.01, 0.1, 1 or 10, by task)"
    )
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="dropout on the hidden values, in training only"
    )


class BiLoRAConfig(BiAdaptFormerConfig):
    """Bi-LoRA (Jie et al., 2023): ``W + s U D`` with factors of few bits an entry while they are trained."""

    targets: list[str] = Field(
        default=["attention.q", "attention.v"], description="which layers to adapt: roles, globs, or names"
    )
    width: int = Field(default=32, ge=1, description="rank of the update")
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout between the factors, in training only (official code: 0.1)",
    )
