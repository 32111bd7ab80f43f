"""Forecasts of what comes after a file's last row, in the units of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftx.errors import ConfigError, DataError
from peftx_timeseries.config.predict import ForecastConfig
from peftx_timeseries.series.frequency import parse_frequency
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.tasks.intervals import Bands, bands_of, levels_of, pairs_of
from peftx_timeseries.tasks.rereading import SUFFIXES, read_new

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

    Floats = NDArray[np.float64]

__all__ = ["SUFFIXES", "Ahead", "forecasts", "look_ahead", "times_ahead"]

#: Deviations of the training rows that an input may lie away from their mean before it is told.
FAR = 8.0


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes after the last row of one series, in its own units, by channel.

    Args:
        series: the series, its split ending at the last row that has a value.
        point: (M, N) the point forecast of N rows.
        quantiles: (M, N, Q) those of a quantile head, else Q = 0.
        bounds: by level, lower and upper bound (M, N); NaN where there is none.
        own: rows from which on the forecast goes by its own forecasts.
    """

    series: Series
    point: Floats
    quantiles: Floats
    bounds: dict[float, tuple[Floats, Floats]]
    own: int


def forecasts(
    task: Forecasting, model: nn.Module, paths: Sequence[Path], device: torch.device | str
) -> list[dict[str, Any]]:
    """Return for every file the next rows of each of its series and channels.

    A file is read as the run's own table was, see `rereading`; channels that the run was not trained on are passed
    over. Each row of ``forecast`` names series, channel, step and, where the rows have times, the time; ``forecast`` is
    the point forecast, ``low0.8`` and ``high0.8`` are the bounds of an interval of nominal coverage 0.8, and ``q0.1``
    and so on the quantiles the run was trained for. ``iterated`` is there when more rows are asked for than the run
    forecasts, and true for those beyond.

    Raises:
        DataError: a file cannot be read, lacks a channel, is of another frequency, or has fewer rows than the input.
        ConfigError: more rows are asked for than the run forecasts, or an interval that it cannot give.
    """
    asked = task.predict_options or ForecastConfig()
    return [{"path": str(path), **_of_file(task, model, path, device, asked)} for path in paths]


def look_ahead(
    task: Forecasting,
    model: nn.Module,
    path: Path,
    device: torch.device | str,
    asked: ForecastConfig,
) -> tuple[list[Ahead], str, list[str]]:
    """What comes after each series of a file, the frequency of the rows, and what a reader must know, of the file with
    its name.

    Raises:
        DataError, ConfigError: see `forecasts`.
    """
    bands = bands_of(task)
    levels = levels_of(task, asked.level, bands)
    rows = asked.horizon or task.shapes.horizon
    if rows > task.shapes.horizon and not asked.iterate:
        raise ConfigError(
            f"--horizon {rows}: the run forecasts {task.shapes.horizon} rows; --iterate goes on from its own "
            f"forecasts, or train a run with --task.horizon {rows}"
        )
    if rows > task.shapes.horizon and task.shapes.past:
        raise ConfigError(
            f"--iterate: the run looks at {', '.join(task.shapes.past)}, which nobody knows ahead of time, so it "
            f"cannot go on from its own forecasts: ask for {task.shapes.horizon} rows at most"
        )
    read, own = read_new(task, path, asked)
    found = [_ahead(task, model, one, device, rows, levels, bands, asked.scaling, own) for one in read.series]
    # a wide table's series is called as the file
    notes = [text if text.startswith(f"{path.name}:") else f"{path.name}: {text}" for text in own]
    if task.scaler is None and asked.scaling == "run":
        notes.append(
            "each series is scaled by its own rows in the file: the run was trained on more series than it keeps the "
            "scaling of"
        )
    if rows > task.shapes.horizon:
        notes.append(
            f"the run forecasts {task.shapes.horizon} rows: those from step {task.shapes.horizon + 1} on are forecast "
            "from its own forecasts, and have no interval, since nothing was measured of their errors"
        )
    if levels and not task.config.quantiles:
        notes.append(
            f"intervals are split conformal, from the errors on the run's validation rows; their coverage "
            f"({', '.join(f'{level:g}' for level in levels)}) is nominal, since a time series is not exchangeable"
            + _measured(task, levels)
        )
    if not levels and not task.config.quantiles:
        notes.append(
            f"no intervals: the {task.calibration['windows']} validation windows are too few for them"
            if bands is not None
            else "no intervals: the run kept no errors on validation; `peftx eval RUN`, with the data at hand, makes "
            "up for it"
        )
    return found, read.frequency, notes


def times_ahead(one: Series, frequency: str, rows: int) -> NDArray[np.datetime64] | None:
    """The times (N,) of the rows after the last one of a series; None where they have none."""
    if one.times is None or not frequency:
        return None
    step, last, ahead = parse_frequency(frequency), one.end - 1, np.arange(1, rows + 1)
    # from the first row, as all are: the last of them may stand in a month that is too short for their day
    even = step.times(one.times[0], np.array([last]))[0] == one.times[last]
    return step.times(one.times[0], last + ahead) if even else step.times(one.times[last], ahead)


def _of_file(
    task: Forecasting, model: nn.Module, path: Path, device: torch.device | str, asked: ForecastConfig
) -> dict[str, Any]:
    ahead, frequency, notes = look_ahead(task, model, path, device, asked)
    rows: list[dict[str, Any]] = []
    for one in ahead:
        count = one.point.shape[1]
        times = times_ahead(one.series, frequency, count)
        shown = None if times is None else [_shown(time) for time in times]
        for at, channel in enumerate(one.series.channels):
            for step in range(count):
                row: dict[str, Any] = {"series": one.series.name, "channel": channel, "step": step + 1}
                if shown is not None:
                    row["time"] = shown[step]
                row["forecast"] = float(one.point[at, step])
                for level, (low, high) in one.bounds.items():
                    row[f"low{level:g}"] = _known(low[at, step])
                    row[f"high{level:g}"] = _known(high[at, step])
                for name, value in zip(task.config.quantiles, one.quantiles[at, step], strict=True):
                    row[f"q{name:g}"] = _known(value)
                if count > task.shapes.horizon:
                    row["iterated"] = step >= one.own
                rows.append(row)
    return {"forecast": rows, "notes": notes}


def _ahead(
    task: Forecasting,
    model: nn.Module,
    one: Series,
    device: torch.device | str,
    rows: int,
    levels: Sequence[float],
    bands: Bands | None,
    scaling: str,
    notes: list[str],
) -> Ahead:
    one = _until_last(one, task, notes)
    if scaling == "own":
        one = replace(one, scaler=Scaler.fit(SeriesSplit([one])))
    mean, std = _statistics(task, one)
    _look_at_input(task, one, mean, std, notes)
    horizon, channels = task.shapes.horizon, len(one.channels)
    point = np.empty((channels, 0))
    quantiles = np.full((channels, horizon, len(task.config.quantiles)), np.nan)
    held = one
    while point.shape[1] < rows:
        made = _one_more(task, model, held, device, mean, std, rows - point.shape[1])  # (M, H) or (M, H, Q)
        if made.ndim == 3:
            crossed = float((np.diff(made, axis=-1) < 0).any(-1).mean())
            made = np.sort(made, -1)
            if not point.shape[1]:
                quantiles = made
                if crossed:
                    notes.append(
                        f"{one.name}: the run's quantiles cross in {crossed:.1%} of the rows, and are put in order; "
                        "the forecast is the median after that"
                    )
            made = made[..., task.config.quantiles.index(0.5)]
        point = np.concatenate([point, made], 1)
        if point.shape[1] < rows:
            held = _extended(held, (made * std[:, None] + mean[:, None]).T)
    # beyond the run's horizon nothing was measured
    beyond = rows - min(rows, horizon)
    quantiles = np.pad(quantiles[:, :rows], ((0, 0), (0, beyond), (0, 0)), constant_values=np.nan)
    scaled = quantiles * std[:, None, None] + mean[:, None, None]
    bounds: dict[float, tuple[Floats, Floats]] = {}
    for level in levels:
        if task.config.quantiles:
            below, above = pairs_of(task)[level]
            bounds[level] = scaled[..., below], scaled[..., above]
        elif bands is not None:
            offsets = [
                np.stack([bands.of(channel, level)[side] for channel in one.channels]) for side in (0, 1)
            ]
            low, high = (
                np.pad(part[:, :rows], ((0, 0), (0, beyond)), constant_values=np.nan) for part in offsets
            )
            bounds[level] = tuple(  # type: ignore[assignment]
                (point[:, :rows] + part) * std[:, None] + mean[:, None] for part in (low, high)
            )
    return Ahead(one, point[:, :rows] * std[:, None] + mean[:, None], scaled, bounds, horizon)


def _until_last(one: Series, task: Forecasting, notes: list[str]) -> Series:
    """The series up to its last row that has a value: what comes behind, with covariates alone, is to be forecast.

    Raises:
        DataError: its history is too short.
    """
    seen = np.flatnonzero(np.isfinite(one.values).any(1))
    end = int(seen[-1]) + 1
    if end < len(one.values):
        notes.append(
            f"{one.name}: the last {len(one.values) - end} rows have no value in any channel, and the forecast begins "
            "with the first of them"
        )
    length, pad = task.shapes.length, task.config.short_series == "pad"
    if end < (1 if pad else length):
        raise DataError(
            f"{one.name} has {end} rows, and a forecast looks at the last {length}: give a longer history"
        )
    return one.rows(0, end)


def _statistics(task: Forecasting, one: Series) -> tuple[Floats, Floats]:
    """What a series is standardised by: one of several that the run was not trained on has nothing of its own there.

    Raises:
        DataError: it is such a one, or its channels are others.
    """
    trained = task.scaler if one.scaler is None else None
    long = dict(task.data.card.get("reading", {})).get("layout") == "long"
    try:
        if long and trained is not None and one.name not in trained.names:
            raise DataError(
                f"no series {one.name!r} was trained on, so it has no scaling: there are "
                f"{', '.join(trained.names[:5])}" + (" ..." if len(trained.names) > 5 else "")
            )
        return task.statistics(one)
    except DataError as error:
        if one.channels == tuple(task.data.card.get("channels", one.channels)):
            raise DataError(f"{error}; --scaling own scales series by their own rows in the file") from None
        raise


def _look_at_input(task: Forecasting, one: Series, mean: Floats, std: Floats, notes: list[str]) -> None:
    """Refuse an input without a value, and tell of one with gaps or far away from the training rows."""
    window = one.values[max(0, one.end - task.shapes.length) : one.end]
    seen = np.isfinite(window)
    for at, channel in enumerate(one.channels):
        if not seen[:, at].any():
            raise DataError(
                f"{one.name}: the last {task.shapes.length} rows of {channel!r} are all missing, so nothing can be "
                "forecast"
            )
    gaps = int((~seen).sum(0).max())
    if gaps:
        channel = one.channels[int((~seen).sum(0).argmax())]
        notes.append(
            f"{one.name}: {gaps} of the last {len(window)} rows of {channel!r} are missing; the forecast sees the last "
            "value before them"
        )
    away = np.abs(np.nanmean(np.where(seen, window, np.nan), 0) - mean) / std
    if away.max() > FAR:
        channel = one.channels[int(away.argmax())]
        notes.append(
            f"{one.name}: the input of {channel!r} lies {away.max():.0f} deviations away from the run's training rows: "
            "if it is another quantity or unit, the forecast means nothing"
        )


def _one_more(
    task: Forecasting,
    model: nn.Module,
    one: Series,
    device: torch.device | str,
    mean: Floats,
    std: Floats,
    wanted: int,
) -> Floats:
    """The standardised forecast behind ``one.end``, of which `wanted` rows are asked for."""
    length = task.shapes.length
    rows = np.full((length, len(one.channels)), np.nan)
    held = one.values[max(0, one.end - length) : one.end]
    rows[length - len(held) :] = (held - mean) / std
    x = torch.from_numpy(rows.T.astype(np.float32)).to(device)
    more = {name: value.to(device) for name, value in task.ahead(one, wanted).items()}
    made: Floats = task.forecast(model, x, more).double().cpu().numpy()
    return made


def _extended(one: Series, made: Floats) -> Series:
    """The series with its forecast (H, M) as if that had happened; covariates of later rows stay where they are."""
    end = one.end + len(made)
    rows = max(len(one.values), end)
    values = np.full((rows, len(one.channels)), np.nan)
    values[: one.end] = one.values[: one.end]
    values[one.end : end] = made
    covariates = {
        name: np.concatenate([column, np.full(rows - len(column), np.nan)])
        for name, column in one.covariates.items()
    }
    return replace(one, values=values, times=None, begin=0, end=end, covariates=covariates)


def _measured(task: Forecasting, levels: Sequence[float]) -> str:
    """What the intervals held on the run's test rows."""
    try:
        every, held = task.calibration["levels"], task.calibration["test"]["coverage"]
        found = [f"{held[every.index(level)]:.1%}" for level in levels]
    except (KeyError, ValueError, TypeError):
        return ""
    return f"; on its test rows they held {' and '.join(found)}"


def _shown(time: np.datetime64) -> str:
    whole = time.astype("datetime64[s]")
    return str(whole if whole == time else time).replace("T", " ")


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
