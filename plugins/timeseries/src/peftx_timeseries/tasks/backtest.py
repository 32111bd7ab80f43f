"""A rolling-origin backtest for the page of a run: what was forecast at origins that are spread over the test rows.

Kept as figures in original units, thinned to what a page can show: the values of the test rows with the forecasts of a
few origins, for a few channels, and the error at many more origins beside that of the better naive forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftx_timeseries.report.timeline import row_ticks, thinned, time_ticks
from peftx_timeseries.series.seasonality import carried
from peftx_timeseries.series.series import Series
from peftx_timeseries.series.windows import Windows
from peftx_timeseries.tasks.intervals import DEFAULT, bands_of, chosen_windows, forecast_windows, pairs_of

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

    Autocast = Callable[[], AbstractContextManager[Any]]
    Floats = NDArray[np.float64]

__all__ = ["backtest"]

#: Channels (of several series: series) that are drawn.
DRAWN = 4
#: Points of the values, and of each forecast, that are kept.
VALUES, POINTS = 1440, 96
#: Origins whose error is kept, and the samples that they may cost.
ORIGINS, SAMPLES = 160, 4096


def backtest(
    task: Forecasting,
    model: nn.Module,
    split: str,
    series: tuple[Series, ...],
    origins: int,
    device: torch.device | str,
    autocast: Autocast,
) -> dict[str, Any]:
    """Return what a page shows of forecasts of a split, from `origins` evenly spaced origins.

    ``strips``: values and forecasts of some channels, or of some series, with the bounds of an interval. ``errors``, of
    one series alone: the mean squared error of standardised values, over the channels, by the row of the origin, beside
    the naive forecast that is better over all of them.
    """
    windows = task.windows(split)
    channels = len(windows.channels)
    pairs = (
        [(int(owner), 0) for owner in np.unique(windows.owner)]
        if len(series) > 1
        else [(0, channel) for channel in range(channels)]
    )
    drawn = [pairs[at] for at in thinned(len(pairs), DRAWN)]
    found: dict[str, Any] = {
        "strips": [
            _strip(task, model, split, windows, series[owner], owner, channel, origins, device, autocast)
            for owner, channel in drawn
        ],
        "drawn": [len(drawn), len(pairs)],
        "horizon": task.shapes.horizon,
    }
    held = task.calibration.get("test") if split == "test" else None
    if held:
        found["coverage"] = dict(zip(map(str, task.calibration["levels"]), held["coverage"], strict=True))
    if len(series) == 1 and windows.windows > 2:
        found["errors"] = _errors(task, model, split, windows, series[0], device, autocast)
    return found


def _strip(
    task: Forecasting,
    model: nn.Module,
    split: str,
    windows: Windows,
    one: Series,
    owner: int,
    channel: int,
    origins: int,
    device: torch.device | str,
    autocast: Autocast,
) -> dict[str, Any]:
    own = np.flatnonzero(windows.owner == owner)
    horizon, channels = task.shapes.horizon, len(windows.channels)
    # forecasts that lie on each other cannot be told apart
    span = int(windows.start[own[-1]] - windows.start[own[0]]) + horizon
    held = own[chosen_windows(len(own), max(1, min(origins, span // horizon)))]
    made, _ = forecast_windows(task, model, split, held * channels + channel, device, autocast)
    if made.ndim == 3:
        made = np.sort(made, -1)  # as in a forecast of a new table
    mean, std = (float(part[channel]) for part in task.statistics(one))
    level, low, high = _bounds(task, made, windows.channels[channel])
    point = made if made.ndim == 2 else made[..., task.config.quantiles.index(0.5)]
    starts = windows.start[held]
    first = max(0, int(starts[0]) - max(horizon, (int(starts[-1]) + horizon - int(starts[0])) // 12))
    last = min(one.end, int(starts[-1]) + horizon)
    rows = [first + at for at in thinned(last - first, VALUES)]
    steps = thinned(horizon, POINTS)
    return {
        "series": one.name,
        "channel": windows.channels[channel],
        "rows": rows,
        "values": [_digits(value) for value in one.values[rows, channel]],
        "ticks": _ticks(one, first, last),
        "level": level,
        "forecasts": [
            {
                "rows": [int(start) + step for step in steps],
                "origin": None if one.times is None else str(one.times[start]).replace("T", " "),
                "values": [_digits(value) for value in point[at, steps] * std + mean],
                "low": [_digits(value) for value in low[at, steps] * std + mean],
                "high": [_digits(value) for value in high[at, steps] * std + mean],
            }
            for at, start in enumerate(starts)
        ],
    }


def _bounds(task: Forecasting, made: Floats, channel: str) -> tuple[float | None, Floats, Floats]:
    """The level of the interval that is drawn, and its standardised bounds (n, H); NaN where there is none."""
    if made.ndim == 3:
        pairs = pairs_of(task)
        if pairs:
            level = min(pairs, key=lambda one: abs(one - DEFAULT[0]))
            return level, made[..., pairs[level][0]], made[..., pairs[level][1]]
        made = made[..., 0]
    bands = bands_of(task)
    if made.ndim == 2 and bands is not None and not task.config.quantiles and DEFAULT[0] in bands.bounds:
        low, high = bands.of(channel, DEFAULT[0])
        return DEFAULT[0], made + low, made + high
    none = np.full(made.shape, np.nan)
    return None, none, none


def _errors(
    task: Forecasting,
    model: nn.Module,
    split: str,
    windows: Windows,
    one: Series,
    device: torch.device | str,
    autocast: Autocast,
) -> dict[str, Any]:
    channels = len(windows.channels)
    looked = np.array(thinned(channels, SAMPLES // 16))
    held = chosen_windows(windows.windows, min(ORIGINS, SAMPLES // len(looked)))
    samples = (held[:, None] * channels + looked).ravel()
    made, values = forecast_windows(task, model, split, samples, device, autocast)
    point = made if made.ndim == 2 else made[..., task.config.quantiles.index(0.5)]
    # as the rows to compare with see them
    inputs = np.stack([carried(row) for row in windows.cut(samples)[0].astype(np.float64)])
    step = np.arange(task.shapes.horizon)
    naive = {"repeat last": inputs[:, -1:]}
    period = task.shapes.period
    if 1 < period <= task.shapes.length:
        naive["seasonal naive"] = inputs[:, task.shapes.length - period + step % period]
    by_origin = {name: _mean_squares(values - forecast, len(held)) for name, forecast in naive.items()}
    own = _mean_squares(values - point, len(held))
    best = min(by_origin, key=lambda name: float(np.nanmean(by_origin[name])))
    rows = windows.start[held]
    return {
        "rows": [int(row) for row in rows],
        "own": [_digits(value) for value in own],
        "naive": [_digits(value) for value in by_origin[best]],
        "name": best,
        "channels": [len(looked), channels],
        "ticks": _ticks(one, int(rows[0]), int(rows[-1]) + 1),
    }


def _mean_squares(errors: Floats, origins: int) -> Floats:
    """The mean square over channels and rows of each origin; NaN where nothing was observed."""
    held = errors.reshape(origins, -1)
    seen = np.isfinite(held)
    sums = np.where(seen, held, 0.0) ** 2
    return np.where(seen.any(1), sums.sum(1) / np.maximum(seen.sum(1), 1), np.nan)


def _ticks(one: Series, first: int, last: int) -> list[tuple[int, str]]:
    if one.times is None:
        return row_ticks(first, last)
    return time_ticks(one.times[first:last].astype("datetime64[s]").tolist(), first)


def _digits(value: float) -> float | None:
    """Five digits: finer than a page can show."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
