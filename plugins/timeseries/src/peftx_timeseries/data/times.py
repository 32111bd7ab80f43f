"""A column of times, read: how they are written, which zone they are in, and what to say where one cannot be read.

Times that carry an offset from UTC (``2024-03-31T03:00+02:00``) become UTC; local times do so with a zone given. In
both cases dates alone, at midnight where they were written, stay what they are: a day is a day wherever it is. An hour
that a clock shows twice is told apart by the order of the rows; one that it never shows is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Indices = NDArray[np.int64]

__all__ = ["is_count", "looks_like_times", "parse_times", "to_utc"]

#: Orders of day, month and year that are tried where times are not ISO 8601.
_DATES = ("%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", " %H-%M-%S", " %I:%M %p", " %I:%M:%S %p")
_QUARTER = r"(\d{4})[- ]?[Qq]([1-4])"
#: An offset from UTC behind a time of the day; a day of the month may look like one.
_OFFSET = r"[T ]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"
_BARE = r" *(?:Z|[+-]\d\d(?::?\d\d)?)$"


def looks_like_times(column: pd.Series) -> bool:
    """Whether the first cell there is reads as a time, and is no plain number."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return True
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return False
    first = column.dropna().head(1)
    if not len(first):
        return False
    text = _quarters(first.astype(str).str.strip())
    if text.str.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?").iloc[0]:
        return False
    return any(_tried(text, way).notna().all() for way in _ways(text))


def is_count(column: pd.Series) -> bool:
    """Whether times are whole numbers that count rows, and not years, days written without a separator, or seconds or
    milliseconds since 1970."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return False
    numbers = pd.to_numeric(column, errors="coerce")
    if not len(numbers) or numbers.isna().any() or (numbers % 1 != 0).any():
        return False
    year = numbers.between(1600, 2200).all()
    day = (
        numbers.between(16_000_101, 22_001_231).all()
        and _tried(numbers.astype("int64").astype(str), "%Y%m%d").notna().all()
    )
    return not (year or day or _since_1970(numbers))


def parse_times(
    column: pd.Series, lines: Indices, what: str, *, word: str = "line", time_format: str | None = None
) -> tuple[Times, bool]:
    """Read a column of times: (T,) datetime64[us], and whether they are UTC by their own offsets.

    Raises:
        DataError: a cell is empty or no time as the others are, or day and month cannot be told apart.
    """
    import numpy as np
    import pandas as pd

    name = str(column.name)
    empty = column.isna().to_numpy()
    if empty.any():
        place = f"{word} {int(lines[int(np.argmax(empty))])}"
        raise DataError(f"{what}: {place} has no time in the column {name!r}: write it, or remove the row")
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        zoned = getattr(column.dt, "tz", None) is not None
        return _plain(column, _midnight(column)), zoned
    if (
        not time_format
        and not is_count(column)
        and (unit := _since_1970(pd.to_numeric(column, errors="coerce")))
    ):
        return _plain(pd.to_datetime(pd.to_numeric(column), unit=unit), False), True
    if pd.api.types.is_numeric_dtype(column.dtype):
        column = column.astype("int64") if (column % 1 == 0).all() else column
    text = _quarters(column.astype(str).str.strip())
    ways = (time_format,) if time_format else _ways(text)
    found = {way: _tried(text, way) for way in ways}
    best = max(found, key=lambda way: int(found[way].notna().sum()))
    times = found[best]
    unread = times.isna().to_numpy()
    if unread.any():
        row = int(np.argmax(unread))
        hint = (
            "correct it"
            if time_format
            else "correct it, or say how times are written with --data.time-format"
        )
        raise DataError(
            f"{what}: {word} {int(lines[row])} has {_short(text.iloc[row])} in the column {name!r}, which is no time"
            + (f" written as {best}" if best != "ISO8601" else "")
            + f": {hint}"
        )
    other = best.translate({ord("d"): "m", ord("m"): "d"})
    both = not time_format and other != best and other in found and found[other].notna().all()
    if both and not found[other].equals(times):
        raise DataError(
            f"{what}: the times of the column {name!r}, such as {_short(text.iloc[0])}, may be day and month or month "
            f"and day: say which with --data.time-format '{other}' or '{best}'"
        )
    offset = text.str.contains(_OFFSET, regex=True).to_numpy()
    if best == "ISO8601" and offset.any():
        if not offset.all():
            row = int(np.argmax(offset != offset[0]))
            has = (
                "an offset from UTC, which those before it do not have"
                if offset[row]
                else "no offset from UTC"
            )
            raise DataError(
                f"{what}: {word} {int(lines[row])} has {_short(text.iloc[row])} in the column {name!r}, a time with "
                f"{has}: write all times the same way"
            )
        wall = pd.to_datetime(text.str.replace(_BARE, "", regex=True), errors="coerce", format="ISO8601")
        if _midnight(wall):
            return _plain(wall, True), True
        return _plain(times, False), True
    return _plain(times, False), False


def to_utc(times: Times, zone: str, what: str) -> Times:
    """Local times of a zone in UTC; dates alone stay as they are, and so do rows that all have one time of day: they
    are days and more apart, and in UTC a change to summer time would make them uneven.

    Raises:
        DataError: there is no such zone, a time is one that its clocks skip, or an hour that they show twice stands
            there once.
    """
    import numpy as np
    import pandas as pd

    index = pd.DatetimeIndex(times)
    try:
        pd.DatetimeIndex([]).tz_localize(zone)
    except (KeyError, ValueError, OSError) as error:  # the libraries behind pandas differ in what they raise
        raise DataError(
            f"there is no time zone {zone!r}: give one such as Europe/Berlin or America/New_York"
        ) from error
    clock = (index - index.normalize()).unique()
    if (index == index.normalize()).all() or (len(index) > 1 and len(clock) == 1):
        return times
    skipped = index.tz_localize(zone, nonexistent="NaT", ambiguous=np.ones(len(index), dtype=bool)).isna()
    if skipped.any():
        shown = str(index[int(np.argmax(skipped))])
        raise DataError(
            f"{what}: clocks of {zone} never showed {shown}, which they skip for summer time: the times are those of "
            "another zone, or of none; leave --data.timezone out if they are UTC"
        )
    try:
        local = index.tz_localize(zone, ambiguous="infer")
    except (
        Exception
    ) as error:  # a ValueError since pandas 3, before it an error of pytz, which need not be there
        raise DataError(
            f"{what}: clocks of {zone} show an hour twice when summer time ends, and the rows do not say which is "
            f"which ({' '.join(str(error).split())[:120]}): write times with their offset, such as "
            "2024-10-27T02:00+02:00, or in UTC"
        ) from error
    return np.asarray(local.tz_convert("UTC").tz_localize(None), dtype="datetime64[us]")


def _quarters(text: pd.Series) -> pd.Series:
    """Quarters such as 1990Q2 as their first days; all else as it is."""
    if not len(text) or not re.fullmatch(_QUARTER, str(text.iloc[0])):
        return text
    return text.str.replace(
        f"^{_QUARTER}$", lambda found: f"{found[1]}-{3 * int(found[2]) - 2:02}-01", regex=True
    )


def _since_1970(numbers: pd.Series) -> str:
    """The unit of times that count from 1970 on, from September 2001 to the year 2286; empty where they do not."""
    for unit, least in (("s", 10**9), ("ms", 10**12)):
        if len(numbers) and numbers.between(least, 10 * least - 1).all():
            return unit
    return ""


def _ways(text: pd.Series) -> tuple[str, ...]:
    """Formats that the first and the last time can be read by, and always ISO 8601."""
    ends = text.iloc[[0, -1]]
    written = [date + clock for date in _DATES for clock in _CLOCKS]
    return ("ISO8601", *(way for way in written if _tried(ends, way).notna().any()))


def _tried(text: pd.Series, way: str) -> pd.Series:
    """Times, and NaT where the text is none of this format. Those with offsets come out in UTC."""
    import pandas as pd

    offsets = way == "ISO8601" and bool(text.str.contains(_OFFSET, regex=True).any())
    try:
        found = pd.to_datetime(text, format=way, errors="coerce", utc=offsets)
    except ValueError:  # offsets of other forms, or by a format of the user's, and several of them
        return pd.to_datetime(text, format=way, errors="coerce", utc=True)
    if found.dtype == object:  # the same, before pandas 3
        return pd.to_datetime(text, format=way, errors="coerce", utc=True)
    return found


def _midnight(column: pd.Series) -> bool:
    return bool((column == column.dt.normalize()).all())


def _plain(column: pd.Series, dates: bool) -> Times:
    """Without a zone: the wall's dates, or UTC."""
    import numpy as np

    if getattr(column.dt, "tz", None) is not None:
        column = column.dt.tz_localize(None) if dates else column.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(column, dtype="datetime64[us]")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
