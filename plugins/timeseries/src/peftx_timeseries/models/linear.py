"""The closed-form linear forecast, fitted to all training windows of all channels at once.

Each window is taken relative to its last value x_L:

    y - x_L = W (x_1 - x_L, ..., x_{L-1} - x_L) + b        min over W, b of the squared error + ridge |W|^2

one matrix shared by all channels, from the normal equations in float64. It is the forecast that a frozen trunk has to
beat, and it takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_timeseries.series.windows import Windows

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = ["demand_enough", "least_squares", "relative"]

#: Samples whose products are formed at a time.
CHUNK = 8192


def least_squares(windows: Windows, ridge: float = 0.0) -> tuple[Floats, Floats]:
    """Return W (H, L - 1) and b (H,) for windows of length L > 1. Windows with a missing value are left out.

    Raises:
        DataError: there are fewer windows than unknowns of a row, and no ridge; or no whole window at all.
    """
    import numpy as np

    width = windows.length  # L - 1 differences and the intercept
    gram = np.zeros((width, width))
    cross = np.zeros((width, windows.horizon))
    used = 0
    for _, rows, ahead in relative(windows, CHUNK):
        gram += rows.T @ rows
        cross += rows.T @ ahead
        used += len(rows)
    demand_enough(used, width, windows.length, ridge)
    penalty = np.full(width, ridge)
    penalty[-1] = 0.0  # the intercept is free
    solution = np.linalg.lstsq(gram + np.diag(penalty), cross, rcond=None)[0].astype(np.float64)
    return solution[:-1].T.copy(), solution[-1].copy()


def relative(windows: Windows, chunk: int) -> Iterator[tuple[Indices, Floats, Floats]]:
    """The whole windows, some at a time: their samples (n,), what is before the last value relative to it, and a 1 for
    the intercept, (n, L), and what comes behind it, likewise, (n, H)."""
    import numpy as np

    for begin in range(0, len(windows), chunk):
        samples = np.arange(begin, min(begin + chunk, len(windows)))
        inputs, targets = windows.cut(samples)
        whole = np.isfinite(inputs).all(1) & np.isfinite(targets).all(1)
        x, y = inputs[whole].astype(np.float64), targets[whole].astype(np.float64)
        last = x[:, -1:]
        yield samples[whole], np.concatenate([x[:, :-1] - last, np.ones_like(last)], 1), y - last


def demand_enough(used: int, unknowns: int, length: int, ridge: float) -> None:
    """Raise DataError where so many whole windows do not determine so many unknowns."""
    if not used or (used < unknowns and not ridge):
        also = f" and {unknowns - length} of covariates" if unknowns > length else ""
        raise DataError(
            f"{used} whole training windows are too few for a linear forecast from {length} rows{also}: take a "
            "shorter --task.input-length, or a ridge"
        )
