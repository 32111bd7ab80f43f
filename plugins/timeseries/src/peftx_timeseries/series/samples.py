"""Series with a class: samples of several channels and of their own lengths, as classification takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftx.data.contract import Split
from peftx.errors import DataError
from peftx_timeseries.series.scaling import Scaler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = ["SampleSplit", "channel_scaler", "interpolated", "sample_fingerprint"]


class SampleSplit(Split[tuple["Values", int]]):
    """Samples ``(values (T, M), class)``; T may differ from sample to sample, NaN stands for what is missing."""

    def __init__(self, values: Sequence[Values], labels: Sequence[int] | Indices) -> None:
        import numpy as np

        self.values, self._labels = tuple(values), np.asarray(labels, dtype=np.int64)
        if len(self.values) != len(self._labels):
            raise ValueError(f"{len(self.values)} samples and {len(self._labels)} labels")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[Values, int]:
        if not 0 <= index < len(self.values):
            raise IndexError(index)
        return self.values[index], int(self._labels[index])

    @property
    def labels(self) -> Indices:
        return self._labels

    @property
    def lengths(self) -> Indices:
        """Steps of each sample, T."""
        import numpy as np

        return np.array([len(one) for one in self.values], dtype=np.int64)

    def select(self, indices: Sequence[int] | Indices) -> SampleSplit:
        """Some of the samples."""
        picked = [int(index) for index in indices]
        return SampleSplit([self.values[index] for index in picked], self._labels[picked])


def channel_scaler(train: SampleSplit) -> Scaler:
    """Mean and deviation of each channel over every observed step of every training sample; see `Scaler`.

    Raises:
        DataError: a channel has no value in any of them.
    """
    import numpy as np

    channels = train.values[0].shape[1]
    count, total = np.zeros(channels), np.zeros(channels)
    for one in train.values:
        seen = np.isfinite(one)
        count += seen.sum(0)
        total += np.where(seen, one, 0.0).sum(0)
    if not count.all():
        raise DataError(
            f"channel {int(np.argmin(count)) + 1} has no value in any of the {len(train)} samples to train on: leave "
            "it out"
        )
    mean = total / count
    squares = np.zeros(channels)
    for one in train.values:
        squares += (np.where(np.isfinite(one), one - mean, 0.0) ** 2).sum(0)
    std = np.sqrt(squares / count)
    # what is left of rounding is no deviation
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0)
    names = tuple(str(number) for number in range(1, channels + 1))
    return Scaler(("samples",), names, mean[None], std[None])


def interpolated(values: Values) -> Values:
    """The series with its missing values on a line between their neighbours; before the first and after the last one
    they are that value, and a channel without any is 0."""
    import numpy as np

    seen = np.isfinite(values)
    if seen.all():
        return values
    found = np.where(seen, values, 0.0)
    steps = np.arange(len(values))
    for channel in np.flatnonzero(~seen.all(0)):
        own = seen[:, channel]
        if own.any():
            found[:, channel] = np.interp(steps, steps[own], values[own, channel])
    return found


def sample_fingerprint(splits: Mapping[str, SampleSplit], more: Iterable[Any] = ()) -> str:
    """Hex digest (SHA-256) over the values and labels of all splits, and over `more`."""
    import numpy as np

    total = hashlib.sha256(repr(tuple(more)).encode())
    for name, split in splits.items():
        total.update(f"{name} {len(split)}".encode())
        total.update(split.labels.astype("<i8").tobytes())
        for one in split.values:
            total.update(f"{one.shape}".encode())
            total.update(np.ascontiguousarray(one, dtype="<f8").data)
    return total.hexdigest()
