"""Frequencies: what is the step between two rows, where do rows belong, and how many rows make a season.

A frequency is written as pandas writes its offsets (2.2 and later): ``15min``, ``h``, ``D``, ``B`` (working days),
``W-TUE``, ``MS`` / ``ME`` (start / end of months), ``QS-OCT``, ``YS-JAN``. It is told from the times themselves, of
which any number may be missing. Rows are counted in whole steps from a first time (`Frequency.steps`), by calendar
where a step is one of the calendar: months are not 30 days, and after Friday comes Monday.

The season of a frequency, `Frequency.period`, in rows:

    ===================================  ======================================================
    finer than a second                  rows of a minute
    1 s up to less than 1 min            rows of an hour (1 s: 3600)
    1 min up to less than a day          rows of a day (15min: 96, h: 24)
    D, B, W                              7, 5, 52 (2W: 26)
    MS, QS, YS                           12, 4, 1 (2MS: 6)
    all others, and where a season is    1: none
    no whole number of steps
    ===================================  ======================================================

Competitions fix their own (M4 takes 1 for days and weeks); ``--data.period`` overrides the table.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Indices = NDArray[np.int64]

__all__ = ["EXAMPLES", "Frequency", "infer_frequency", "parse_frequency"]

#: What an error offers.
EXAMPLES = "h, 15min, D, B, W-MON, MS, QS-JAN or YS-JAN"

_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_NAMES = {
    name[:3].upper(): name
    for name in (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
        "September October November December"
    ).split()
}
#: microseconds of a step of fixed length
_MICROS = {
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "D": 86_400_000_000,
    "W": 7 * 86_400_000_000,
}
_DAY = _MICROS["D"]
_PER_STEP = {"M": 1, "Q": 3, "Y": 12}
#: Units by what people, older releases of pandas, and the Monash archive call them; "E" behind one: at its end.
_UNITS = {
    **{
        "ms": "ms",
        "L": "ms",
        "s": "s",
        "S": "s",
        "min": "min",
        "T": "min",
        "h": "h",
        "H": "h",
        "D": "D",
        "d": "D",
    },
    **{"B": "B", "b": "B", "W": "W", "w": "W", "M": "ME", "MS": "M", "ME": "ME"},
    **{"Q": "QE", "QS": "Q", "QE": "QE", "Y": "YE", "A": "YE", "YS": "Y", "AS": "Y", "YE": "YE"},
    **{"second": "s", "seconds": "s", "minutely": "min", "minute": "min", "minutes": "min", "hourly": "h"},
    **{
        "hour": "h",
        "hours": "h",
        "daily": "D",
        "day": "D",
        "days": "D",
        "weekly": "W",
        "week": "W",
        "weeks": "W",
    },
    **{
        "monthly": "M",
        "month": "M",
        "months": "M",
        "quarterly": "Q",
        "quarter": "Q",
        "yearly": "Y",
        "year": "Y",
    },
    **{"annual": "Y", "annually": "Y"},
}


@dataclass(frozen=True, slots=True)
class Frequency:
    """The step between rows: `count` times `unit`.

    Args:
        unit: ms, s, min, h, D, B (working days), W, M, Q or Y.
        count: how many of them make a step.
        anchor: the day of a week (``TUE``), or a month that a quarter or year begins in (ends in, with `end`); empty
            where nobody stated one and it is that of the first row.
        end: rows stand at the last day of their months, not at the first.
    """

    unit: str
    count: int = 1
    anchor: str = ""
    end: bool = False

    @property
    def alias(self) -> str:
        """As pandas writes it."""
        unit = self.unit + ("E" if self.end else "S") if self.unit in _PER_STEP else self.unit
        return (str(self.count) if self.count > 1 else "") + unit + (f"-{self.anchor}" if self.anchor else "")

    @property
    def period(self) -> int:
        """Rows of a season; 1 for none. See the table of this module."""
        if self.unit in ("D", "B", "W"):
            whole = {"D": 7, "B": 5, "W": 52}[self.unit]
        elif self.unit in _PER_STEP:
            whole = 12 // _PER_STEP[self.unit]
        else:
            step = _MICROS[self.unit] * self.count
            season = (
                _MICROS["min"] if step < _MICROS["s"] else _MICROS["h"] if step < _MICROS["min"] else _DAY
            )
            return season // step if season % step == 0 else 1
        return whole // self.count if whole % self.count == 0 else 1

    @property
    def months(self) -> int:
        """Months of a step; 0 where a step is no number of months."""
        return _PER_STEP.get(self.unit, 0) * self.count

    def steps(self, times: Times, origin: np.datetime64 | None = None) -> tuple[Indices, NDArray[np.bool_]]:
        """Count each time in whole steps from the origin (the first of the times), rounded down, and say which of them
        stand between two steps. Both (T,)."""
        import numpy as np

        moments = times.astype("datetime64[us]")
        first = moments[0] if origin is None else origin.astype("datetime64[us]")
        if self.unit not in ("B", *_PER_STEP):
            passed = (moments - first).astype(np.int64)
            step = _MICROS[self.unit] * self.count
            return passed // step, passed % step != 0
        days = moments.astype("datetime64[D]")
        clock = (moments - days).astype(np.int64)
        start = first.astype("datetime64[D]")
        hour = (first - start).astype(np.int64)
        late = clock < hour  # the step of its day has not begun
        if self.unit == "B":
            working = np.is_busday(days)
            # days of a weekend belong to the Friday before
            passed = np.busday_count(start, days).astype(np.int64) - (late | ~working)
            return passed // self.count, ~working | (clock != hour) | (passed % self.count != 0)
        month, origin_month = moments.astype("datetime64[M]"), first.astype("datetime64[M]")
        day = (days - month.astype("datetime64[D]")).astype(np.int64)
        wanted = (start - origin_month.astype("datetime64[D]")).astype(np.int64)
        last = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64) - 1
        # the 31st of a month that has none is its last day
        due = last if self.end else np.minimum(wanted, last)
        passed = (month - origin_month).astype(np.int64) - ((day < due) | (late & (day == due)))
        off = (day != due) | (clock != hour) | (passed % self.months != 0)
        return passed // self.months, off

    def times(self, first: np.datetime64 | Times, steps: Indices) -> Times:
        """The times that stand `steps` after `first` (one for all, or one for each), datetime64[s] (milliseconds where
        steps are so fine)."""
        import numpy as np

        start = first.astype("datetime64[us]")
        counted = np.asarray(steps, dtype=np.int64)
        if self.unit not in ("B", *_PER_STEP):
            found = start + counted * np.int64(_MICROS[self.unit] * self.count)
        elif self.unit == "B":
            day = start.astype("datetime64[D]")
            found = np.busday_offset(day, counted * self.count, roll="forward") + (start - day)
        else:
            day = start.astype("datetime64[D]")
            month = start.astype("datetime64[M]")
            months = month + counted * self.months
            last = (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
            same = months.astype("datetime64[D]") + (day - month.astype("datetime64[D]"))
            found = (last if self.end else np.minimum(same, last)) + (start - day)
        return found.astype("datetime64[ms]" if self.unit == "ms" else "datetime64[s]")

    def keeps(self, times: Times) -> NDArray[np.bool_]:
        """Say of each time (T,) whether it stands where a stated anchor wants it: on that day of the week, in a month
        that a quarter or year begins or ends in; with `end`, on the last day of its month. All do without either."""
        import numpy as np

        days = times.astype("datetime64[D]")
        if self.unit == "W" and self.anchor:
            return (days.astype(np.int64) + 3) % 7 == _DAYS.index(self.anchor)  # day 0 was a Thursday
        kept = np.ones(len(days), dtype=bool)
        if self.unit not in _PER_STEP:
            return kept
        month = days.astype("datetime64[M]")
        if self.anchor:
            kept = (month.astype(np.int64) - _MONTHS.index(self.anchor)) % _PER_STEP[self.unit] == 0
        return kept & (days == (month + 1).astype("datetime64[D]") - 1) if self.end else kept

    @property
    def place(self) -> str:
        """Where a stated anchor wants rows, as a clause; empty without one."""
        if self.unit == "W" and self.anchor:
            return f"on a {_NAMES[self.anchor]}"
        months = ""
        if self.anchor and self.unit in ("Q", "Y"):
            step = _PER_STEP[self.unit]
            first = _MONTHS.index(self.anchor) % step
            named = [_NAMES[_MONTHS[month]] for month in range(first, 12, step)]
            if self.unit == "Y":
                named = [_NAMES[self.anchor]]
            months = f"{', '.join(named[:-1])} or {named[-1]}" if len(named) > 1 else named[0]
        if self.end:
            return f"on the last day of {months or 'a month'}"
        return f"in {months}" if months else ""

    def before(self, time: np.datetime64) -> np.datetime64:
        """The round time that the step around this one begins at: the full hour, the day, the working day, the day of
        the week and the month that are stated; the first day of a month, or with `end` the last of one. Weeks of which
        no day is stated begin with the day itself."""
        import numpy as np

        moment = time.astype("datetime64[us]")
        day = moment.astype("datetime64[D]")
        if self.unit in _PER_STEP:
            month = day.astype("datetime64[M]")
            if self.end and day != (month + 1).astype("datetime64[D]") - 1:
                month -= 1  # this one has not ended
            first = _MONTHS.index(self.anchor) if self.anchor else 11 if self.end else 0
            month -= (month.astype(np.int64) - first) % self.months
            begins = (month + 1).astype("datetime64[D]") - 1 if self.end else month.astype("datetime64[D]")
            return begins.astype("datetime64[us]")
        if self.unit == "B":
            return np.busday_offset(day, 0, roll="backward").astype("datetime64[us]")
        if self.unit == "W":
            late = (int(day.astype(np.int64)) + 3 - _DAYS.index(self.anchor)) % 7 if self.anchor else 0
            return (day - late).astype("datetime64[us]")
        step = _MICROS[self.unit] * self.count
        return (moment.astype(np.int64) // step * step).astype("datetime64[us]")

    def anchored(self, first: np.datetime64) -> Frequency:
        """The same frequency with the day or month that rows from `first` on stand at; a stated one stays."""
        if self.anchor:
            return self
        if self.unit == "W":
            weekday = (int(first.astype("datetime64[D]").astype("int64")) + 3) % 7
            return replace(self, anchor=_DAYS[weekday])
        if self.unit in ("Q", "Y"):
            return replace(self, anchor=_MONTHS[int(first.astype("datetime64[M]").astype("int64")) % 12])
        return self


def parse_frequency(text: str) -> Frequency:
    """Read a frequency: an offset of pandas, of older releases too, or a word such as ``hourly`` or ``10_minutes``.

    Raises:
        DataError: it is none.
    """
    unknown = DataError(f"{text!r} is no frequency: give one such as {EXAMPLES}")
    # the Monash archive writes half_hourly and 10_minutes
    written = re.sub(r"^half[_ ]?hourly$", "30min", text.strip(), flags=re.IGNORECASE)
    match = re.fullmatch(r"(\d*)[_ ]?([A-Za-z]+)(?:-([A-Za-z]{3}))?", written)
    if match is None:
        raise unknown
    number, name, anchor = match[1], match[2], (match[3] or "").upper()
    if name == "m":  # of minutes to most people, and M is the end of a month
        raise DataError(
            f"{text!r} may be minutes or months: give --data.frequency {number}min for minutes, {number}MS for months"
        )
    if name in ("Ms", "mS"):
        raise unknown
    unit = _UNITS.get(name) or _UNITS.get(name.lower()) or _UNITS.get(name.upper())
    if unit is None or (number.strip("0") == "" and number):
        raise unknown
    end = len(unit) == 2 and unit[1] == "E" and unit[0] in _PER_STEP
    unit = unit[0] if end else unit
    allowed = _DAYS if unit == "W" else _MONTHS if unit in ("Q", "Y") else ()
    if anchor and anchor not in allowed:
        raise unknown
    return Frequency(unit, int(number or 1), anchor, end)


def infer_frequency(times: Times, what: str = "the times") -> Frequency:
    """Tell the frequency of ascending times without repetition, of which any may be missing.

    The step is the most common distance of neighbours, on the calendar where all times stand at the same day of their
    months or at its end, and no two in the same month; on working days where none falls on a weekend that others step
    over. At least three times are needed; a quarter of the distances must be this step, and three quarters of them
    whole numbers of it.

    Raises:
        DataError: there are fewer, or no such step; the sentence says what to give.
    """
    import numpy as np

    ask = f"give it with --data.frequency, such as {EXAMPLES}"
    if len(times) < 3:
        raise DataError(f"{what}: {len(times)} times are too few to tell the frequency from: {ask}")
    moments = times.astype("datetime64[us]")
    calendar = _calendar(moments)
    if calendar is not None:
        return calendar
    if _working(moments):
        working = _step(np.diff(Frequency("B").steps(moments)[0]))
        if working is not None:
            return Frequency("B", working)
    distances = np.diff(moments).astype(np.int64)
    step = _step(distances)
    if step is None:
        common, held = _most_common(distances)
        raise DataError(
            f"{what}: the frequency cannot be told from the times, whose most common step, "
            f"{_spoken(common)}, is that of {held} of {len(distances)} rows: {ask}"
        )
    for unit in ("W", "D", "h", "min", "s", "ms"):
        if step % _MICROS[unit] == 0:
            return Frequency(unit, step // _MICROS[unit]).anchored(moments[0])
    raise DataError(f"{what}: steps of {step} microseconds are finer than a millisecond: {ask}")


def _calendar(moments: Times) -> Frequency | None:
    """Months, quarters or years, where the times say so."""
    import numpy as np

    days = moments.astype("datetime64[D]")
    month = moments.astype("datetime64[M]")
    passed = np.diff(month).astype(np.int64)
    if len(np.unique(moments - days)) > 1 or passed.min() < 1:
        return None
    day = (days - month.astype("datetime64[D]")).astype(np.int64)
    last = ((month + 1).astype("datetime64[D]") - days).astype(np.int64) == 1
    end = bool(last.all()) and len(np.unique(day)) > 1
    # years that end in December, or quarters that end on the 30th: one day of the month, and its last
    end = end or (bool(last.all()) and int(day[0]) >= 27)
    if not end and len(np.unique(day)) > 1:
        return None
    step = _step(passed)
    if step is None:
        return None
    unit = "Y" if step % 12 == 0 else "Q" if step % 3 == 0 else "M"
    return replace(Frequency(unit, step // _PER_STEP[unit]).anchored(moments[0]), end=end)


def _most_common(distances: Indices) -> tuple[int, int]:
    """The distance that is there most often, the smallest of several, and how often."""
    counts = Counter(distances.tolist())
    step = max(counts, key=lambda distance: (counts[distance], -distance))
    return int(step), counts[step]


def _step(distances: Indices) -> int | None:
    """The step that distances are whole numbers of, mostly."""
    step, held = _most_common(distances)
    if step < 1 or 4 * held < len(distances):
        return None
    return step if 4 * int((distances % step == 0).sum()) >= 3 * len(distances) else None


def _working(moments: Times) -> bool:
    """Whether these are days of which none falls on a weekend, though most steps are of one day and some step over
    one."""
    import numpy as np

    days = moments.astype("datetime64[D]")
    weekday = (days.astype(np.int64) + 3) % 7
    alone = len(np.unique(moments - days)) == 1 and bool((weekday < 5).all())
    return (
        alone and bool((np.diff(weekday) < 0).any()) and _most_common(np.diff(days).astype(np.int64))[0] == 1
    )


def _spoken(step: int) -> str:
    for unit, name in (("D", "days"), ("h", "hours"), ("min", "minutes"), ("s", "seconds")):
        if step % _MICROS[unit] == 0:
            return f"{step // _MICROS[unit]} {name}"
    return f"{step / 1e6:g} seconds"
