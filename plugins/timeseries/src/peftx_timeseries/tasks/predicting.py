"""Forecasts of what comes after a file's last row, in the units of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from peftx.errors import DataError
from peftx_timeseries.config.data import CsvConfig, LongConfig
from peftx_timeseries.data.long import read_long
from peftx_timeseries.data.reading import read_table
from peftx_timeseries.data.tables import Read, read_wide
from peftx_timeseries.series.frequency import parse_frequency
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

__all__ = ["SUFFIXES", "forecasts"]

#: Endings of files that hold a table.
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def forecasts(
    task: Forecasting, model: nn.Module, paths: Sequence[Path], device: torch.device | str
) -> list[dict[str, Any]]:
    """Return for every file the next rows of each of its series and channels.

    A file is a wide table with the channels the run was trained on (others are passed over), or a long one. Each row
    of ``forecast`` names series, channel, step and, where the rows have times, the time; ``forecast`` is the point
    forecast and ``q0.1`` and so on are the quantiles the run was trained for.

    Raises:
        DataError: a file cannot be read, lacks a channel, or has fewer rows than the input.
    """
    return [{"path": str(path), "forecast": _of_file(task, model, path, device)} for path in paths]


def _of_file(
    task: Forecasting, model: nn.Module, path: Path, device: torch.device | str
) -> list[dict[str, Any]]:
    read = _read(task, path)
    found: list[dict[str, Any]] = []
    for one in read.series:
        values = _ahead(task, model, one, device)  # (channels, H, 1 + Q)
        times = _times(one, read.frequency, task.shapes.horizon)
        names = ["forecast", *(f"q{level:g}" for level in task.config.quantiles)]
        for channel, rows in zip(one.channels, values, strict=True):
            for step, row in enumerate(rows):
                place = {"series": one.name, "channel": channel, "step": step + 1}
                when = {} if times is None else {"time": times[step]}
                found.append(place | when | dict(zip(names, row.tolist(), strict=True)))
    return found


def _read(task: Forecasting, path: Path) -> Read:
    table = read_table(path)
    columns = {str(column) for column in table.frame.columns}
    if {"unique_id", "y"} <= columns:
        return read_long(table, LongConfig(path=path))
    trained = tuple(task.data.card.get("channels", ()))
    return read_wide(table, CsvConfig(path=path, channels=trained if set(trained) <= columns else ()))


def _ahead(
    task: Forecasting, model: nn.Module, one: Series, device: torch.device | str
) -> np.ndarray[Any, Any]:
    length = task.shapes.length
    pad = task.config.short_series == "pad"
    if len(one.values) < (1 if pad else length):
        raise DataError(
            f"{one.name} has {len(one.values)} rows, and a forecast looks at the last {length}: give a longer history"
        )
    mean, std = task.statistics(one)
    rows = np.full((length, len(one.channels)), np.nan)
    held = one.values[-length:]
    rows[len(rows) - len(held) :] = (held - mean) / std
    if not np.isfinite(rows).any(0).all():
        channel = one.channels[int(np.argmin(np.isfinite(rows).any(0)))]
        raise DataError(
            f"{one.name}: the last {length} rows of {channel!r} are all missing, so nothing can be forecast"
        )
    x = torch.from_numpy(rows.T.astype(np.float32)).to(device)
    more = {name: value.to(device) for name, value in task.ahead(one).items()}
    y = task.forecast(model, x, more).double().cpu().numpy()
    if y.ndim == 2:
        y = y[..., None]
    else:
        y = np.concatenate([y[..., [task.config.quantiles.index(0.5)]], y], -1)
    result: np.ndarray[Any, Any] = y * std[:, None, None] + mean[:, None, None]
    return result


def _times(one: Series, frequency: str, horizon: int) -> list[str] | None:
    if one.times is None or not frequency:
        return None
    after = parse_frequency(frequency).times(one.times[-1], np.arange(1, horizon + 1))
    return [str(time).replace("T", " ") for time in after.astype("datetime64[s]")]
