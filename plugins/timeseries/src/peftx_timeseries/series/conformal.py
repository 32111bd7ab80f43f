"""Intervals of a point forecast from its errors on data it was not trained on: split conformal prediction.

Of n residuals ``r = y - f`` the interval of nominal coverage c, with ``a = 1 - c``, is

    [f + r_(k), f + r_(l)]      k = floor((n + 1) a / 2),  l = ceil((n + 1) (1 - a / 2)),  r_(1) <= ... <= r_(n)

which holds a new y with probability c at least, if its residual is exchangeable with those n (V. Vovk, A. Gammerman,
G. Shafer, "Algorithmic Learning in a Random World", 2005; J. Lei et al., "Distribution-Free Predictive Inference for
Regression", JASA 2018). Both tails are taken for themselves, so that the interval may be lopsided. Too few residuals
for a level (k = 0) give no interval rather than one that is too narrow.

Residuals of a time series are not exchangeable: windows overlap, and the world moves on. The coverage is nominal, and
what it comes to on the test split is measured beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["LEVELS", "coverage", "offsets"]

#: Nominal coverages that a run keeps the bounds of.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def offsets(residuals: Floats, level: float) -> tuple[Floats, Floats]:
    """Bounds below and above a forecast, over the first axis of residuals (n, ...); NaN among them is left out, and NaN
    is returned where those that are left are too few."""
    import numpy as np

    ordered = np.sort(residuals, axis=0)  # NaN goes last
    count = np.isfinite(residuals).sum(0)
    low = np.full(count.shape, np.nan)
    high = np.full(count.shape, np.nan)
    for number in np.unique(count):
        # 1e-9: (n + 1) a / 2 may be a hair off a whole number
        first = math.floor((number + 1) * (1 - level) / 2 + 1e-9)
        if first < 1:
            continue
        here = count == number
        low[here] = ordered[first - 1][here]
        # ceil((n + 1) (1 - a / 2)) = n + 1 - floor((n + 1) a / 2)
        high[here] = ordered[number - first][here]
    return low, high


def coverage(residuals: Floats, low: Floats, high: Floats) -> float | None:
    """Share of the residuals (n, ...) within bounds; None where nothing was observed, or there are no bounds."""
    import numpy as np

    known = np.isfinite(residuals) & np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return None
    inside = known & (residuals >= low) & (residuals <= high)
    return float(inside.sum() / known.sum())
