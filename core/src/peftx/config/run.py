"""One run as data: what `peftx run` does, from flags, a TOML file, a task's recipe and defaults, in one
shape.

The four things one chooses (task, method, data, model) are a name plus free options; each options table is
validated by the chosen thing's own config class, which only the plugins know.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["CHOICES", "Choice", "RunConfig", "TrainConfig"]

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)

#: The sections of a run that are choices, in the order they are resolved.
CHOICES = ("task", "method", "data", "model")


class Choice(BaseModel):
    """A name and its options; ``Choice.model_validate("core.lora")`` is short for the name alone.

    An empty name means "the task's default". Options are kept as given until the chosen thing validates them.
    """

    model_config = ConfigDict(extra="allow")

    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class TrainConfig(BaseModel):
    """How a run trains. Lengths are epochs over the training split; `warmup` is a share of all optimizer
    steps."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epochs: int = Field(10, ge=1, description="passes over the training split")
    batch_size: int = Field(32, ge=1, description="samples per forward pass in training")
    eval_batch_size: int = Field(256, ge=1, description="samples per forward pass in evaluation")
    lr: float | None = Field(
        None, gt=0, description="peak learning rate (default: the task's recipe for the method)"
    )
    head_lr: float | None = Field(None, gt=0, description="peak learning rate of the head (default: lr)")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the optimizer steps spent warming up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    clip: float | None = Field(None, gt=0, description="largest gradient norm (default: no clipping)")
    accumulate: int = Field(1, ge=1, description="forward passes per optimizer step")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="validate and keep an exponential moving average of what is trained, with this decay",
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many validations without a better one (default: never)"
    )
    checkpoint: float = Field(
        60.0,
        ge=0,
        description="seconds between two checkpoints, which --resume goes on from (0: after every step)",
    )
    workers: int = Field(0, ge=0, description="threads that prepare data (0: as many as the task sees fit)")

    @field_validator("epochs", "batch_size", "eval_batch_size", "accumulate")
    @classmethod
    def _countable(cls, value: int) -> int:
        if value >= 2**31:  # no tensor could be cut so
            raise ValueError(f"must be less than {2**31}")
        return value


class RunConfig(BaseModel):
    """A whole run. `baselines`: None leaves the choice to the task, an empty list trains none."""

    model_config = ConfigDict(extra="forbid")

    task: Choice = Field(default_factory=Choice, description="task: model + data + loss + metrics")
    method: Choice = Field(default_factory=Choice, description="method to train (default: the task's)")
    data: Choice = Field(default_factory=Choice, description="data set (default: the task's)")
    model: Choice = Field(default_factory=Choice, description="base model (default: the task's)")
    train: TrainConfig = Field(default_factory=lambda: TrainConfig(), description="training")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of data order, initialisation and dropout")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the forward pass")
    out: Path | None = Field(
        None,
        description="run folder (default: a new one under runs/); a finished run that stands there is refused",
    )
    offline: bool = Field(False, description="never touch the network")
    data_root: Path | None = Field(None, description="folder that already holds the data")
    baselines: list[str] | None = Field(
        None, description="methods trained beside this one, or none (default: the task's)"
    )
    test: bool = Field(True, description="score the test split at the end; a search on validation does not")
    best_on_test: bool = Field(
        False,
        description="also score the test split after every epoch and tell the best score, which is optimistic: to set "
        "beside papers that print theirs so; never ranked",
    )
    efficiency: bool = Field(
        True, description="measure kept bytes, overheads and switching after the training of each row"
    )
    report: bool = Field(True, description="write report.html at the end")
    track: list[str] = Field(default=[], description="where else to send the curves: tensorboard")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("out", "data_root")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()
