"""A benchmark suite as data: what its grid is made of, and the rows papers printed for it. Torch-free.

A pack declares a suite with `SuiteSpec("vision.quick", "...", "peftx_vision.suites:QUICK")`, whose target is one of
these.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peftx.config.run import Choice

__all__ = ["Published", "Suite", "label"]


class Published(BaseModel):
    """A figure somebody printed: never ranked with ours, which were trained on other networks or other data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(description="the method as its paper calls it")
    data: str = Field(description="the label of the suite's data set the figure is for")
    value: float = Field(description="the primary metric, in its unit")
    source: str = Field(description="paper and table")
    model: str = Field("", description="the network it was trained on")
    trainable: int | None = Field(None, description="trained parameters, when the paper says")


class Suite(BaseModel):
    """A grid of runs: every method on every data set and model, with every seed.

    `methods`: names, or ``all`` for every installed method that fits the task. `train`: settings every row shares; what
    is left open comes from the task's recipe for each method. `rates`: the learning rates of ``--search lr``, the same
    for every row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description="full name of the task")
    about: str = Field(description="the protocol in a sentence or two, printed above the table")
    data: tuple[Choice, ...] = Field(
        min_length=1, description="data sets: names, or tables of name and options"
    )
    models: tuple[Choice, ...] = Field((), description="base models (default: the task's)")
    methods: tuple[str, ...] = Field(("all",), min_length=1, description="methods of the grid")
    seeds: int = Field(3, ge=1, description="seeds 0 .. n-1")
    train: dict[str, Any] = Field({}, description="training settings every row shares")
    rates: tuple[float, ...] = Field(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), min_length=1, description="learning rates of --search lr"
    )
    published: tuple[Published, ...] = Field((), description="rows of papers, for comparison")

    @field_validator("data", "models", mode="before")
    @classmethod
    def _choices(cls, value: Any) -> Any:
        return tuple(Choice.model_validate(one) for one in value)


def label(choice: Choice) -> str:
    """How a data set or model with its options is called in tables: ``vision.digits limit_train=100``."""
    return " ".join([choice.name, *(f"{key}={value}" for key, value in sorted(choice.options.items()))])
