"""Months: many short synthetic series, there without a download, for first steps with short-term forecasting.

Series i at month t, with 45 to 120 months, all phases and weights of its own:

    x = unit exp(growth t + a sin(2 pi (t / 12 + p)) + b sin(2 pi (t / 6 + q)) + w_t)      w_t = w_{t-1} + s e_t

e is standard normal; every third series has no season (a = b = 0). Positive throughout. No figure on it says anything
about real series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx_timeseries.config.data import MonthsConfig
from peftx_timeseries.data.borders import at_horizon, cut
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.waves import uniform
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["load", "months"]


def load(config: MonthsConfig, ctx: DataContext) -> Dataset:
    """Return the data set: test is the last months of each series, val as many before."""
    series = tuple(
        Series(f"months{number}", months(number, config.wave_seed)[:, None], ("value",))
        for number in range(1, config.count + 1)
    )
    borders = {len(one.values): at_horizon(len(one.values), config.horizon) for one in series}
    said = (
        f"synthetic; test is the last {config.horizon} months of each series, val the {config.horizon} before"
    )
    parts = cut(series, borders, config, "refuse", config.horizon, said)
    return make_dataset(
        "timeseries.months",
        parts.splits,
        frequency="MS",
        period=config.period or 12,
        source="computed from a seed",
        licence="none needed",
        note="; ".join(parts.notes),
        synthetic=True,
        horizon=config.horizon,
        scaler=parts.scaler,
    )


def months(number: int, seed: int) -> Values:
    """Return the values (n,) of one series, rounded to four decimals; the same on every machine."""
    import numpy as np

    stream = np.random.PCG64([seed, number])
    size, long, growth, a, p, b, q, noise = uniform(stream, 8)
    count = 45 + int(long * 75)
    time = np.arange(count, dtype=np.float64)
    seasonal = 0.0 if number % 3 == 0 else 1.0
    year = (0.05 + 0.3 * a) * np.sin(2 * np.pi * (time / 12 + p))
    half = 0.1 * b * np.sin(2 * np.pi * (time / 6 + q))
    drawn = np.sqrt(-2 * np.log(uniform(stream, count))) * np.cos(2 * np.pi * uniform(stream, count))
    walk = np.cumsum((0.01 + 0.03 * noise) * drawn)
    values: Values = 10 ** (2 + 2 * size) * np.exp(
        0.01 * (growth - 0.3) * time + seasonal * (year + half) + walk
    )
    return values.round(4)
