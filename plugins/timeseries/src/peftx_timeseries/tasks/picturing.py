"""Pictures of forecasts of new tables, one for each file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from peftx.errors import DataError
from peftx_timeseries.config.predict import ForecastConfig
from peftx_timeseries.report.forecast import Part, picture
from peftx_timeseries.report.timeline import Point
from peftx_timeseries.tasks.predicting import Ahead, look_ahead, times_ahead

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

__all__ = ["pictures"]


def pictures(
    task: Forecasting, model: nn.Module, paths: Sequence[Path], folder: Path, device: torch.device | str
) -> list[Path]:
    """Write NAME.svg for each file: the last rows of each channel, its forecast, and the intervals.

    Raises:
        DataError: a file cannot be read, or a picture not be written.
        ConfigError: what `forecasts` raises.
    """
    asked = task.predict_options or ForecastConfig()
    written: list[Path] = []
    for path in paths:
        with torch.no_grad():
            ahead, frequency, _ = look_ahead(task, model, path, device, asked)
        parts = [
            _part(task, one, channel, frequency, asked.history, len(ahead) > 1)
            for one in ahead
            for channel in range(len(one.series.channels))
        ]
        drawn = picture(f"Forecast of {path.name}", _below(ahead, frequency), parts)
        # two folders may hold a file of one name
        number, out = 1, folder / f"{path.name}.svg"
        while out in written:
            number += 1
            out = folder / f"{path.name}-{number}.svg"
        try:
            out.write_text(drawn + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {out}: {error.strerror or error}") from error
        written.append(out)
    return written


def _part(
    task: Forecasting, one: Ahead, channel: int, frequency: str, history: int | None, several: bool
) -> Part:
    series, end = one.series, one.series.end
    rows = one.point.shape[1]
    kept = history or max(1, min(task.shapes.length, 3 * rows))
    first = max(0, end - kept)
    values = series.values[first:end, channel]
    pieces: list[list[Point]] = [[]]
    for row, value in enumerate(values.tolist(), first):
        if np.isfinite(value):
            pieces[-1].append((row, value))
        elif pieces[-1]:
            pieces.append([])
    point: list[Point] = [(end + step, float(value)) for step, value in enumerate(one.point[channel])]
    bands = []
    for low, high in one.bounds.values():
        sides = zip(low[channel].tolist(), high[channel].tolist(), strict=True)
        band = [(float(end + step), a, b) for step, (a, b) in enumerate(sides) if np.isfinite([a, b]).all()]
        bands += [band] if band else []
    times: list[datetime] = []
    ahead = times_ahead(series, frequency, rows)
    if series.times is not None and ahead is not None:
        both = np.concatenate(
            [series.times[first:end].astype("datetime64[s]"), ahead.astype("datetime64[s]")]
        )
        times = both.tolist()
    name = f"{series.name}: {series.channels[channel]}" if several else series.channels[channel]
    held = [piece for piece in pieces if piece]
    return Part(name, held, point[: one.own], point[one.own :], bands, times, first)


def _below(ahead: Sequence[Ahead], frequency: str) -> str:
    one = ahead[0]
    step = f", one every {frequency}," if frequency else ""
    levels = " and ".join(f"{level:.3g}" for level in one.bounds)
    intervals = f"; bands: intervals of nominal coverage {levels}" if levels else "; no intervals"
    own = "; dashed: from its own forecasts" if one.point.shape[1] > one.own else ""
    return f"{one.point.shape[1]} rows ahead{step} in the units of the file{intervals}{own}"
