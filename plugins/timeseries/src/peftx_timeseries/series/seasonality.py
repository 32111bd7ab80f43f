"""Seasonal forecasts of a whole history, as the organisers of the M4 competition make their benchmarks.

The test is that of 90 % on the autocorrelation r, taken only where there are at least three seasons of m rows:

    |r_m| > 1.645 sqrt((1 + 2 (r_1^2 + ... + r_{m-1}^2)) / n)

The decomposition is the classical multiplicative one: the trend is a centred moving average over a season (of m + 1
rows with halves at the ends where m is even), the factor of each place in the season the mean ratio of value and trend
there, and all factors are divided by their mean.

    naive2    y_h = (x_n / s_n) s_{n + h}       s = 1 where the test finds no season
    seasonal  y_h = x_{n - m + 1 + (h - 1) mod m}

S. Makridakis, E. Spiliotis, V. Assimakopoulos, "The M4 Competition: 100,000 time series and 61 forecasting methods",
International Journal of Forecasting 36 (2020). The autocorrelation is that of R's `acf`, which reaches to a lag of
10 log10(n): a longer season is not found. Torch-free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "CRITICAL",
    "carried",
    "is_seasonal",
    "naive2",
    "naive_scale",
    "seasonal_factors",
    "seasonal_naive",
]

#: The 95 % quantile of the normal distribution, as the organisers round it: a test of 90 % from both sides.
CRITICAL = 1.645


def carried(history: Floats) -> Floats:
    """Replace missing values of (n,) by the last value before them, those at the start by the first value after;
    a history without any value becomes zeros."""
    import numpy as np

    seen = np.isfinite(history)
    if seen.all():
        return history
    if not seen.any():
        return np.zeros_like(history)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(history)), -1))
    filled: Floats = history[np.where(last < 0, int(np.argmax(seen)), last)]
    return filled


def is_seasonal(history: Floats, period: int) -> bool:
    """Whether the test finds a season of `period` rows in (n,); never in fewer than three, nor in a constant."""
    import numpy as np

    count = len(history)
    if period <= 1 or count < 3 * period or period > int(10 * np.log10(count)):
        return False
    centred = history - history.mean()
    power = float(centred @ centred)
    # what is left of rounding is no variation
    if power <= count * (1e-12 * float(np.abs(history).max())) ** 2:
        return False
    lags = [float(centred[lag:] @ centred[:-lag]) / power for lag in range(1, period + 1)]
    limit = CRITICAL * np.sqrt((1 + 2 * sum(lag**2 for lag in lags[:-1])) / count)
    return bool(abs(lags[-1]) > limit)


def seasonal_factors(history: Floats, period: int) -> Floats:
    """Return the m factors of the multiplicative decomposition of (n,), n >= 2 m, the first for its first row; ones
    where they cannot be had: the trend or a mean ratio is not positive."""
    import numpy as np

    weights = np.ones(period) if period % 2 else np.concatenate([[0.5], np.ones(period - 1), [0.5]])
    trend = np.convolve(history, weights / period, mode="valid")
    before = period // 2
    if not (trend > 0).all():
        return np.ones(period)
    ratio = history[before : before + len(trend)] / trend
    place = (np.arange(len(trend)) + before) % period
    factors: Floats = np.bincount(place, ratio, period) / np.bincount(place, minlength=period)
    if not (factors > 0).all():
        return np.ones(period)
    return factors / factors.mean()


def naive2(history: Floats, period: int, horizon: int) -> Floats:
    """Forecast (H,) of a history (n,), n >= 1: the last value, adjusted for the season where the test finds one."""
    import numpy as np

    history = carried(history)
    if not is_seasonal(history, period):
        return np.full(horizon, history[-1])
    factors = seasonal_factors(history, period)
    count = len(history)
    ahead = factors[(count + np.arange(horizon)) % period]
    forecast: Floats = history[-1] / factors[(count - 1) % period] * ahead
    return forecast


def seasonal_naive(history: Floats, period: int, horizon: int) -> Floats:
    """Forecast (H,) of a history (n,), n >= 1: its last season again and again; its last value where it is shorter."""
    import numpy as np

    history = carried(history)
    season = history[-period:] if len(history) >= period else history[-1:]
    forecast: Floats = season[np.arange(horizon) % len(season)]
    return forecast


def naive_scale(history: Floats, period: int) -> float:
    """The mean of |x_t - x_{t - m}| over a history (n,), where both were observed; 0 where it never changes or is no
    longer than a season: nothing can be scaled by that."""
    import numpy as np

    if len(history) <= period:
        return 0.0
    steps = np.abs(history[period:] - history[:-period])
    seen = np.isfinite(steps)
    return float(steps[seen].mean()) if seen.any() else 0.0
