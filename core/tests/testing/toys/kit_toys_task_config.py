"""Options of the toys' tasks and models. No torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TaskConfig(BaseModel):
    """Options of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    smooth: float = Field(default=0.0, ge=0, description="label smoothing")


class SilentTaskConfig(TaskConfig):
    """An option nobody explains."""

    noise: float = 1.0


class NetConfig(BaseModel):
    """Options of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(default=16, ge=1, description="width of the hidden layer")


class LooseNetConfig(BaseModel):
    """Takes any option."""

    width: int = Field(default=16, ge=1, description="width of the hidden layer")


TASK_FAULTS = (
    "task_config offers build covers covers_order loss loss_sum meter metrics metrics_selects keeps_no_model recipes"
).split()
MODEL_FAULTS = "model_config built head parameters roles".split()
