"""A time series as all rooms of this pack see it, and a split of several.

Values are (T, M): T rows in time, M channels; NaN stands for what is missing. Times are the starts of the rows in UTC
or in no zone at all, ascending. A split does not cut a series off: it says which rows it may be scored on,
``begin .. end - 1``, and what lies before `begin` is the history that a forecast may look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftx.data.contract import Split
from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_timeseries.series.scaling import Scaler

    Values = NDArray[np.float64]
    Times = NDArray[np.datetime64]

__all__ = ["Series", "SeriesSplit", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Args:
        name: what it is called in its source.
        values: (T, M) float64; NaN where a value is missing.
        channels: names of the M channels.
        times: (T,) datetime64, ascending; None where the source has none.
        begin, end: the rows of the split, ``begin <= row < end``; what lies before may be looked at.
        covariates: further columns (T,) by name, which are not forecast. Which of them are known ahead of time, and
            which only as they happen, says the data set's card (`known`, `past`).
        scaler: the statistics it is standardised by, where these are not the data set's: of a series to train on that
            is to be forecast elsewhere.
    """

    name: str
    values: Values
    channels: tuple[str, ...]
    times: Times | None = None
    begin: int = 0
    end: int = -1
    covariates: Mapping[str, Values] = field(default_factory=dict)
    scaler: Scaler | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.channels):
            raise ValueError(
                f"series {self.name}: values of shape {self.values.shape} for {len(self.channels)} channels"
            )
        if self.end < 0:
            object.__setattr__(self, "end", len(self.values))
        if not 0 <= self.begin <= self.end <= len(self.values):
            raise ValueError(f"series {self.name}: rows {self.begin} .. {self.end} of {len(self.values)}")
        for name, column in self.covariates.items():
            if column.shape != self.values.shape[:1]:
                raise ValueError(
                    f"series {self.name}: covariate {name} of shape {column.shape} for {len(self.values)} rows"
                )

    def __len__(self) -> int:
        """Rows of the split."""
        return self.end - self.begin

    def rows(self, begin: int, end: int) -> Series:
        """The same series with other rows for its split."""
        return replace(self, begin=begin, end=end)

    def until_end(self) -> Series:
        """The same series without what comes after the rows of its split."""
        return replace(
            self,
            values=self.values[: self.end],
            times=None if self.times is None else self.times[: self.end],
            covariates={name: column[: self.end] for name, column in self.covariates.items()},
        )

    def columns(self, names: Sequence[str]) -> Values:
        """Some of the covariates, (T, C) in the order of the names.

        Raises:
            DataError: it has no such covariate.
        """
        import numpy as np

        for name in names:
            if name not in self.covariates:
                raise DataError(
                    f"{self.name} has no covariate {name!r}, which is looked at here: give a table with that column, "
                    "or train without it (--task.covariates none)"
                )
        held = [self.covariates[name] for name in names]
        return np.stack(held, 1) if held else np.empty((len(self.values), 0))


class SeriesSplit(Split[Series]):
    """Several series of one split. `scaler`: of a training split, the statistics that its data set is scaled by."""

    def __init__(self, series: Sequence[Series], scaler: Scaler | None = None) -> None:
        self.series, self.scaler = tuple(series), scaler

    def __len__(self) -> int:
        return len(self.series)

    def select(self, indices: Sequence[int]) -> SeriesSplit:
        """Some of the series."""
        return SeriesSplit([self[index] for index in indices], self.scaler)

    def alone(self) -> SeriesSplit:
        """The same rows and their history, without the rows after them, which are other splits'."""
        return SeriesSplit([one.until_end() for one in self.series], self.scaler)

    @property
    def extent(self) -> int:
        """Rows of one series; of several, how many series there are."""
        return len(self.series[0]) if len(self.series) == 1 else len(self.series)

    @property
    def unit(self) -> str:
        return "rows" if len(self.series) == 1 else "series"

    def __getitem__(self, index: int) -> Series:
        if not 0 <= index < len(self.series):
            raise IndexError(index)
        return self.series[index]


def fingerprint(splits: Mapping[str, SeriesSplit], more: Iterable[Any] = ()) -> str:
    """Hex digest (SHA-256) over names, channels, times, values and rows of all splits, and of `more`."""
    import numpy as np

    total = hashlib.sha256(repr(tuple(more)).encode())
    seen: dict[int, str] = {}
    for name, split in splits.items():
        for one in split.series:
            total.update(f"{name} {one.name} {one.channels} {one.begin} {one.end}".encode())
            key = id(one.values)  # the splits of a data set share their values
            if key not in seen:
                own = hashlib.sha256(np.ascontiguousarray(one.values, dtype="<f8").data)
                if one.times is not None:
                    own.update(one.times.astype("datetime64[s]").astype("<i8").tobytes())
                for column in sorted(one.covariates):
                    own.update(column.encode())
                    own.update(np.ascontiguousarray(one.covariates[column], dtype="<f8").data)
                seen[key] = own.hexdigest()
            total.update(seen[key].encode())
    return total.hexdigest()
