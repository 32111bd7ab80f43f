"""Options of the three methods. Torch-free: flags, help and checks are made of these."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from peftx.config.adapter import AdapterConfig


class VeraConfig(AdapterConfig):
    """VeRA: ``W + diag(b) B diag(d) A`` with random A and B that all sites share."""

    rank: int = Field(default=256, ge=1, description="rank R of the shared matrices")
    d_start: float = Field(default=0.1, description="what every entry of d starts at")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed that A and B are made from")
    train_bank: bool = Field(default=False, description="train and store A and B as well (Tied-LoRA)")


class RouterConfig(AdapterConfig):
    """Experts ``B_e A_e``, mixed by ``softmax(G x)`` for every token."""

    experts: int = Field(default=4, ge=1, description="number of experts E at every site")
    rank: int = Field(default=4, ge=1, description="rank R of an expert")
    hint: float = Field(default=4.0, ge=0, description="added to the score of the expert a sample hints at")


class BottleneckConfig(AdapterConfig):
    """``h + U gelu(D h)`` after every block, pruned from `start_width` to `width` hidden units."""

    targets: list[str] = Field(default=["block"], description="modules it follows: block, mlp, attention")
    start_width: int = Field(default=32, ge=1, description="hidden units at the start")
    width: int = Field(default=8, ge=1, description="hidden units left at the end; at most start_width")
    prune_from: float = Field(default=0.2, ge=0, lt=1, description="share of the steps before pruning begins")
    prune_until: float = Field(default=0.7, gt=0, le=1, description="share of the steps when it is done")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.width > self.start_width:
            raise ValueError(f"width {self.width} is more than start_width {self.start_width}")
        if self.prune_from >= self.prune_until:
            raise ValueError(f"prune_from {self.prune_from} is not before prune_until {self.prune_until}")
        return self
