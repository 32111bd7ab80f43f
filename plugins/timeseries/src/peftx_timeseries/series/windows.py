"""The windows of a split: input rows ``t - L .. t - 1``, target rows ``t .. t + H - 1``.

Every channel of a window is a sample of its own (channel independence). All windows are there, none is dropped, and no
target lies outside the split: with R rows and the history before them, a held-out split has ``R - H + 1`` windows
whatever L is; the training split, which has no history, has ``R - L - H + 1``. Samples are ordered by window, then by
channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.errors import DataError
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]

__all__ = ["Windows"]


class Windows:
    """Windows of a split, cut when they are asked for.

    Args:
        split: its series, all with the same channels.
        length: rows of the input, L.
        horizon: rows of the target, H.
        scaler: values are standardised by it.
        stride: rows between two windows.
        pad: a series whose history is shorter than L is padded in front with missing values, one row of history at
            least; without it such windows do not exist.
        what: the split's name in errors.

    Raises:
        DataError: no series is long enough for a window.
    """

    def __init__(
        self,
        split: SeriesSplit,
        length: int,
        horizon: int,
        scaler: Scaler,
        *,
        stride: int = 1,
        pad: bool = False,
        what: str = "",
    ) -> None:
        import numpy as np

        self.length, self.horizon, self.pad = length, horizon, pad
        self.channels = split.series[0].channels
        self._values = [self._scaled(one, scaler) for one in split.series]
        #: whether an input may hold a missing value
        self.gaps = pad or any(bool(np.isnan(values).any()) for values in self._values)
        owners: list[Indices] = []
        starts: list[Indices] = []
        for number, one in enumerate(split.series):
            first = max(one.begin, 1 if pad else length)
            found = np.arange(first, one.end - horizon + 1, stride, dtype=np.int64)
            owners.append(np.full(len(found), number, dtype=np.int64))
            starts.append(found)
        #: series and first target row of each window
        self.owner = np.concatenate(owners)
        self.start = np.concatenate(starts)
        if not len(self.start):
            longest = max(split.series, key=lambda one: len(one.values))
            rows = longest.end - (0 if pad else longest.begin)
            raise DataError(
                f"the {what or 'given'} rows hold no window of {length} + {horizon} rows: the longest series, "
                f"{longest.name}, has {len(longest)} of its own"
                + (f" and {longest.begin} before them" if longest.begin else "")
                + (" (--task.short-series pad takes shorter histories)" if rows and not pad else "")
                + ": take a shorter --task.input-length or --task.horizon"
            )

    def __len__(self) -> int:
        """Samples: windows times channels."""
        return len(self.start) * len(self.channels)

    @property
    def windows(self) -> int:
        """Windows, each with all its channels."""
        return len(self.start)

    def cut(self, samples: Indices) -> tuple[Floats, Floats]:
        """Return inputs (B, L) and targets (B, H) of some samples, standardised; NaN where a value is missing."""
        import numpy as np

        window, channel = np.divmod(np.asarray(samples, dtype=np.int64), len(self.channels))
        inputs = np.full((len(window), self.length), np.nan, dtype=np.float32)
        targets = np.empty((len(window), self.horizon), dtype=np.float32)
        owner, start = self.owner[window], self.start[window]
        back, ahead = np.arange(-self.length, 0), np.arange(self.horizon)
        for number in np.unique(owner):
            own = np.flatnonzero(owner == number)
            values, column = self._values[number], channel[own, None]
            rows = start[own, None] + back
            there = rows >= 0
            inputs[own] = np.where(there, values[np.maximum(rows, 0), column], np.nan)
            targets[own] = values[start[own, None] + ahead, column]
        return inputs, targets

    def _scaled(self, series: Series, scaler: Scaler) -> Floats:
        import numpy as np

        mean, std = scaler.rows_for(series)
        return ((series.values - mean) / std).astype(np.float32)
