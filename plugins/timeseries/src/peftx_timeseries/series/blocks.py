"""Windows of all channels that cover every row of a split: what a model is to reconstruct.

Of a series with R rows in the split, windows of L rows begin at ``0, s, 2s, ...``; where the last of them ends before
row R, one more begins at ``R - L``, of which only the rows that no other has count. With ``s = L`` every row counts in
exactly one window. No window reaches out of its split, so nothing is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peftx.errors import DataError
from peftx_timeseries.series.marked import labels_of
from peftx_timeseries.series.series import Series, SeriesSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]
    Statistics = Callable[[Series], tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = ["Blocks"]


class Blocks:
    """Windows of a split, cut when they are asked for. Rows are numbered through all series of the split.

    Args:
        split: its series, all with the same channels.
        length: rows of a window, L.
        statistics: mean and deviation (M,) that a series is standardised by, such as `Scaler.rows_for`.
        stride: rows between two windows, at most L.
        what: the split's name in errors.

    Raises:
        DataError: a series has fewer rows than a window, or a missing value.
    """

    def __init__(
        self, split: SeriesSplit, length: int, statistics: Statistics, *, stride: int, what: str = ""
    ) -> None:
        import numpy as np

        if not 1 <= stride <= length:
            raise ValueError(f"a stride of {stride} leaves rows out of windows of {length}")
        self.length, self.stride = length, stride
        #: labels of all rows, (R,); None where they have none
        self.labels = labels_of(split)
        values, starts, skips, owners = [], [], [], []
        first = 0
        for number, one in enumerate(split.series):
            count = len(one)
            if count < length:
                advice = "take a shorter --task.length" if what else "give more of them"
                raise DataError(
                    f"{one.name} has {count:,} {what or 'given'} rows, fewer than a window of {length}: {advice}"
                )
            mean, std = statistics(one)
            rows = ((one.values[one.begin : one.end] - mean) / std).astype(np.float32)
            if not np.isfinite(rows).all():
                row, channel = np.argwhere(~np.isfinite(rows))[0]
                raise DataError(
                    f"{one.name}: row {int(row) + one.begin + 1} of channel {one.channels[int(channel)]!r} is missing, "
                    "and a row without it cannot be reconstructed: fill it in"
                )
            values.append(rows)
            owners.append(np.full(count, number, dtype=np.int64))
            begins = np.arange(0, count - length + 1, stride, dtype=np.int64)
            skip = np.zeros(len(begins), dtype=np.int64)
            covered = int(begins[-1]) + length
            if covered < count:
                begins = np.append(begins, count - length)
                skip = np.append(skip, covered - (count - length))
            starts.append(begins + first)
            skips.append(skip)
            first += count
        self.values: Floats = np.concatenate(values)
        #: series of each row
        self.owner: Indices = np.concatenate(owners)
        #: first row of each window, and how many of its rows, from the first on, do not count in it
        self.start: Indices = np.concatenate(starts)
        self.skip: Indices = np.concatenate(skips)

    def __len__(self) -> int:
        """Windows."""
        return len(self.start)

    @property
    def rows(self) -> int:
        """Rows of all series."""
        return len(self.values)

    def places(self, windows: Indices) -> Indices:
        """Rows of some windows, (B, L)."""
        import numpy as np

        found: Indices = self.start[windows, None] + np.arange(self.length, dtype=np.int64)
        return found

    def cut(self, windows: Indices) -> Floats:
        """Some windows, standardised, (B, L, M)."""
        return self.values[self.places(windows)]
