"""What a classifier has to know of its task: shapes, and the samples as a batch has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftx.errors import ConfigError, DataError
from peftx.tasks import Batch, Task
from peftx_timeseries.series.samples import SampleSplit, interpolated
from peftx_timeseries.series.scaling import Scaler

__all__ = ["HasSamples", "SampleBatches", "SampleShapes", "Samples", "prepared", "samples_of"]


@dataclass(frozen=True, slots=True)
class SampleShapes:
    """Channels M, steps of the input L, classes C, and samples to train on."""

    channels: int
    length: int
    classes: int
    train: int


@runtime_checkable
class HasSamples(Protocol):
    """A task whose samples are series with a class."""

    sample_shapes: SampleShapes

    def held(self, split: str) -> Samples: ...


def samples_of(task: Task) -> SampleShapes:
    """The shapes of a classification task.

    Raises:
        ConfigError: the task classifies no series.
    """
    if not isinstance(task, HasSamples):
        raise ConfigError(
            f"{type(task).__name__} classifies no series, so a classifier of series cannot be compared there"
        )
    return task.sample_shapes


@dataclass(frozen=True, slots=True)
class Samples:
    """All samples of a split: `x` (N, M, L) float32, `ends` (N,) int64, the steps of each, `y` (N,) int64."""

    x: Tensor
    ends: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def seen(self, rows: Tensor) -> Tensor:
        """1 up to the end of each of some samples, and 0 behind it, (B, L)."""
        return (torch.arange(self.x.shape[2])[None] < self.ends[rows, None]).float()


def prepared(
    split: SampleSplit, length: int, scaling: str, statistics: Scaler | None, channels: int
) -> Samples:
    """Scale the samples of a split, draw lines through missing values, cut or pad them to `length` steps.

    Raises:
        DataError: a value is beyond float32 after scaling.
    """
    x = np.zeros((len(split), channels, length), dtype=np.float32)
    ends = np.minimum(split.lengths, length)
    for number, one in enumerate(split.values):
        rows = interpolated(_scaled(one[:length], scaling, statistics))
        # what float32 has no number for is infinite there
        with np.errstate(over="ignore"):
            x[number, :, : len(rows)] = rows.T
        if not np.isfinite(x[number]).all():
            raise DataError(
                f"sample {number + 1} of {len(split)} has values of up to {np.nanmax(np.abs(one)):.3g}, too large "
                "beside those of the training samples: correct it, or take --task.scaling sample"
            )
    return Samples(torch.from_numpy(x), torch.from_numpy(ends), torch.from_numpy(split.labels.copy()))


def _scaled(values: NDArray[np.float64], scaling: str, statistics: Scaler | None) -> NDArray[np.float64]:
    if scaling == "none":
        return values
    if scaling == "train":
        assert statistics is not None
        return (values - statistics.mean[0]) / statistics.std[0]
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, values, 0.0).sum(0) / count
    std = np.sqrt((np.where(seen, values - mean, 0.0) ** 2).sum(0) / count)
    scaled: NDArray[np.float64] = (values - mean) / np.where(std > 1e-12 * np.abs(mean), std, 1.0)
    return scaled


class SampleBatches:
    """One pass over the samples of a split; `padded`: whether the mask goes along."""

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        padded: bool,
        shuffle: bool,
        generator: torch.Generator | None,
    ) -> None:
        self.samples, self.batch_size, self.padded = samples, batch_size, padded
        self.shuffle, self.generator = shuffle, generator

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.samples)
        order = torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)
        for rows in order.split(self.batch_size) if count else ():
            batch = {"x": self.samples.x[rows], "y": self.samples.y[rows]}
            if self.padded:
                batch["seen"] = self.samples.seen(rows)
            yield batch
