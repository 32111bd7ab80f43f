"""Where series are split in time, and which of the training rows are kept for few-shot training.

    fractions   n rows: train is the first ``int(n f)`` with f what val and test leave, test the last ``int(n test)``,
                val what lies between: the borders of TSLib for its 70/10/20.
    horizon     test is the last H rows of each series, val the H before, train all before that.

Few-shot training keeps ``c + int((n - c) f)`` of the n training rows, c of them in any case. GPT4TS takes the first,
with c the length of the input, and scales by all n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftx.errors import DataError
from peftx_timeseries.config.data import FewShotConfig, SplitConfig
from peftx_timeseries.data.dataset import split_rows
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit

__all__ = ["Parts", "at_horizon", "by_fractions", "divide", "few_shot"]


@dataclass(frozen=True, slots=True)
class Parts:
    """Series by split, the scaling where it is not that of their training rows, the horizon where there is one, and
    what was done, as clauses."""

    splits: Mapping[str, tuple[Series, ...]]
    scaler: Scaler | None
    horizon: int | None
    notes: tuple[str, ...]


def by_fractions(rows: int, val: float = 0.1, test: float = 0.2) -> dict[str, tuple[int, int]]:
    """Return the first row of each split and the one behind its last."""
    # 1 - .1 - .2 is a little more than .7, and int() would see it
    train = int(rows * round(1 - val - test, 12))
    held = int(rows * test)
    return {"train": (0, train), "val": (train, rows - held), "test": (rows - held, rows)}


def at_horizon(rows: int, horizon: int) -> dict[str, tuple[int, int]]:
    """Return the first row of each split and the one behind its last."""
    return {
        "train": (0, rows - 2 * horizon),
        "val": (rows - 2 * horizon, rows - horizon),
        "test": (rows - horizon, rows),
    }


def divide(series: Sequence[Series], config: SplitConfig, horizon: int | None = None) -> Parts:
    """Split series as the options say; `horizon` is what the source sets. Rows behind the last value of any channel,
    where covariates may go on, are none to train or to be scored on, and are left out.

    Raises:
        DataError: a series has too few rows, and `too_short` does not drop it; none is left; a split at a horizon and
            none is known.
    """
    horizon = config.horizon or horizon
    how = config.split or ("horizon" if horizon else "fractions")
    if how == "horizon" and horizon is None:
        raise DataError(
            "a split at a horizon needs one: give --data.horizon, the rows of each series to test on"
        )
    if how == "fractions":
        horizon = None
    whole = sum(len(one.values) for one in series)
    series = [_observed(one) for one in series]
    left = whole - sum(len(one.values) for one in series)
    borders = {
        len(one.values): at_horizon(len(one.values), horizon)
        if horizon
        else by_fractions(len(one.values), config.val_fraction, config.test_fraction)
        for one in series
    }
    said = (
        f"test is the last {horizon} rows of each series, val the {horizon} before"
        if horizon
        else (
            f"train, val and test follow one another in time, {1 - config.val_fraction - config.test_fraction:.0%}, "
            f"{config.val_fraction:.0%} and {config.test_fraction:.0%} of the rows"
        )
    )
    if left:
        said += f"; {left:,} rows behind the last value are left out"
    return cut(series, borders, config, config.too_short, horizon, said)


def _observed(one: Series) -> Series:
    """The series without the rows behind its last value; as it is where it has none."""
    import numpy as np

    seen = np.flatnonzero(np.isfinite(one.values).any(1))
    if not len(seen) or seen[-1] == len(one.values) - 1:
        return one
    return one.rows(0, int(seen[-1]) + 1).until_end()


def cut(
    series: Sequence[Series],
    borders: Mapping[int, Mapping[str, tuple[int, int]]],
    config: FewShotConfig,
    too_short: str,
    horizon: int | None,
    said: str,
) -> Parts:
    """Cut each series at the borders for its number of rows, and keep what few-shot training is to see."""
    cuts: list[dict[str, Series]] = []
    dropped = 0
    for one in series:
        own = borders[len(one.values)]
        if any(begin >= end for begin, end in own.values()) or own["train"][0] < 0:
            if too_short == "refuse":
                needs = (
                    f"at least {2 * horizon + 1}, to train on one"
                    if horizon
                    else "some for each of the splits"
                )
                raise DataError(
                    f"{one.name} has {len(one.values)} rows, and needs {needs}: leave such series out with "
                    "--data.too-short drop" + (", or take a shorter --data.horizon" if horizon else "")
                )
            dropped += 1
            continue
        cuts.append(split_rows(one, own))
    if not cuts:
        raise DataError(f"none of the {dropped} series has enough rows to be split")
    splits = {split: tuple(one[split] for one in cuts) for split in ("train", "val", "test")}
    notes = [said] + ([f"{dropped} series too short to split left out"] if dropped else [])
    return few_shot(Parts(splits, None, horizon, tuple(notes)), config)


def few_shot(parts: Parts, config: FewShotConfig) -> Parts:
    """Keep a part of the training rows of each series, in one piece.

    Raises:
        DataError: nothing is left of a series.
    """
    if config.train_fraction == 1:
        return parts
    kept = [_kept(one, config) for one in parts.splits["train"]]
    whole = SeriesSplit(parts.splits["train"])
    scaler = Scaler.fit(whole) if config.train_scaling == "whole" else None
    scaled = "the whole split" if scaler else "them"
    rows = sum(len(one) for one in kept)
    note = (
        f"trained on the {config.train_part} {rows:,} of {sum(len(one) for one in whole.series):,} training rows, "
        f"scaled by {scaled}"
    )
    return Parts({**parts.splits, "train": tuple(kept)}, scaler, parts.horizon, (*parts.notes, note))


def _kept(one: Series, config: FewShotConfig) -> Series:
    context = min(config.train_context, len(one))
    # 1e-9: 0.29 * 100 is a little less than 29
    rows = context + int((len(one) - context) * config.train_fraction + 1e-9)
    if not rows:
        raise DataError(
            f"a train_fraction of {config.train_fraction:g} leaves none of the {len(one)} training rows of {one.name}"
        )
    if config.train_part == "first":
        return one.rows(one.begin, one.begin + rows)
    # cut off in front: windows look at what lies before a split's rows, and these are not to be seen
    first = one.end - rows
    return Series(
        one.name,
        one.values[first : one.end],
        one.channels,
        None if one.times is None else one.times[first : one.end],
        covariates={name: column[first : one.end] for name, column in one.covariates.items()},
    )
