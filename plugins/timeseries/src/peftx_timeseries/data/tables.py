"""Wide tables: one row for each time, one column for each channel.

The layouts of ETT, Weather, ECL, Traffic, Exchange and ILI, and one's own: a column of times, and columns of numbers
in any order. Columns named as covariates are kept apart from the channels that are forecast; all others are channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftx.data.contract import DataContext, Dataset
from peftx.data.files import find_file
from peftx.errors import DataError, near_matches
from peftx_timeseries.config.data import CsvConfig, TableConfig
from peftx_timeseries.data.borders import divide
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.reading import Table, read_table
from peftx_timeseries.data.times import is_count, looks_like_times, parse_times, to_utc
from peftx_timeseries.data.values import what_is_wild, wild
from peftx_timeseries.series.frequency import EXAMPLES, Frequency, parse_frequency
from peftx_timeseries.series.regular import Rows, regularise
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Times = NDArray[np.datetime64]
    Indices = NDArray[np.int64]

__all__ = [
    "Read",
    "ascending",
    "asked",
    "constant_note",
    "counting_step",
    "dataset_of",
    "demand_columns",
    "in_zone",
    "load",
    "locate",
    "numbers",
    "read_wide",
    "reading_of",
    "regular_rows",
    "rows_of_time",
    "season",
    "time_column",
]

#: Names of a column of times, whatever it holds.
_TIME_NAMES = ("date", "datetime", "date_time", "timestamp", "time", "ds")
#: Names of one that holds dates; of numbers they are just as often a channel or a covariate.
_MAYBE_TIME = ("index", "day", "month", "year", "week", "hour", "period")


@dataclass(frozen=True, slots=True)
class Read:
    """What a table holds: its series, their frequency (empty when times only count rows), rows of a season, and what
    was done on the way, as clauses."""

    series: tuple[Series, ...]
    frequency: str
    period: int
    notes: tuple[str, ...]


def locate(config: CsvConfig, ctx: DataContext) -> None:
    """Make sure that the file is there; DataError otherwise."""
    find_file(config.path, ctx.checked_root(), "CSV or Parquet table")


def load(config: CsvConfig, ctx: DataContext) -> Dataset:
    """Return the data set of a wide table.

    Raises:
        DataError: there is no such file, what `read_table` and `read_wide` raise, or too few rows to split.
    """
    path = find_file(config.path, ctx.checked_root(), "CSV or Parquet table")
    read = read_wide(read_table(path), config)
    return dataset_of(read, config, f"timeseries.csv:{config.path}", str(path))


def dataset_of(read: Read, config: TableConfig, name: str, source: str) -> Dataset:
    """The data set of what a table holds, split as its options say."""
    parts = divide(read.series, config)
    return make_dataset(
        name,
        parts.splits,
        frequency=read.frequency,
        period=read.period,
        source=source,
        licence="the file's own",
        note="; ".join((*parts.notes, *read.notes)),
        horizon=parts.horizon,
        scaler=parts.scaler,
        known=config.known,
        past=config.past,
        reading=reading_of(config),
    )


def reading_of(config: TableConfig) -> dict[str, Any]:
    """How a table was read, JSON-ready: its layout, and the options that differ from their defaults."""
    names = ("time", "time_format", "timezone", "frequency", "regular", "duplicates", "id", "target")
    held = {name: getattr(config, name) for name in names if hasattr(config, name)}
    return {"layout": "long" if "id" in held else "wide"} | {
        name: value for name, value in held.items() if value != type(config).model_fields[name].default
    }


def read_wide(table: Table, config: TableConfig, name: str = "") -> Read:
    """Return the one series of a wide table, called `name` (the table's).

    Raises:
        DataError: no column of times, a time that is none, a cell that is no number, a channel without any value, a
            column that is asked for and not there, rows that are not regular, or no frequency to be told.
    """
    import numpy as np

    frame, what = table.frame, table.what
    time = time_column(table, config.time)
    drop = tuple(getattr(config, "drop", ()))
    wanted = tuple(getattr(config, "channels", ()))
    covariates = (*config.known, *config.past)
    columns = [str(column) for column in frame.columns]
    demand_columns((*drop, *wanted, *covariates), columns, what)
    both = next((one for one in wanted if one in covariates or one in drop), None)
    if both is not None:
        raise DataError(
            f"the column {both!r} is among the channels and is a covariate or left out: it can be one only"
        )
    channels = wanted or tuple(one for one in columns if one not in (time, *drop, *covariates))
    if not channels or time in channels:
        raise DataError(f"{what} has no column to forecast beside its times, {time!r}, and its covariates")
    _look_for_long(table, channels)
    stacked = np.column_stack([numbers(table, one) for one in (*channels, *covariates)])
    for at, channel in enumerate((*channels, *covariates)):
        if not np.isfinite(stacked[:, at]).any():
            raise DataError(
                f"{what}: the column {channel!r} has no value at all: leave it out with --data.drop {channel}"
            )
    rows, local = rows_of_time(table, time, stacked, config)
    rows = in_zone(rows, str(config.timezone)) if local else rows
    rows, frequency = regular_rows(rows, config)
    alias, period = season(asked(config) if rows.counted else frequency, config, what, rows.counted)
    width = len(channels)
    series = Series(
        name or what,
        np.ascontiguousarray(rows.values[:, :width]),
        channels,
        None if rows.counted else ascending(rows.times),
        covariates={one: rows.values[:, width + at] for at, one in enumerate(covariates)},
    )
    return Read((series,), alias, period, (*table.notes, *rows.notes, *constant_note((series,))))


def _look_for_long(table: Table, channels: Sequence[str]) -> None:
    """Raise DataError for a table of many series one below the other, whose names would be taken for numbers."""
    import pandas as pd

    named = "unique_id" in channels and "y" in channels
    if named and not pd.api.types.is_numeric_dtype(table.frame["unique_id"].dtype):
        raise DataError(
            f"{table.what} has a column 'unique_id' of names: it is a long table; read it with timeseries.long, or "
            "leave the column out with --data.drop unique_id"
        )


def time_column(table: Table, given: str | None) -> str:
    """Return the name of the column of times.

    That is the given one, one that is called so, or the first or a likely one that holds dates. Numbers alone, such as
    a column ``day`` of 1 to 31, are times under the plain names only.

    Raises:
        DataError: the one that was given is not there, or none looks like one.
    """
    columns = [str(column) for column in table.frame.columns]
    if given is not None:
        demand_columns((given,), columns, table.what)
        return given
    for known in _TIME_NAMES:
        for column in columns:
            if column.lower() == known:
                return column
    first = columns[0]
    likely = [column for known in _MAYBE_TIME for column in columns if column.lower() == known]
    for column in (first, *likely):
        if looks_like_times(table.frame[column]):
            return column
    shown = likely[0] if likely else first
    named = f"the first, {first!r}," if shown == first else repr(shown)
    raise DataError(
        f"{table.what} has no date column: none is called date, time, timestamp or ds, and {named} "
        f"begins with {str(table.frame[shown].iloc[0])[:40]!r}: name it with --data.time, or add one"
    )


def numbers(table: Table, column: str) -> Values:
    """Return a column as float64, NaN where a cell is empty.

    Raises:
        DataError: the first cell that is no number, infinite or beyond all measurements, with its row and column.
    """
    import numpy as np
    import pandas as pd

    held = table.frame[column]
    if pd.api.types.is_datetime64_any_dtype(held.dtype):
        raise DataError(
            f"{table.what}: the column {column!r} holds times, not numbers: it may be the column of times "
            f"(--data.time {column}), or else leave it out with --data.drop {column}"
        )
    if held.dtype.kind in "cm":  # complex numbers, and spans of time
        raise DataError(_strange(table, column, 0, "is no number"))
    if pd.api.types.is_numeric_dtype(held.dtype) or pd.api.types.is_bool_dtype(held.dtype):
        found = held.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        try:
            read = pd.to_numeric(held, errors="coerce")
        except OverflowError:
            read = pd.to_numeric(held.astype(str), errors="coerce")
        strange = (read.isna() & held.notna()).to_numpy()
        if strange.any():
            raise DataError(_strange(table, column, int(np.argmax(strange)), "is no number"))
        found = read.to_numpy(dtype=np.float64, na_value=np.nan)
    odd = wild(found)
    if odd.any():
        at = int(np.argmax(odd))
        raise DataError(_strange(table, column, at, f"is {what_is_wild(found[at])}"))
    return found


def rows_of_time(table: Table, time: str, values: Values, config: TableConfig) -> tuple[Rows, bool]:
    """Return rows in the order of the table, their times as they are written or in UTC by their own offsets, and
    whether a time zone still has to be applied.

    Raises:
        DataError: a time is none.
    """
    import numpy as np
    import pandas as pd

    column = table.frame[time]
    if not config.time_format and is_count(column):
        times = pd.to_numeric(column).to_numpy(dtype=np.int64).astype("datetime64[s]")
        return Rows(table.what, times, values, table.lines, table.word, True), False
    times, utc = parse_times(column, table.lines, table.what, word=table.word, time_format=config.time_format)
    return Rows(table.what, times, values, table.lines, table.word), config.timezone is not None and not utc


def in_zone(rows: Rows, zone: str) -> Rows:
    """Rows of one series whose times were local times of a zone, in UTC.

    Raises:
        DataError: what `to_utc` raises.
    """
    return rows.noted("", times=to_utc(rows.times, zone, rows.what))


def regular_rows(
    rows: Rows, config: TableConfig, frequency: Frequency | None = None
) -> tuple[Rows, Frequency]:
    """Return the rows at even steps and their frequency, as the options ask; `frequency` is what is known without them.

    Raises:
        DataError: what `regularise` raises.
    """
    given = None if rows.counted else asked(config)
    found, frequency = regularise(
        rows,
        given or frequency or (counting_step(rows.times) if rows.counted else None),
        regular=config.regular,
        duplicates=config.duplicates,
        given=given is not None,
    )
    return found, frequency.anchored(found.times[0])


def counting_step(times: Times) -> Frequency:
    """The smallest step of times that only count rows."""
    import numpy as np

    steps = np.diff(np.unique(times.astype(np.int64)))
    return Frequency("s", int(steps.min()) if len(steps) else 1)


def season(frequency: Frequency | None, config: Any, what: str, counted: bool = False) -> tuple[str, int]:
    """The name of a frequency and the rows of its season, which `period` overrides.

    Raises:
        DataError: neither is known.
    """
    if frequency is None and config.period is None:
        cause = "its times only count the rows" if counted else "nothing in it says so"
        raise DataError(
            f"{what}: the frequency is unknown, as {cause}: give it with --data.frequency, such as {EXAMPLES}, or the "
            "rows of a season with --data.period (1 for none)"
        )
    period = config.period or (frequency.period if frequency is not None else 1)
    return frequency.alias if frequency is not None else "", period


def constant_note(series: Sequence[Series]) -> tuple[str, ...]:
    """A clause that names channels that never change."""
    import numpy as np

    found: list[str] = []
    for one in series:
        for at, channel in enumerate(one.channels):
            held = one.values[:, at][np.isfinite(one.values[:, at])]
            if len(held) and held.min() == held.max():
                found.append(channel if len(series) == 1 else one.name)
    if not found:
        return ()
    names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return (f"constant: {names}",)


def asked(config: TableConfig) -> Frequency | None:
    """The frequency that the options give."""
    return None if config.frequency is None else parse_frequency(config.frequency)


def ascending(times: Times) -> Times | None:
    """Times for a series, to the second where they are whole ones; None unless each is later than the one before."""
    import numpy as np

    seconds = times.astype("datetime64[s]")
    exact = seconds if (seconds == times).all() else times
    return exact if bool((np.diff(times).astype(np.int64) > 0).all()) else None


def demand_columns(names: Sequence[str], columns: Sequence[str], what: str) -> None:
    """Raise DataError for a name that no column has."""
    for name in names:
        if name not in columns:
            hint = near_matches(name, columns) or (
                f" Columns are {', '.join(columns[:8])}{', ...' if len(columns) > 8 else ''}."
            )
            raise DataError(f"{what} has no column {name!r}.{hint}")


def _strange(table: Table, column: str, row: int, why: str) -> str:
    cell = str(table.frame[column].iloc[row])
    shown = repr(cell if len(cell) <= 40 else cell[:37] + "...")
    return (
        f"{table.what}: {table.word} {int(table.lines[row])} has {shown} in the column {column!r}, which {why}: "
        f"correct it, leave the cell empty if the value is missing, or the column out with --data.drop {column}"
    )
