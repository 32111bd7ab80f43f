"""Passes over many series: all of their windows, or a few of each, drawn anew each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftx.tasks import Batch
from peftx_timeseries.series.windows import Windows
from peftx_timeseries.tasks.forecasting import WindowBatches, filled

__all__ = ["Draws", "SeriesBatches"]

Indices = NDArray[np.int64]


class Draws:
    """Windows of each series and channel, `count` of them.

    Args:
        windows: all windows, `stride` rows apart, series by series.
        ends: of each series that `windows` was cut of, the row behind its last.
    """

    def __init__(self, windows: Windows, ends: Indices, stride: int, count: int) -> None:
        self.count, self.channels = count, len(windows.channels)
        owners, self.first, self.held = np.unique(windows.owner, return_index=True, return_counts=True)
        whole = (ends[owners] - windows.horizon - windows.start[self.first]) // stride
        #: place of the last window with a whole target, the first window where there is none
        self.whole = np.maximum(whole, 0)

    def __len__(self) -> int:
        return len(self.first) * self.count * self.channels

    def random(self, generator: torch.Generator | None) -> Indices:
        """Return samples, each window of a series as likely as another, in random order."""
        shape = (len(self.first), self.count, self.channels)
        parts = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
        samples = self._samples((parts * self.held[:, None, None]).astype(np.int64))
        return samples[torch.randperm(len(samples), generator=generator).numpy()]

    def last(self) -> Indices:
        """Return samples in stored order: the last windows of each series whose targets are whole."""
        places = np.maximum(self.whole[:, None] - np.arange(self.count)[::-1], 0)
        return self._samples(np.repeat(places[..., None], self.channels, 2))

    def _samples(self, places: Indices) -> Indices:  # (series, count, channels)
        window = self.first[:, None, None] + places
        samples: Indices = (window * self.channels + np.arange(self.channels)).reshape(-1)
        return samples


class SeriesBatches(WindowBatches):
    """One pass over some samples of windows. `samples` may be set to the places of some of them in the pass.

    Args:
        order: called at the beginning of the pass, returns the samples.
        count: how many these are.
        mean, std: (series, channels), what each was standardised by.
        more: further tensors of the batches, in the order of the samples.
    """

    def __init__(
        self,
        windows: Windows,
        order: Callable[[], Indices],
        count: int,
        batch_size: int,
        mean: Tensor,
        std: Tensor,
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(windows, batch_size, std, generator=None, shuffle=False)
        self.order, self.count, self.mean, self.more = order, count, mean, dict(more or {})
        self.samples: Tensor | None = None

    def __len__(self) -> int:
        return -(-(self.count if self.samples is None else len(self.samples)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        samples, channels, more = self.order(), len(self.windows.channels), self.more
        if self.samples is not None:
            samples = samples[self.samples.numpy()]
            more = {name: values[self.samples] for name, values in more.items()}
        for begin in range(0, len(samples), self.batch_size):
            some = slice(begin, begin + self.batch_size)
            window, channel = np.divmod(samples[some], channels)
            owner = self.windows.owner[window]
            x, y = (torch.from_numpy(part) for part in self.windows.cut(samples[some]))
            x, seen = filled(x)
            batch = {
                "x": x,
                "y": y,
                "seen": seen,
                "mean": self.mean[owner, channel],
                "std": self.units[owner, channel],
            }
            yield batch | {name: values[some] for name, values in more.items()}
