"""What a forecaster has to know of its task, and nothing of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peftx.errors import ConfigError
from peftx.tasks import Task
from peftx_timeseries.series.windows import Windows

__all__ = ["HasWindows", "Shapes", "shapes_of"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Rows of the input and of the forecast, and of a season."""

    length: int
    horizon: int
    period: int


@runtime_checkable
class HasWindows(Protocol):
    """A task whose samples are windows of one channel."""

    shapes: Shapes

    def windows(self, split: str, *, stride: int | None = None) -> Windows: ...


def shapes_of(task: Task) -> Shapes:
    """The shapes of a forecasting task.

    Raises:
        ConfigError: the task forecasts nothing.
    """
    if not isinstance(task, HasWindows):
        raise ConfigError(
            f"{type(task).__name__} is no forecasting task, so a forecast cannot be compared there"
        )
    return task.shapes
