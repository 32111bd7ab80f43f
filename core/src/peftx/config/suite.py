"""A benchmark suite as data: what its grid is made of, and the rows papers printed for it. Torch-free.

A pack declares a suite with `SuiteSpec("vision.quick", "...", "peftx_vision.suites:QUICK")`, whose target is one of
these; a TOML file of the same shape is a suite, too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from peftx.config.errors import problems
from peftx.config.run import Choice, TrainConfig

__all__ = ["ALL", "Published", "PublishedAverage", "Suite", "SuiteData", "label", "parse_label"]

#: The name that stands for every installed method that fits the task.
ALL = "all"

_OPTION = re.compile(r"\s+(?=[A-Za-z_][\w.]*=)", re.ASCII)
#: Begins the options of the task in the label of a data set.
_OF_TASK = "task."


class Published(BaseModel):
    """A figure somebody printed: never ranked with ours, which were trained on other networks or other data."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str = Field(min_length=1, description="the method as its paper calls it")
    data: str = Field(description="the label of the suite's data set the figure is for")
    value: float = Field(description="the primary metric, in its unit")
    source: str = Field(min_length=1, description="paper and table")
    model: str = Field("", description="the network it was trained on")
    trainable: int | None = Field(None, description="trained parameters, when the paper says")

    @field_validator("data")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        return label(parse_label(value))


class PublishedAverage(BaseModel):
    """Averages somebody printed over all data sets of a suite: never ranked with ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: str = Field(min_length=1, description="the method as its paper calls it")
    values: dict[str, float] = Field(
        min_length=1, description="averages by the names the suite's own have; not all need be there"
    )
    source: str = Field(min_length=1, description="paper and table")
    model: str = Field("", description="the network it was trained on")


class SuiteData(Choice):
    """A data set of a suite: a name, its options, options of the task that belong to it alone (``{"horizon": 96}``: the
    same data asked another question stand in the grid again), training settings likewise, and options over its own for
    the runs of a search (``{"split": "tune"}``), where those train on less and validate on the rest."""

    task: dict[str, Any] = Field(
        {}, description="options of the task for this data set, over those of the suite"
    )
    train: dict[str, Any] = Field({}, description="settings for this data set, over those of the suite")
    search: dict[str, Any] = Field({}, description="options over its own for the runs of a search")

    @field_validator("train")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _checked(value)

    @field_validator("search")
    @classmethod
    def _same_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        odd = next((name for name in ("name", "task", "train", "search") if name in value), None)
        if odd is not None:
            raise ValueError(f"search holds options of the data set alone, and {odd} is none")
        return value

    @classmethod
    def of(cls, choice: Choice) -> SuiteData:
        """The data set of a choice whose options may be the task's, as ``task.horizon``."""
        given = choice.task if isinstance(choice, cls) else {}
        own = {key: value for key, value in choice.options.items() if not key.startswith(_OF_TASK)}
        task = {k.removeprefix(_OF_TASK): v for k, v in choice.options.items() if k.startswith(_OF_TASK)}
        return cls.model_validate({"name": choice.name, "task": {**given, **task}, **own})


class Suite(BaseModel):
    """A grid of runs: every method on every data set and model, with every seed.

    `train`: settings every row shares; what is left open comes from the task's recipe for each method. `rates`: the
    learning rates of ``--search lr``, the same for every row; `weight_decays`: what ``--search weight_decay`` tries at
    each of them. Names are written in full, so that labels are those of the tables.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description="full name of the task")
    about: str = Field(description="the protocol in a sentence or two, printed above the table")
    data: tuple[SuiteData, ...] = Field(
        min_length=1, description="data sets: names, or tables of name, options and train"
    )
    models: tuple[Choice, ...] = Field((), description="base models (default: the task's)")
    methods: tuple[Choice, ...] = Field(
        (Choice(name=ALL),),
        min_length=1,
        description="methods of the grid: names, tables of name and options, or all",
    )
    seeds: int = Field(3, ge=1, description="seeds 0 .. n-1")
    task_options: dict[str, Any] = Field({}, description="options of the task every row shares")
    train: dict[str, Any] = Field({}, description="training settings every row shares")
    rates: tuple[float, ...] = Field(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), min_length=1, description="learning rates of --search lr"
    )
    weight_decays: tuple[float, ...] = Field(
        (0.0, 1e-4, 1e-3, 1e-2), min_length=1, description="weight decays of --search weight_decay"
    )
    published: tuple[Published, ...] = Field((), description="rows of papers, for comparison")
    published_averages: tuple[PublishedAverage, ...] = Field(
        (), description="averages of papers, for comparison with those that the suite's pack makes"
    )

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: Any) -> Any:
        return tuple(SuiteData.model_validate(one) for one in value) if _listed(value) else value

    @field_validator("models", "methods", mode="before")
    @classmethod
    def _choices(cls, value: Any) -> Any:
        return tuple(Choice.model_validate(one) for one in value) if _listed(value) else value

    @field_validator("data", "models", "methods")
    @classmethod
    def _distinct(cls, value: tuple[Choice, ...]) -> tuple[Choice, ...]:
        labels = [label(one) for one in value]
        for one, own in zip(value, labels, strict=True):
            if not one.name.strip():
                raise ValueError(f"an entry has no name ({own.strip() or 'it is empty'})")
            if labels.count(own) > 1:
                raise ValueError(f"{own} stands there twice")
        return value

    @field_validator("train")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _checked(value)

    @field_validator("rates")
    @classmethod
    def _rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return checked_rates(value)

    @field_validator("weight_decays")
    @classmethod
    def _decays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return checked_decays(value)

    @model_validator(mode="after")
    def _known_data(self) -> Suite:
        labels = [label(one) for one in self.data]
        for row in self.published:
            if row.data not in labels:
                raise ValueError(
                    f"the published row of {row.method} is for {row.data}, which is none of {', '.join(labels)}"
                )
        return self


def label(choice: Choice) -> str:
    """How a data set, model or method with its options is called: ``vision.digits limit_train=100``. Options of the
    task that belong to a data set alone stand there as ``task.horizon=96``."""
    of_task = choice.task if isinstance(choice, SuiteData) else {}
    options = {**choice.options, **{f"{_OF_TASK}{key}": value for key, value in of_task.items()}}
    return " ".join([choice.name, *(f"{key}={_word(value)}" for key, value in sorted(options.items()))])


def parse_label(text: str) -> Choice:
    """The choice a label stands for; values are read as JSON where they are, ``none`` is None, all else is text."""
    name, *options = _OPTION.split(text.strip())
    pairs = (option.partition("=") for option in options)
    return Choice.model_validate({"name": name, **{key: _value(value.strip()) for key, _, value in pairs}})


def checked_rates(rates: tuple[float, ...]) -> tuple[float, ...]:
    """Learning rates in ascending order.

    Raises:
        ValueError: one is not a positive number, or stands there twice.
    """
    for rate in rates:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"a learning rate is a number above 0 (got {rate:g})")
        if rates.count(rate) > 1:
            raise ValueError(f"{rate:g} stands there twice")
    return tuple(sorted(rates))


def checked_decays(decays: tuple[float, ...]) -> tuple[float, ...]:
    """Weight decays in ascending order.

    Raises:
        ValueError: one is not a number of at least 0, or stands there twice.
    """
    for decay in decays:
        if not (math.isfinite(decay) and decay >= 0):
            raise ValueError(f"a weight decay is a number of at least 0 (got {decay:g})")
        if decays.count(decay) > 1:
            raise ValueError(f"{decay:g} stands there twice")
    return tuple(sorted(decays))


def _checked(train: dict[str, Any]) -> dict[str, Any]:
    try:
        TrainConfig.model_validate(train)
    except ValidationError as error:
        raise ValueError("; ".join(problems(error, prefix="train"))) from None
    return train


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _word(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, separators=(",", ":"))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
