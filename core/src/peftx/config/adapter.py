"""The base of every adapter method's configuration: where it goes and how the frozen trunk behaves.

Torch-free, so that flags, help and validation cost nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["AdapterConfig", "Trunk"]

Trunk = Literal["frozen_stats", "eval", "train"]


class AdapterConfig(BaseModel):
    """Fields every adapter method shares.

    Patterns (``targets``, ``exclude``, ``also_train``) are tried in this order: an explicit prefix ``role:``,
    ``glob:`` or ``re:`` (a regular expression that must match the whole site key); a role such as ``attention.q``,
    or the part of one before a dot (``mlp``); a glob over site keys when it holds ``*``, ``?`` or ``[!``; otherwise
    a site key or the end of one after a dot (``qkv``, ``attn.qkv``). ``all-linear`` means every linear layer but
    the heads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    targets: list[str] = Field(
        default=["attention", "cross_attention", "mlp"],
        description="which sites to adapt: roles, globs, re:REGEX, or names; where the default matches nothing, "
        "convolutions, else every linear layer",
    )
    exclude: list[str] = Field(default=[], description="sites to leave out, same patterns; wins over targets")
    also_train: list[str] = Field(
        default=["head"],
        description="modules the adapter owns and trains whole (the task's head); [] for none",
    )
    trunk: Trunk = Field(
        default="frozen_stats",
        description="frozen parts in train mode: frozen_stats keeps batch-norm statistics, eval also switches "
        "dropout off, train leaves all as it is",
    )

    @field_validator("targets", "exclude", "also_train", mode="before")
    @classmethod
    def _one_pattern(cls, value: Any) -> Any:
        """A single pattern needs no list."""
        return [value] if isinstance(value, str) else value
