"""Standardising every channel by the mean and the deviation of its training rows, and nothing else.

    z = (x - mean) / std        std^2 = 1/n sum (x - mean)^2 over the observed training rows (the population's)

A channel that is constant in training has std 1, so that it becomes 0 and stays finite if it moves later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftx.errors import DataError
from peftx_timeseries.series.series import Series, SeriesSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Scaler"]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Mean and deviation of each channel of each series, in its own unit. `mean`, `std`: (S, M)."""

    names: tuple[str, ...]
    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: place for place, name in enumerate(self.names)})

    @classmethod
    def fit(cls, train: SeriesSplit) -> Scaler:
        """The statistics of the training rows, missing values left out.

        Raises:
            DataError: a channel has no value in the training rows.
        """
        import numpy as np

        means, stds = [], []
        for one in train.series:
            rows = one.values[one.begin : one.end]
            observed = np.isfinite(rows)
            count = observed.sum(0)
            if not count.all():
                channel = one.channels[int(np.argmin(count))]
                raise DataError(
                    f"channel {channel!r} of {one.name} has no value in its {len(rows)} training rows: leave it out"
                )
            mean = np.where(observed, rows, 0.0).sum(0) / count
            std = np.sqrt((np.where(observed, rows - mean, 0.0) ** 2).sum(0) / count)
            means.append(mean)
            # what is left of rounding is no deviation
            stds.append(np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0))
        first = train.series[0]
        return cls(tuple(one.name for one in train.series), first.channels, np.stack(means), np.stack(stds))

    @classmethod
    def identity(cls, train: SeriesSplit) -> Scaler:
        """Mean 0 and deviation 1: values stay in their own unit."""
        import numpy as np

        first = train.series[0]
        shape = len(train.series), len(first.channels)
        names = tuple(one.name for one in train.series)
        return cls(names, first.channels, np.zeros(shape), np.ones(shape))

    def rows_for(self, series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (M,) for a series, by its name; one that was not in training takes those of the only one
        there was.

        Raises:
            DataError: its channels are others, or it is unknown among several.
        """
        if series.channels != self.channels:
            raise DataError(
                f"{series.name} has the channels {', '.join(series.channels)}, but the scaling was made on "
                f"{', '.join(self.channels)}: give a table with those columns"
            )
        if series.name in self._places:
            index = self._places[series.name]
        elif len(self.names) == 1:
            index = 0
        else:
            raise DataError(
                f"no series {series.name!r} was trained on, so it has no scaling: there are "
                f"{', '.join(self.names[:5])}" + (" ..." if len(self.names) > 5 else "")
            )
        return self.mean[index], self.std[index]

    def to_dict(self) -> dict[str, Any]:
        """For a record: plain lists."""
        return {
            "names": list(self.names),
            "channels": list(self.channels),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaler:
        """What `to_dict` gave."""
        import numpy as np

        return cls(
            tuple(values["names"]),
            tuple(values["channels"]),
            np.asarray(values["mean"], dtype=np.float64),
            np.asarray(values["std"], dtype=np.float64),
        )
