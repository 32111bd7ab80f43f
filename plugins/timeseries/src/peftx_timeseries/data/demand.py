"""Demand: a synthetic data set with covariates that matter, hour by hour, there without a download.

    x_t = 100 + 10 sin(2 pi t / 24 + p) + 4 sin(4 pi t / 24 + q) - 15 closed_t - 6 temperature_{t-12} + 10 s u_t
    u_t = 0.6 u_{t-1} + e_t                                e standard normal, s = noise

    closed          known ahead: 1 for the hours of a day off, else 0. One day in seven is off, drawn at random, so that
                    no history tells which
    temperature     known as it happens: T_t = 0.98 T_{t-1} + 0.2 e_t, of deviation 1. Demand follows it half a day
                    later, so that the last 12 hours tell of the next 12 what demand itself does not yet

No figure on it says anything about real demand: it shows whether a forecast uses what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx_timeseries.config.data import DemandConfig
from peftx_timeseries.data.borders import by_fractions, cut
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.waves import uniform
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["demand", "load"]

#: Hours after which demand follows the temperature.
_DELAY = 12


def load(config: DemandConfig, ctx: DataContext) -> Dataset:
    """Return the data set; train, val and test follow one another in time, 70, 10 and 20 % of the rows."""
    import numpy as np

    times = np.datetime64("2020-01-01T00:00:00") + np.arange(config.rows) * np.timedelta64(1, "h")
    values, closed, temperature = demand(config.rows, config.noise, config.demand_seed)
    series = Series(
        "demand",
        values[:, None],
        ("demand",),
        times.astype("datetime64[s]"),
        covariates={"closed": closed, "temperature": temperature},
    )
    said = "synthetic; days off are drawn at random and known ahead, the temperature acts half a day later"
    parts = cut((series,), {config.rows: by_fractions(config.rows)}, config, "refuse", None, said)
    return make_dataset(
        "timeseries.demand",
        parts.splits,
        frequency="h",
        period=config.period or 24,
        source="computed from a seed",
        licence="none needed",
        note="; ".join(parts.notes),
        synthetic=True,
        scaler=parts.scaler,
        known=("closed",),
        past=("temperature",),
    )


def demand(rows: int, noise: float, seed: int) -> tuple[Values, Values, Values]:
    """Return demand, days off and temperature (rows,) of the module's equations, rounded to six decimals; the same on
    every machine, as the waves are."""
    import numpy as np

    # streams of their own: more rows leave the first ones as they are
    phases, days, weather, rest = (np.random.PCG64([seed, number]) for number in range(4))
    p, q = 2 * np.pi * uniform(phases, 2)
    hours = np.arange(rows, dtype=np.float64)
    closed = (uniform(days, rows // 24 + 1) <= 1 / 7).astype(np.float64).repeat(24)[:rows]
    before = _follow(_normal(weather, rows + _DELAY), 0.98, 0.2)
    day = 10 * np.sin(2 * np.pi * hours / 24 + p) + 4 * np.sin(4 * np.pi * hours / 24 + q)
    error = 10 * noise * _follow(_normal(rest, rows), 0.6, 1.0)
    values = 100 + day - 15 * closed - 6 * before[:rows] + error
    return values.round(6), closed, before[_DELAY:].round(6)


def _normal(stream: np.random.PCG64, count: int) -> Values:
    """Standard normal draws, of two numbers each, one after the other."""
    import numpy as np

    first, second = uniform(stream, 2 * count).reshape(count, 2).T
    drawn: Values = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    return drawn


def _follow(drawn: Values, keep: float, gain: float) -> Values:
    """A series that keeps a part of its last value: s_t = keep s_{t-1} + gain e_t, from 0."""
    total = gain * drawn
    for row in range(1, len(total)):
        total[row] += keep * total[row - 1]
    return total
