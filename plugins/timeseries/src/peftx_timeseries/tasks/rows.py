"""What a model that scores rows has to know of its task, and nothing of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from peftx.errors import ConfigError
from peftx.tasks import Task
from peftx_timeseries.series.blocks import Blocks

__all__ = ["HasBlocks", "RowShapes", "row_shapes_of"]


@dataclass(frozen=True, slots=True)
class RowShapes:
    """Rows of a window, and channels of a row."""

    length: int
    channels: int


@runtime_checkable
class HasBlocks(Protocol):
    """A task whose samples are windows of all channels."""

    row_shapes: RowShapes

    def blocks(self, split: str, *, scoring: bool = False) -> Blocks: ...


def row_shapes_of(task: Task) -> RowShapes:
    """The shapes of a task that scores rows.

    Raises:
        ConfigError: it scores none.
    """
    if not isinstance(task, HasBlocks):
        raise ConfigError(
            f"{type(task).__name__} detects no anomalies, so scores of rows cannot be compared there"
        )
    return task.row_shapes
