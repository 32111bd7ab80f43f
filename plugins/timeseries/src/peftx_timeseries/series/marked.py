"""Series whose rows somebody marked as normal or anomalous.

A label is a whole number, 0 for a normal row; the others are numbered by kind, from 1, and a source that knows no kinds
has the one kind 1. A *segment* is a longest run of anomalous rows of one series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftx.errors import DataError
from peftx_timeseries.series.series import Series, SeriesSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.int8]

__all__ = ["Marked", "demand_marked", "labels_of", "segments", "with_labels"]


@dataclass(frozen=True, slots=True)
class Marked(Series):
    """A series with a label for each of its rows, `labels` (T,); None where nobody marked them."""

    labels: Labels | None = None

    def __post_init__(self) -> None:
        Series.__post_init__(self)
        if self.labels is not None and self.labels.shape != self.values.shape[:1]:
            raise ValueError(f"series {self.name}: {len(self.labels)} labels for {len(self.values)} rows")

    def rows(self, begin: int, end: int) -> Marked:
        """The same series with other rows for its split."""
        return replace(self, begin=begin, end=end)

    def until_end(self) -> Marked:
        """The same series without what comes after the rows of its split, labels as well."""
        cut = Series.until_end(replace(self, labels=None))
        assert isinstance(cut, Marked)
        return replace(cut, labels=None if self.labels is None else self.labels[: self.end])


def labels_of(split: SeriesSplit) -> Labels | None:
    """Labels of the split's rows, one series behind the other; None where one of them has none."""
    import numpy as np

    held: list[Labels] = []
    for one in split.series:
        if not isinstance(one, Marked) or one.labels is None:
            return None
        held.append(one.labels[one.begin : one.end])
    return np.concatenate(held)


def segments(labels: NDArray[np.integer], owner: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """First row of each segment and the one behind its last, (S, 2); `owner` (T,) is the series of each row, and no
    segment reaches from one into the next."""
    import numpy as np

    marked = np.asarray(labels) != 0
    parted = np.zeros(len(marked) + 1, dtype=bool)  # between a row and the one before it
    if owner is not None and len(owner):
        parted[1:-1] = owner[1:] != owner[:-1]
    before = np.concatenate([[False], marked])[: len(marked)] & ~parted[:-1]
    after = np.concatenate([marked, [False]])[1:] & ~parted[1:]
    return np.stack([np.flatnonzero(marked & ~before), np.flatnonzero(marked & ~after) + 1], 1).astype(
        np.int64
    )


def with_labels(fingerprint: str, splits: Mapping[str, SeriesSplit]) -> str:
    """A data set's fingerprint that changes with its labels, too."""
    total = hashlib.sha256(fingerprint.encode())
    for name, split in splits.items():
        labels = labels_of(split)
        total.update(f"{name} {'none' if labels is None else len(labels)}".encode())
        if labels is not None:
            total.update(labels.tobytes())
    return total.hexdigest()


def demand_marked(split: object, what: str) -> SeriesSplit:
    """The split, if it is one of series whose rows are marked.

    Raises:
        DataError: it is not, or none of its rows is anomalous.
    """
    if not isinstance(split, SeriesSplit):
        raise DataError(
            "these samples are no time series: anomaly detection takes data sets of the time-series pack"
        )
    labels = labels_of(split)
    if labels is None:
        raise DataError(
            f"the rows of {what} have no labels, so found anomalies cannot be scored: bring them with "
            "timeseries.labelled:FOLDER (train.csv, test.csv, test_label.csv)"
        )
    if not labels.any():
        raise DataError(
            f"none of the {len(labels):,} rows of {what} is labelled as anomalous, so nothing can be scored"
        )
    return split
