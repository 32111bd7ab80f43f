"""The windows of a split: input rows ``t - L .. t - 1``, target rows ``t .. t + H - 1``.

Every channel of a window is a sample of its own (channel independence). All windows are there, none is dropped, and no
target lies outside the split: with R rows and the history before them, a held-out split has ``R - H + 1`` windows
whatever L is; the training split, which has no history, has ``R - L - H + 1``. Samples are ordered by window, then by
channel.

Covariates belong to all channels of a window. Of those that are known ahead of time it has the rows ``t - L .. t + H -
1``, of those that are known only as they happen the rows ``t - L .. t - 1`` and no others: no tensor holds what nobody
could know at t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from peftx.errors import DataError
from peftx_timeseries.series.series import Series, SeriesSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]
    Statistics = Callable[[Series], tuple[NDArray[np.float64], NDArray[np.float64]]]
    CovariateStatistics = Callable[[Series, Sequence[str]], tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = ["Windows"]


class Windows:
    """Windows of a split, cut when they are asked for.

    Args:
        split: its series, all with the same channels.
        length: rows of the input, L.
        horizon: rows of the target, H.
        statistics: mean and deviation (M,) that a series is standardised by, such as `Scaler.rows_for`.
        stride: rows between two windows.
        known, past: names of the covariates that are known ahead of time, and only as they happen.
        covariate_statistics: mean and deviation (C,) of some covariates of a series, such as `Scaler.covariates_for`;
            without it they stay in their own unit.
        pad: a series whose history is shorter than L is padded in front with missing values, one row of history at
            least; without it such windows do not exist.
        partial: also windows whose target reaches beyond the split's last row, one row of target at least; what lies
            beyond is missing, whatever the series has there.
        what: the split's name in errors.

    Raises:
        DataError: no series is long enough for a window, or one lacks a covariate.
    """

    def __init__(
        self,
        split: SeriesSplit,
        length: int,
        horizon: int,
        statistics: Statistics,
        *,
        stride: int = 1,
        pad: bool = False,
        partial: bool = False,
        what: str = "",
        known: Sequence[str] = (),
        past: Sequence[str] = (),
        covariate_statistics: CovariateStatistics | None = None,
    ) -> None:
        import numpy as np

        self.length, self.horizon, self.pad = length, horizon, pad
        self.channels = split.series[0].channels
        self._series = len(split.series)
        scaled = [_scaled(one, statistics) for one in split.series]
        # all series one behind the other, and where each begins
        self._values = np.concatenate(scaled)
        self._first = np.cumsum([0, *map(len, scaled[:-1])], dtype=np.int64)
        self._end = np.array([one.end for one in split.series], dtype=np.int64)
        self._partial = partial
        #: whether an input may hold a missing value
        self.gaps = pad or bool(np.isnan(self._values).any())
        self._covariates = {
            kind: np.concatenate([_covariates(one, names, covariate_statistics) for one in split.series])
            for kind, names in (("known", known), ("past", past))
            if names
        }
        owners: list[Indices] = []
        starts: list[Indices] = []
        for number, one in enumerate(split.series):
            first = max(one.begin, 1 if pad else length)
            found = np.arange(first, one.end if partial else one.end - horizon + 1, stride, dtype=np.int64)
            owners.append(np.full(len(found), number, dtype=np.int64))
            starts.append(found)
        #: series and first target row of each window
        self.owner = np.concatenate(owners)
        self.start = np.concatenate(starts)
        if not len(self.start):
            longest = max(split.series, key=lambda one: len(one.values))
            # padding helps where the target alone would fit
            helps = not pad and any(one.end - max(one.begin, 1) >= horizon for one in split.series)
            most = max(len(one) for one in split.series)
            shorter = f"horizon, {most} at most" if most < horizon else "input-length or --task.horizon"
            raise DataError(
                f"the {what or 'given'} rows hold no window of {length} + {horizon} rows: the longest series, "
                f"{longest.name}, has {len(longest)} of its own"
                + (f" and {longest.begin} before them" if longest.begin else "")
                + (" (--task.short-series pad takes shorter histories)" if helps else "")
                + f": take a shorter --task.{shorter}"
            )

    @property
    def idle(self) -> int:
        """Series that are too short for a window."""
        return self._series - len(set(self.owner.tolist()))

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
        first, start = self._first[self.owner[window], None], self.start[window, None]
        rows = start + np.arange(-self.length, 0)
        inputs = np.where(
            rows >= 0, self._values[first + np.maximum(rows, 0), channel[:, None]], np.float32(np.nan)
        )
        rows = start + np.arange(self.horizon)
        if not self._partial:
            return inputs, self._values[first + rows, channel[:, None]]
        end = self._end[self.owner[window], None]
        targets = self._values[first + np.minimum(rows, end - 1), channel[:, None]]
        return inputs, np.where(rows < end, targets, np.float32(np.nan))

    def covariates(self, samples: Indices) -> dict[str, Floats]:
        """Return the covariates of some samples, standardised: ``known`` (B, C, L + H) and ``past`` (B, C, L), each
        only where there are some. What is missing, and what lies before a series begins, is 0: the training mean.
        """
        import numpy as np

        window = np.asarray(samples, dtype=np.int64) // len(self.channels)
        first, start = self._first[self.owner[window], None], self.start[window, None]
        found: dict[str, Floats] = {}
        for kind, held in self._covariates.items():
            rows = start + np.arange(-self.length, self.horizon if kind == "known" else 0)
            # the last row of a window is its series' own, unless its target is cut off
            own = (
                np.clip(rows, 0, self._end[self.owner[window], None] - 1)
                if self._partial
                else np.maximum(rows, 0)
            )
            columns = held[first + own]  # (B, rows, C)
            found[kind] = np.where((rows >= 0)[..., None], columns, np.float32(0)).transpose(0, 2, 1)
        return found


def _covariates(series: Series, names: Sequence[str], statistics: CovariateStatistics | None) -> Floats:
    import numpy as np

    columns = series.columns(names)
    if statistics is not None:
        mean, std = statistics(series, names)
        columns = (columns - mean) / std
    return np.where(np.isfinite(columns), columns, 0.0).astype(np.float32)


def _scaled(series: Series, statistics: Statistics) -> Floats:
    import numpy as np

    mean, std = statistics(series)
    return ((series.values - mean) / std).astype(np.float32)
