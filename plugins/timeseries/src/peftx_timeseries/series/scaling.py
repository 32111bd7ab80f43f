"""Standardising every channel by the mean and the deviation of its training rows, and nothing else.

    z = (x - mean) / std        std^2 = 1/n sum (x - mean)^2 over the observed training rows (the population's)

A channel that is constant in training has std 1, so that it becomes 0 and stays finite if it moves later. Covariates
are standardised in the same way, by their own training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Mean and deviation of each channel of each series, in its own unit. `mean`, `std`: (S, M). `covariates`: those of
    the series' covariates, as if these were channels; None where there are none."""

    names: tuple[str, ...]
    channels: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    covariates: Scaler | None = None
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: place for place, name in enumerate(self.names)})

    @classmethod
    def fit(cls, train: SeriesSplit, what: str = "channel") -> Scaler:
        """The statistics of the training rows, missing values left out. `what`: what a channel is called in errors.

        Raises:
            DataError: a channel or a covariate has no value in the training rows.
        """
        import numpy as np

        first = train.series[0]
        covariates = cls.fit(_covariates_of(train), "covariate") if first.covariates else None
        means, stds = [], []
        for one in train.series:
            rows = one.values[one.begin : one.end]
            observed = np.isfinite(rows)
            count = observed.sum(0)
            if not count.all():
                channel = one.channels[int(np.argmin(count))]
                raise DataError(
                    f"{what} {channel!r} of {one.name} has no value in its {len(rows)} training rows: leave it out"
                )
            mean = np.where(observed, rows, 0.0).sum(0) / count
            std = np.sqrt((np.where(observed, rows - mean, 0.0) ** 2).sum(0) / count)
            means.append(mean)
            # what is left of rounding is no deviation
            stds.append(np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0))
        names = tuple(one.name for one in train.series)
        return cls(names, first.channels, np.stack(means), np.stack(stds), covariates)

    @classmethod
    def identity(cls, train: SeriesSplit) -> Scaler:
        """Mean 0 and deviation 1: values stay in their own unit, and so do covariates."""
        import numpy as np

        first = train.series[0]
        shape = len(train.series), len(first.channels)
        names = tuple(one.name for one in train.series)
        covariates = cls.identity(_covariates_of(train)) if first.covariates else None
        return cls(names, first.channels, np.zeros(shape), np.ones(shape), covariates)

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
        place = self._place(series)
        return self.mean[place], self.std[place]

    def covariates_for(
        self, series: Series, names: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (C,) that some covariates of a series are standardised by.

        Raises:
            DataError: there were no such covariates in training, or the series is unknown among several.
        """
        held = self.covariates
        for name in names:
            if held is None or name not in held.channels:
                raise DataError(
                    f"{series.name} has the covariate {name!r}, but the scaling was made on "
                    f"{', '.join(held.channels) if held else 'none'}: give data with the covariates of the training"
                )
        if held is None or not names:
            return self.mean[0, :0], self.std[0, :0]
        columns = [held.channels.index(name) for name in names]
        place = held._place(series)
        return held.mean[place, columns], held.std[place, columns]

    def _place(self, series: Series) -> int:
        if series.name in self._places:
            return self._places[series.name]
        if len(self.names) == 1:
            return 0
        raise DataError(
            f"no series {series.name!r} was trained on, so it has no scaling: there are "
            f"{', '.join(self.names[:5])}" + (" ..." if len(self.names) > 5 else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """For a record: plain lists."""
        covariates = {} if self.covariates is None else {"covariates": self.covariates.to_dict()}
        return {
            "names": list(self.names),
            "channels": list(self.channels),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        } | covariates

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaler:
        """What `to_dict` gave."""
        import numpy as np

        return cls(
            tuple(values["names"]),
            tuple(values["channels"]),
            np.asarray(values["mean"], dtype=np.float64),
            np.asarray(values["std"], dtype=np.float64),
            cls.from_dict(values["covariates"]) if values.get("covariates") else None,
        )


def _covariates_of(train: SeriesSplit) -> SeriesSplit:
    """The covariates of all series as if they were their channels."""
    names = tuple(train.series[0].covariates)
    return SeriesSplit(
        [Series(one.name, one.columns(names), names, begin=one.begin, end=one.end) for one in train.series]
    )
