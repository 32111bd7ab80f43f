"""Options of AdaptFormer. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from peftx.config.adapter import AdapterConfig

__all__ = ["AdaptFormerConfig"]


class AdaptFormerConfig(AdapterConfig):
    """AdaptFormer (Chen et al., 2022): a bottleneck beside the MLP of every block."""

    targets: list[str] = Field(
        default=["block"],
        description="blocks whose MLP gets a branch (form sequential: the MLPs themselves, mlp by default)",
    )
    width: int = Field(default=64, ge=1, description="hidden width of the branch")
    scale: float = Field(
        default=0.1, description="constant factor s of the branch (0.1, or searched by task)"
    )
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="dropout on the hidden values, in training only"
    )
    bias: bool = Field(default=True, description="biases in both maps (PETL-ViT has none)")
    activation: Literal["relu", "gelu"] = Field(default="relu", description="between the two maps")
    form: Literal["parallel", "sequential"] = Field(
        default="parallel", description="beside the MLP, or behind it, on its output"
    )
    input: Literal["stream", "normed"] = Field(
        default="stream",
        description="what a parallel branch reads: the stream in front of the MLP's norm, or behind it",
    )
    norm: Literal["none", "in", "out"] = Field(
        default="none", description="a trained LayerNorm of the branch's own, on its input or its output"
    )
    head_norm: Literal["none", "batch"] = Field(
        default="none",
        description="a batch norm without weights in front of the head, as the official code for images has it",
    )
    learn_scale: bool = Field(
        default=False, description="train the factor of every branch, from 1; `scale` is then not used"
    )

    @model_validator(mode="after")
    def _reads_what_there_is(self) -> AdaptFormerConfig:
        if self.form == "sequential" and self.input != "stream":
            raise ValueError(
                "input is a choice of the parallel form: a sequential branch reads the MLP's output"
            )
        return self
