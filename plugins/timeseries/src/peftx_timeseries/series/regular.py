"""From rows as a file has them to rows at even steps, or one sentence that names the first row that is not.

What is wrong is refused, because nobody but the owner of the data can tell a double row from a wrong one. By request:

    regular     refuse  the first row that is out of order, double, off the grid or after a gap
                sort    put rows in the order of their times first
                fill    sort, and put rows of missing values where the grid has a step and the data have none; with a
                        frequency given, times between two steps are moved to the beginning of theirs, and all of them
                        to a day or month that it states (``W-MON``)
                keep    take rows as they stand in the file, as if their steps were even; how many are not is noted
    duplicates  refuse, or keep the first or the last of several rows of the same time, or their mean (of what is
                there of each column)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from peftx.errors import DataError
from peftx_timeseries.series.frequency import Frequency, infer_frequency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Times = NDArray[np.datetime64]
    Indices = NDArray[np.int64]

__all__ = ["Duplicates", "Regular", "Rows", "regularise", "shown"]

Regular = Literal["refuse", "sort", "fill", "keep"]
Duplicates = Literal["refuse", "first", "last", "mean"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one series.

    Args:
        what: what they are called in errors, as a file or a series of it.
        times: (T,) datetime64, in any order.
        values: (T, K) float64, all columns that belong to a row.
        lines: (T,) number of each row in its source, from 1.
        word: what such a number counts: line or row.
        counted: times are whole numbers of a source without dates, as seconds.
        notes: what was done to them, as clauses.
    """

    what: str
    times: Times
    values: Values
    lines: Indices
    word: str = "line"
    counted: bool = False
    notes: tuple[str, ...] = ()

    def named(self, row: int) -> str:
        """A row in words: its place and its time."""
        return f"{self.word} {int(self.lines[row])} ({self.shown(self.times[row])})"

    def shown(self, time: np.datetime64) -> str:
        """A time of theirs in words."""
        return str(int(time.astype("datetime64[s]").astype("int64"))) if self.counted else shown(time)

    def taken(self, rows: Any, note: str = "") -> Rows:
        """Some of the rows, in that order."""
        taken = replace(self, times=self.times[rows], values=self.values[rows], lines=self.lines[rows])
        return taken.noted(note)

    def noted(self, note: str, **changed: Any) -> Rows:
        """The same rows with one more note, if it says anything."""
        return replace(self, notes=(*self.notes, note) if note else self.notes, **changed)


def shown(time: np.datetime64) -> str:
    """A time as people write it: the date alone at midnight."""
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def regularise(
    rows: Rows,
    frequency: Frequency | None = None,
    *,
    regular: Regular = "refuse",
    duplicates: Duplicates = "refuse",
    given: bool = False,
) -> tuple[Rows, Frequency]:
    """Return the rows at even steps, and their frequency.

    `frequency`: None tells it from the times. `given`: its owner chose it, so that `fill` may move times to its steps,
    and a day of the week or a month that it states is held to. Rows that `fill` puts in have the line 0.

    Raises:
        DataError: the first row that is not where the given frequency wants it, out of order, double, off the grid or
            after a gap, where that is not asked to be mended; no frequency to be told.
    """
    import numpy as np

    if regular == "keep":
        frequency = frequency or infer_frequency(np.unique(rows.times), rows.what)
        return rows.noted(_kept(rows, frequency)), frequency
    moving = given and regular == "fill"
    # where no frequency can be told, that is said after what is wrong with single rows
    known = frequency or _told(rows)
    held_to = frequency if given and not moving else None
    if regular == "refuse":
        _demand_anchor(rows, held_to)
        _demand_order(rows, known, duplicates)
    rows = _ordered(rows)
    _demand_anchor(rows, held_to)
    if not moving:
        rows = _single(rows, duplicates, None if regular == "fill" else known)
    frequency = known or infer_frequency(np.unique(rows.times), rows.what)
    origin = rows.times[0]
    steps, off = frequency.steps(rows.times)
    if moving:
        # the first row is no better than the others, or stands on another day than the one that was given
        if 2 * int(off.sum()) > len(off) or not frequency.keeps(rows.times[:1])[0]:
            origin = frequency.before(origin)
            steps, off = frequency.steps(rows.times, origin)
        if off.any():
            note = f"{int(off.sum())} times moved to the beginning of their steps of {frequency.alias}"
            rows = rows.noted(note, times=frequency.times(origin, steps))
        rows = _single(rows, duplicates)
        steps, _ = frequency.steps(rows.times)  # from the first row, which may have moved off the origin
    elif off.any():
        raise DataError(
            f"{rows.what}: {rows.named(int(np.argmax(off)))} stands between two steps of "
            f"{_step(rows, frequency)}, counted from {rows.shown(origin)}: correct it, or give --data.frequency and "
            "--data.regular fill, which moves times to the beginning of their steps"
        )
    gaps = np.diff(steps) != 1
    if not gaps.any():
        return rows, frequency
    if regular != "fill":
        raise DataError(_gap(rows, frequency, steps, int(np.argmax(gaps))))
    return _filled(rows, frequency, steps), frequency


def _kept(rows: Rows, frequency: Frequency) -> str:
    """A clause on rows that are taken as they stand and are not at even steps; empty where all are."""
    import numpy as np

    due = frequency.times(rows.times[:-1], np.ones(len(rows.times) - 1, dtype=np.int64))
    odd = int((due != rows.times[1:]).sum())
    step = frequency.count if rows.counted else frequency.alias
    return f"rows taken as they stand, {odd} of them not a step of {step} after the one before" if odd else ""


def _told(rows: Rows) -> Frequency | None:
    import numpy as np

    try:
        return infer_frequency(np.unique(rows.times), rows.what)
    except DataError:
        return None


def _demand_anchor(rows: Rows, frequency: Frequency | None) -> None:
    """Raise DataError where the first row is not on the day or in the month that the frequency states; all others are
    counted from it."""
    if frequency is None or bool(frequency.keeps(rows.times[:1])[0]):
        return
    alone = replace(frequency, anchor="", end=False).alias
    raise DataError(
        f"{rows.what}: {rows.named(0)} does not stand {frequency.place}, as the given frequency {frequency.alias} "
        f"wants: correct the row, give the frequency of the rows (--data.frequency {alone} takes the day and month of "
        "the first), or --data.regular fill, which moves times to the beginning of their steps"
    )


def _demand_order(rows: Rows, frequency: Frequency | None, duplicates: Duplicates) -> None:
    """Raise DataError for the first row that comes after a later one, unless a row before it has a fault."""
    import numpy as np

    back = np.diff(rows.times).astype(np.int64) < 0
    if not back.any():
        return
    row = int(np.argmax(back)) + 1
    before = np.flatnonzero(rows.times[:row] < rows.times[row])  # a gap behind them is where this one belongs
    if frequency is not None and len(before):
        regularise(rows.taken(before), frequency, duplicates=duplicates)
    raise DataError(
        f"{rows.what}: {rows.named(row)} comes after a later time, {rows.named(row - 1)}: put the rows in order, "
        "or give --data.regular sort" + _summer(rows, row)
    )


def _ordered(rows: Rows) -> Rows:
    import numpy as np

    if not (np.diff(rows.times).astype(np.int64) < 0).any():
        return rows
    return rows.taken(np.argsort(rows.times, kind="stable"), "rows sorted by time")


def _single(rows: Rows, duplicates: Duplicates, frequency: Frequency | None = None) -> Rows:
    """One row of each time; rows are in order. With a frequency, a row before the first double one that is not at an
    even step is told first."""
    import numpy as np

    same = np.diff(rows.times).astype(np.int64) == 0
    if not same.any():
        return rows
    if duplicates == "refuse":
        row = int(np.argmax(same)) + 1
        if frequency is not None:
            regularise(rows.taken(slice(row)), frequency)
        raise DataError(
            f"{rows.what}: {rows.named(row)} has the time of {rows.word} {int(rows.lines[row - 1])} again: remove one, "
            "or give --data.duplicates first, last or mean" + _summer(rows, row)
        )
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    ends = np.append(begins[1:], len(rows.times))
    note = f"{int(same.sum())} rows of a time that was there already: {duplicates} kept"
    if duplicates != "mean":
        return rows.taken(begins if duplicates == "first" else ends - 1, note)
    held = np.isfinite(rows.values)
    counts = np.add.reduceat(held.astype(np.int64), begins, axis=0)
    sums = np.add.reduceat(np.where(held, rows.values, 0.0), begins, axis=0)
    values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return rows.taken(begins, note).noted("", values=values)


def _gap(rows: Rows, frequency: Frequency, steps: Indices, row: int) -> str:
    missing = int(steps[row + 1] - steps[row]) - 1
    first = frequency.times(rows.times[0], steps[row : row + 1] + 1)[0]
    return (
        f"{rows.what}: before {rows.named(row + 1)} {missing} row{'s are' if missing > 1 else ' is'} missing, from "
        f"{rows.shown(first)} on at {_step(rows, frequency)}: "
        "give --data.regular fill, which takes them for missing values, or keep, which takes the rows as they stand"
        + (_summer(rows, row + 1) if missing == 1 and frequency.unit in ("h", "min") else "")
    )


def _filled(rows: Rows, frequency: Frequency, steps: Indices) -> Rows:
    import numpy as np

    count = int(steps[-1]) + 1
    most = 50 * len(rows.times) + 1000
    if count > most:
        raise DataError(
            f"{rows.what}: {len(rows.times)} rows from {rows.shown(rows.times[0])} to "
            f"{rows.shown(rows.times[-1])} are {count:,} steps, nearly all of them missing: look at the times, or give "
            "a longer --data.frequency"
        )
    values = np.full((count, rows.values.shape[1]), np.nan)
    values[steps] = rows.values
    lines = np.zeros(count, dtype=np.int64)
    lines[steps] = rows.lines
    note = f"{count - len(steps)} missing rows put in"
    times = frequency.times(rows.times[0], np.arange(count))
    return rows.noted(note, times=times, values=values, lines=lines)


def _step(rows: Rows, frequency: Frequency) -> str:
    return f"the step {frequency.count}" if rows.counted else f"the frequency {frequency.alias}"


def _summer(rows: Rows, row: int) -> str:
    """A hint where a row out of step may be the change to or from summer time: within one o'clock and four at the end
    of a week in spring or autumn."""
    import numpy as np

    if rows.counted:
        return ""
    time = rows.times[row].astype("datetime64[h]")
    hour = int(time.astype(np.int64)) % 24
    day = time.astype("datetime64[D]")
    weekday = (int(day.astype(np.int64)) + 3) % 7
    month = int(time.astype("datetime64[M]").astype(np.int64)) % 12 + 1
    if hour <= 4 and weekday == 6 and month in (3, 4, 9, 10, 11):
        return "; if it is the change to or from summer time, give the zone, such as --data.timezone Europe/Berlin"
    return ""
