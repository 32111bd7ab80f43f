"""Which numbers of a file are taken for measurements: finite ones, and none so large that its square is no number any
more, since means and deviations of the others would be lost with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MOST", "what_is_wild", "wild"]

#: The largest value that is taken for one.
MOST = 1e100


def wild(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are infinite or beyond `MOST`; missing ones, NaN, are not."""
    import numpy as np

    found: NDArray[np.bool_] = np.abs(values) > MOST
    return found


def what_is_wild(value: float) -> str:
    """Why a value is not taken, for the end of a sentence."""
    return "infinite" if abs(value) == float("inf") else "too large for a measurement"
