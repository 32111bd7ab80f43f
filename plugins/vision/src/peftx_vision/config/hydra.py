"""Options of Hydra. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peftx.config.adapter import AdapterConfig

__all__ = ["HydraConfig"]


class HydraConfig(AdapterConfig):
    """Hydra (2023): a low-rank branch beside a frozen layer and one behind it, trained together."""

    targets: list[str] = Field(
        default=["attention.out", "mlp.down"],
        description="layers with the two branches; by default those whose output is added to the residual stream",
    )
    rank: int = Field(default=2, ge=1, description="hidden width of each branch")
    scale: float = Field(
        default=1.0, gt=0, description="factor of both branches (official code: 0.1 to 4.5, by task)"
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout between the two maps of a branch, in training only (official code: 0 to 0.2, by task)",
    )
    init: Literal["xavier", "normal"] = Field(
        default="xavier",
        description="of the first maps: uniform as Glorot's (VTAB-1k), or N(0, 0.02^2) (CLIP)",
    )
