"""Configurations of the pack's methods. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from peftx.config.adapter import AdapterConfig

__all__ = ["SNELLAConfig", "SNELLConfig"]

_MAPS = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp"]


class SNELLConfig(AdapterConfig):
    """SNELL (Shen et al., 2024): ``W + S^T`` with S sparse and of full rank, made from thin factors by a kernel."""

    targets: list[str] = Field(
        default=_MAPS,
        description="which sites to adapt; the slices q, k, v of a fused weight are maps of their own",
    )
    rank: int = Field(
        default=8, ge=2, description="columns of the thin factors, in two groups of rank / 2; even"
    )
    sparsity: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="share of every map's entries that is left out; 0 keeps the plain kernel in the mode official",
    )
    mode: Literal["official", "paper", "soft"] = Field(
        default="official",
        description="what becomes of a kept entry V: V|V| (official), V (|V| - t) (paper), sign(V) (|V| - t) (soft)",
    )
    scale: float = Field(default=0.1, gt=0, description="constant factor of the kernel")
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="dropout on the update's input, in training only (official code: 0.1)",
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="probability that a sample's update is left out, in training only (official code: 0.1)",
    )
    train_cls: bool = Field(
        default=False, description="own and train the class token, too, as the official code does"
    )

    @field_validator("rank")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even, because the rank is split between two groups")
        return value


class SNELLAConfig(SNELLConfig):
    """SNELLA (2025): SNELL with a softmax term, and maps that compete for how many entries each may keep."""

    sparsity: float = Field(
        default=0.8, ge=0, lt=1, description="share of all maps' entries together that is left out in the end"
    )
    initial_sparsity: float = Field(
        default=0.01, ge=0, lt=1, description="every map's sparsity until the maps compete"
    )
    mixk: bool = Field(
        default=False,
        description="the official variant without thinning and budget: S is the kernel map itself",
    )
    allocate: Literal["step", "epoch"] = Field(
        default="step",
        description="step: the budget falls with the optimizer steps, reaches the target and stays; epoch: as in the "
        "official code, at the start of each of `epochs` equal parts, never quite reaching the target",
    )
    allocations: int = Field(
        default=100,
        ge=1,
        description="how often the budget is given out anew over a training (allocate step)",
    )
    hold: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="last part of the steps, in which the maps' sparsities stay (allocate step)",
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="first part of the steps, at the initial sparsity (allocate step)",
    )
    epochs: int = Field(default=100, ge=1, description="parts the training is cut into (allocate epoch)")
    initial_warmup: int = Field(
        default=0,
        ge=0,
        description="parts up to and with this one leave the sparsities alone (allocate epoch)",
    )
    final_warmup: int = Field(
        default=0, ge=0, description="this many last parts have the target as their budget (allocate epoch)"
    )
    importance_decay: float = Field(
        default=0.85, ge=0, lt=1, description="of the running mean of |value x gradient| and of its spread"
    )

    @model_validator(mode="after")
    def _competes(self) -> SNELLAConfig:
        # the budget is given out at the start of parts initial_warmup + 1 to epochs - 1, counted from 0
        if self.allocate == "epoch" and self.initial_warmup + 1 >= self.epochs:
            raise ValueError(
                f"with allocate epoch, initial_warmup {self.initial_warmup} leaves none of {self.epochs} epochs to "
                "compete at the start of: give a smaller initial_warmup or more epochs"
            )
        return self
