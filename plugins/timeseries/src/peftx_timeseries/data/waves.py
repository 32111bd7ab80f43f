"""Waves: a synthetic data set that is there without a download, hour by hour, for first steps and for tests.

Channel m at hour t, with phases and weights of its own:

    x = level + slope t + a sin(2 pi t / 24 + p) + b sin(4 pi t / 24 + q) + c sin(2 pi t / 168 + r) + s u
    u_t = 0.6 u_{t-1} + e_t                       e standard normal, s = noise, the sum scaled by the channel's unit

From 2/5 of the rows on the regime is another one: the level moves and the daily wave comes later and stronger. It is
in the training rows, so that it can be learnt. No figure on it says anything about real series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.data.borders import by_fractions, cut
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["load", "uniform", "waves"]

#: Where the regime changes, as a fraction of the rows.
_CHANGE = 0.4


def load(config: WavesConfig, ctx: DataContext) -> Dataset:
    """Return the data set; train, val and test follow one another in time, 70, 10 and 20 % of the rows."""
    import numpy as np

    names = tuple(f"wave{number}" for number in range(1, config.count + 1))
    times = np.datetime64("2020-01-01T00:00:00") + np.arange(config.rows) * np.timedelta64(1, "h")
    values = waves(config.rows, config.count, config.noise, config.wave_seed)
    series = Series("waves", values, names, times.astype("datetime64[s]"))
    said = f"synthetic; the regime changes at row {int(config.rows * _CHANGE):,}, in training"
    parts = cut((series,), {config.rows: by_fractions(config.rows)}, config, "refuse", None, said)
    return make_dataset(
        "timeseries.waves",
        parts.splits,
        frequency="h",
        period=config.period or 24,
        source="computed from a seed",
        licence="none needed",
        note="; ".join(parts.notes),
        synthetic=True,
        scaler=parts.scaler,
    )


def waves(rows: int, channels: int, noise: float, seed: int) -> Values:
    """Return the values (rows, channels) of the module's equation, rounded to six decimals.

    Rounded, and drawn from the raw stream of PCG64, they are the same on every machine (see `peftx.data.splits`).
    """
    import numpy as np

    # a stream for each channel: more of them, or more rows, leave the others as they are
    streams = [np.random.PCG64([seed, number]) for number in range(channels)]
    found = np.empty((rows, channels))
    hours = np.arange(rows, dtype=np.float64)
    after = hours >= int(rows * _CHANGE)
    for number, stream in enumerate(streams):
        p, q, r, size, level, slope = uniform(stream, 6)
        day = (1 + 0.5 * after) * np.sin(2 * np.pi * (hours / 24 + p + after / 8))
        half = 0.4 * np.sin(2 * np.pi * (hours / 12 + q))
        week = 0.6 * np.sin(2 * np.pi * (hours / 168 + r))
        drawn = np.sqrt(-2 * np.log(uniform(stream, rows))) * np.cos(2 * np.pi * uniform(stream, rows))
        for row in range(1, rows):
            drawn[row] += 0.6 * drawn[row - 1]
        trend = (slope - 0.5) * hours / 1000
        unit = 10 ** (2 * size)
        found[:, number] = unit * (4 * level + trend + 1.5 * after + day + half + week + noise * drawn)
    return found.round(6)


def uniform(stream: np.random.PCG64, count: int) -> Values:
    """Draws from (0, 1]."""
    import numpy as np

    return ((stream.random_raw(count) >> np.uint64(11)).astype(np.float64) + 1) / 2.0**53
