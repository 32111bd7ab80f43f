"""Options of MoSA. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from peftx.config.adapter import AdapterConfig

__all__ = ["MoSAConfig"]


class MoSAConfig(AdapterConfig):
    """MoSA (Zhang et al., 2023): a bottleneck split into sparse experts, one of which is trained at a time."""

    targets: list[str] = Field(
        default=["block"],
        description="blocks whose MLP gets a branch (style pfeiffer: the MLPs themselves, mlp by default)",
    )
    width: int = Field(default=64, ge=1, description="hidden width of the bottleneck")
    experts: int = Field(
        default=4, ge=1, le=256, description="number of experts the entries of a map are split among"
    )
    share: Literal["down", "up", "none"] = Field(
        default="down", description="the map that all experts share; the others are split"
    )
    style: Literal["adaptformer", "pfeiffer"] = Field(
        default="adaptformer",
        description="beside the MLP, with GELU, scale and dropout; or behind it, with ReLU and neither",
    )
    scale: float = Field(default=0.1, description="constant factor s of the branch (style adaptformer)")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="on the hidden values, in training only (style adaptformer)"
    )
    consistency: float = Field(
        default=1.0,
        ge=0,
        description="weight of the divergence between two passes over a batch; 0 for a task without classes",
    )
    second_loss: float = Field(default=0.0, ge=0, description="weight of the task's loss of the second pass")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed that the split is made from")

    @model_validator(mode="after")
    def _of_its_style(self) -> MoSAConfig:
        fields = type(self).model_fields
        for name in ("scale", "dropout"):
            if self.style == "pfeiffer" and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is an option of the style adaptformer; the style pfeiffer has none")
        return self
