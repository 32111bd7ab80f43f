"""What a forecaster has to know of its task, and nothing of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peftx.errors import ConfigError
from peftx.tasks import Task
from peftx_timeseries.series.windows import Windows

__all__ = ["HasWindows", "Shapes", "shapes_of", "told_by"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Rows of the input and of the forecast, and of a season; names of the covariates that are looked at, known ahead
    of time or only as they happen."""

    length: int
    horizon: int
    period: int
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    @property
    def covariate_rows(self) -> int:
        """Rows of the covariates that a linear forecast looks at, unless it is told: a season, within the input."""
        return min(self.period, self.length)


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


def told_by(task: Task) -> tuple[str, ...]:
    """Names of the forecasts from a series' whole history that the batches of a task hold; none for most."""
    names: tuple[str, ...] = getattr(task, "references", ())
    return names
