"""Options of visual prompt tuning. Torch-free."""

from __future__ import annotations

from pydantic import Field

from peftx.config.adapter import AdapterConfig, Trunk

__all__ = ["VPTConfig"]


class VPTConfig(AdapterConfig):
    """VPT (Jia et al., 2022): trained tokens behind the class token, in front of the first block or of every one."""

    targets: list[str] = Field(
        default=["block"],
        description="blocks the prompts run through (shallow) or are put in front of (deep)",
    )
    prompts: int = Field(default=10, ge=0, description="trained tokens, in deep form for each block")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="dropout on the prompts, apart for each image, in training only"
    )
    project: int = Field(
        default=0,
        ge=0,
        description="train prompts of this width and one projection to the model's, shared by all blocks; 0: neither",
    )
    trunk: Trunk = Field(
        default="eval",
        description="frozen parts in train mode: eval switches dropout off, as the official code does; frozen_stats "
        "keeps batch-norm statistics, train leaves all as it is",
    )
