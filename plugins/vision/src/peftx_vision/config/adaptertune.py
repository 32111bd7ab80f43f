"""Options of AdapterTune. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftx.config.adapter import AdapterConfig

__all__ = ["AdapterTuneConfig"]


class AdapterTuneConfig(AdapterConfig):
    """AdapterTune (2026): a bottleneck behind every block, which starts by adding nothing."""

    targets: list[str] = Field(
        default=["block"], description="modules a bottleneck follows: block, mlp or attention"
    )
    rank: int = Field(default=16, ge=1, description="hidden width of the bottleneck")
    every: int = Field(
        default=1, ge=1, description="only behind every so many blocks of the model, from the first on"
    )
    alpha: float = Field(default=1.0, description="constant factor of the bottleneck")
    init: Literal["zero", "small"] = Field(
        default="zero",
        description="of the second map: zero, so that training starts at the base model, or N(0, 1e-4^2)",
    )
