"""Scores and alarms for the rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from peftx.errors import DataError
from peftx_timeseries.data.labelled_files import filled, is_time
from peftx_timeseries.data.reading import read_table
from peftx_timeseries.data.tables import numbers
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    from peftx_timeseries.tasks.anomaly import AnomalyDetection

__all__ = ["SUFFIXES", "alarms"]

#: Endings of files that hold a table.
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def alarms(
    task: AnomalyDetection, model: nn.Module, paths: Sequence[Path], device: torch.device | str
) -> list[dict[str, Any]]:
    """Return for every file its rows: ``row`` from 1, ``time`` where a first column of times is there, ``score``, and
    ``anomaly``, whether the score is above ``threshold``, which `AnomalyDetection.calibrate` found; null where the run
    kept none.

    A file is a table with a column for each channel of the run, others are passed over; missing values become what
    those of the run's data did, the last one before them or 0. Where a run was trained on several machines, the file's
    name says which it is of.

    Raises:
        DataError: a file cannot be read, lacks a channel, has fewer rows than a window, or is of an unknown machine.
    """
    return [_of_file(task, model, path, device) for path in paths]


def _of_file(
    task: AnomalyDetection, model: nn.Module, path: Path, device: torch.device | str
) -> dict[str, Any]:
    table = read_table(path)
    columns = [str(column) for column in table.frame.columns]
    lacking = [channel for channel in task.channels if channel not in columns]
    if lacking:
        raise DataError(
            f"{path} has no column {lacking[0]!r}, which the run was trained on: give a table with the columns "
            f"{', '.join(task.channels[:8])}{', ...' if len(task.channels) > 8 else ''}"
        )
    values = np.column_stack([numbers(table, channel) for channel in task.channels])
    zero = task.data.card.get("missing") == "zero"
    values, gaps = filled(values, task.channels, path.name, "given", zero=zero)
    scores = task.scores_of(model, Series(path.name.split(".")[0], values, task.channels), device)
    held = task.calibration.get("threshold")
    threshold = float(held) if isinstance(held, int | float) else None
    first = columns[0]
    times = table.frame[first] if first not in task.channels and is_time(first) else None
    rows = [
        {"row": at + 1}
        | ({} if times is None else {"time": str(times.iloc[at])})
        | {"score": float(score), "anomaly": None if threshold is None else bool(score > threshold)}
        for at, score in enumerate(scores)
    ]
    notes = []
    if gaps:
        notes.append(
            f"{gaps:,} missing values of {path.name} became {'0' if zero else 'the last value before'}"
        )
    if threshold is None:
        notes.append(
            "the run kept no threshold, so there are scores and no alarms: score it again with `peftx eval`"
        )
    found: dict[str, Any] = {"path": str(path), "threshold": threshold}
    if threshold is not None:
        found["alarms"] = int((scores > threshold).sum())
    return found | {"rows": rows} | ({"notes": notes} if notes else {})
