"""Which covariates of the data a forecast looks at, and those of the rows that are to be forecast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftx.errors import DataError
from peftx.tasks import Task
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_timeseries.tasks.shapes import Shapes

    Statistics = Callable[[Series, Sequence[str]], tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = ["ahead", "chosen", "ignored", "told"]


def chosen(option: str, card: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the covariates that are looked at, as the fields `known` and `past` of `Shapes`.

    ``auto`` takes whatever the data declare, ``none`` nothing; ``known``, ``past`` and ``all`` demand that there be
    some.

    Raises:
        DataError: the data declare none of those that are demanded.
    """
    declared = {kind: tuple(card.get(kind, ())) for kind in ("known", "past")}
    if option in ("known", "past"):
        declared = {kind: names if kind == option else () for kind, names in declared.items()}
    if option not in ("auto", "none") and not any(declared.values()):
        kind = "" if option == "all" else f" that are {option}"
        flag = "--data.known or --data.past" if option == "all" else f"--data.{option}"
        raise DataError(
            f"--task.covariates {option} asks for covariates{kind}, and the data declare none: name columns with "
            f"{flag}, or leave the option out"
        )
    return {} if option == "none" else declared


def told(shapes: Shapes, card: Mapping[str, Any]) -> str:
    """A sentence on the covariates; empty where the data have none."""
    parts = [("known ahead of time", shapes.known), ("known as they happen", shapes.past)]
    looked = "; ".join(f"{', '.join(names)} ({kind})" for kind, names in parts if names)
    unused = [
        name for kind in ("known", "past") for name in card.get(kind, ()) if name not in getattr(shapes, kind)
    ]
    left = f"not looked at: {', '.join(unused)}" if unused else ""
    held = "; ".join(part for part in (looked, left) if part)
    return f"covariates: {held}" if held else ""


def ignored(task: Task) -> None:
    """Note, once, that the rows that know their window alone look at no covariates."""
    shapes: Shapes | None = getattr(task, "shapes", None)
    note = "repeat_last, seasonal_naive, window_mean, dlinear and nlinear look at no covariates"
    if shapes is not None and (shapes.known or shapes.past) and note not in task.notes:
        task.notes.append(note)


def ahead(
    shapes: Shapes, one: Series, statistics: Statistics, wanted: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """The covariates of a forecast of the rows behind `one.end`, the same for each channel, as `Windows.covariates` has
    them: ``known`` (M, C_k, L + H) and ``past`` (M, C_p, L).

    `wanted`: how many of the H rows somebody asks for. No row of a forecast looks at the known covariates of later
    ones, so those behind may be missing, which is 0.

    Raises:
        DataError: a covariate is not there, or a known one has no value in a row that is to be forecast.
    """
    import numpy as np

    found: dict[str, NDArray[np.float32]] = {}
    for kind, names in (("known", shapes.known), ("past", shapes.past)):
        if not names:
            continue
        columns = one.columns(names)
        if kind == "known":
            asked = shapes.horizon if wanted is None else min(wanted, shapes.horizon)
            _demand_ahead(columns[one.end :], names, asked, one)
        mean, std = statistics(one, names)
        rows = one.end + np.arange(-shapes.length, shapes.horizon if kind == "known" else 0)
        there = (rows >= 0) & (rows < len(columns))
        scaled = (columns[np.where(there, rows, 0)] - mean) / std
        held = np.where(there[:, None] & np.isfinite(scaled), scaled, 0.0).astype(np.float32).T
        found[kind] = np.broadcast_to(held, (len(one.channels), *held.shape)).copy()
    return found


def _demand_ahead(columns: NDArray[np.float64], names: Sequence[str], horizon: int, one: Series) -> None:
    import numpy as np

    there = np.isfinite(columns[:horizon])
    first, last = one.end + 1, one.end + horizon
    wanted = f"a forecast of rows {first} to {last} looks at {', '.join(names)}, known ahead of time, in all of them"
    ask = (
        f"give a table that goes on to row {last}, with the times and these columns filled in and the columns to "
        "forecast empty"
    )
    if len(there) < horizon:
        raise DataError(f"{one.name}: {wanted}, and there are rows up to {one.end + len(there)}: {ask}")
    if not there.all():
        row, column = (int(place) for place in np.argwhere(~there)[0])
        raise DataError(
            f"{one.name}: {wanted}, and {names[column]!r} has no value in row {first + row}: {ask}"
        )
