"""From series to a data set: splits that share their values, and what a task has to know about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftx.data.contract import Dataset, Published
from peftx.data.copies import Copy
from peftx.errors import DataError
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit, fingerprint

__all__ = ["MOST_SCALED", "make_dataset", "split_rows"]

#: Of more series than this the statistics are not kept in a record; they are those of the training split all the same.
MOST_SCALED = 64


def make_dataset(
    name: str,
    splits: Mapping[str, Sequence[Series]],
    *,
    frequency: str,
    period: int,
    source: str,
    licence: str,
    note: str = "",
    synthetic: bool = False,
    verified: bool = True,
    published: Published | None = None,
    copy: Copy | None = None,
    horizon: int | None = None,
    scaler: Scaler | None = None,
    known: Sequence[str] = (),
    past: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return the data set of some series.

    Its card says, besides the usual: `frequency` (a pandas offset, empty when unknown), `period` (rows of a season, 1
    for none), `channels`, `series` (how many), `horizon` where the source sets one, `known` and `past`, the covariates
    that are known ahead of time or only as they happen, `reading`, the options by which a table was read, so that new
    ones are read the same way, and `scaler`, the statistics of the training rows of up to
    `MOST_SCALED` series, or those given.

    Raises:
        DataError: series differ in their channels, a split has none or not a single value, or a channel has no value to
            train on.
    """
    import numpy as np

    made = {split: SeriesSplit(series) for split, series in splits.items()}
    for part, held in made.items():
        if not len(held):
            raise DataError(f"{name}: the {part} split has no series")
    channels = made["train"].series[0].channels
    for split in made.values():
        for one in split.series:
            if one.channels != channels:
                raise DataError(
                    f"{name}: the series {one.name} has the channels {', '.join(one.channels)}, and "
                    f"{made['train'].series[0].name} has {', '.join(channels)}: all series need the same"
                )
    for part, split in made.items():
        # such as the rows at the end of a table that are there for the covariates alone
        if part != "train" and not any(
            np.isfinite(one.values[one.begin : one.end]).any() for one in split.series
        ):
            raise DataError(
                f"{name}: not one of the {part} rows has a value, so nothing can be scored there: leave such rows out, "
                "or split elsewhere"
            )
    train = made["train"]
    train.scaler = scaler or Scaler.fit(train)
    card: dict[str, Any] = {
        "source": source,
        "licence": licence,
        "synthetic": synthetic,
        "verified": verified,
        "note": note,
        "frequency": frequency,
        "period": period,
        "channels": list(channels),
        "series": len(train),
    }
    if horizon is not None:
        card["horizon"] = horizon
    if known or past:
        card |= {"known": list(known), "past": list(past)}
    if reading:
        card["reading"] = dict(reading)
    if len(train) <= MOST_SCALED:
        card["scaler"] = train.scaler.to_dict()
    return Dataset(
        name=name,
        splits=made,
        classes=(),
        # what a covariate may be looked at for is part of the data; without any the digest is what it was
        fingerprint=fingerprint(
            made, (frequency, period, *((tuple(known), tuple(past)) if known or past else ()))
        ),
        card=card,
        published=published,
        copy=copy,
    )


def split_rows(series: Series, borders: Mapping[str, tuple[int, int]]) -> dict[str, Series]:
    """One series with the rows of each split; what lies before a split's rows is its history.

    Raises:
        DataError: a border lies outside the series.
    """
    for split, (begin, end) in borders.items():
        if not 0 <= begin < end <= len(series.values):
            raise DataError(
                f"{series.name} has {len(series.values)} rows, but its {split} split takes rows {begin} to {end - 1}"
            )
    return {split: series.rows(begin, end) for split, (begin, end) in borders.items()}
