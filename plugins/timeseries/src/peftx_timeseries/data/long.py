"""Long tables: one row for each time of each series, as ``unique_id, ds, y``, with covariates in further columns.

Series may have any length and begin at any time; each is made regular by itself. They are univariate: the column that
is forecast is the channel of all of them. Columns that nobody named are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx.data.files import find_file
from peftx.errors import DataError
from peftx_timeseries.config.data import LongConfig
from peftx_timeseries.data.reading import Table, read_table
from peftx_timeseries.data.tables import (
    Read,
    ascending,
    asked,
    constant_note,
    counting_step,
    dataset_of,
    demand_columns,
    in_zone,
    numbers,
    regular_rows,
    rows_of_time,
    season,
    time_column,
)
from peftx_timeseries.series.frequency import Frequency, infer_frequency
from peftx_timeseries.series.regular import Rows
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]

__all__ = ["load", "locate", "read_long"]


def locate(config: LongConfig, ctx: DataContext) -> None:
    """Make sure that the file is there; DataError otherwise."""
    find_file(config.path, ctx.checked_root(), "CSV or Parquet table")


def load(config: LongConfig, ctx: DataContext) -> Dataset:
    """Return the data set of a long table.

    Raises:
        DataError: there is no such file, what `read_table` and `read_long` raise, or too few rows to split.
    """
    path = find_file(config.path, ctx.checked_root(), "CSV or Parquet table")
    read = read_long(read_table(path), config)
    return dataset_of(read, config, f"timeseries.long:{config.path}", str(path))


def read_long(table: Table, config: LongConfig) -> Read:
    """Return the series of a long table, in the order in which they first appear.

    Raises:
        DataError: no column of series, times or values, a row that belongs to no series, a cell that is no number, a
            series without any value, rows that are not regular, or no frequency to be told.
    """
    import numpy as np

    what, columns = table.what, [str(column) for column in table.frame.columns]
    if config.id not in columns:
        raise DataError(
            f"{what} has no column {config.id!r} that says which series a row belongs to, but "
            f"{', '.join(columns[:8])}: name it with --data.id, or read a table of one column for each series with "
            "timeseries.csv"
        )
    if config.target not in columns:
        raise DataError(
            f"{what} has no column {config.target!r} to forecast, but {', '.join(columns[:8])}: name it with "
            "--data.target"
        )
    covariates = (*config.known, *config.past)
    demand_columns(covariates, columns, what)
    time = time_column(table, config.time)
    used = (config.id, time, config.target, *covariates)
    if len(set(used)) < len(used):
        raise DataError(
            f"{what}: a column is named twice among series, times, target and covariates: {', '.join(used)}"
        )
    ids = table.frame[config.id]
    if ids.isna().any():
        place = f"{table.word} {int(table.lines[int(np.argmax(ids.isna().to_numpy()))])}"
        raise DataError(
            f"{what}: {place} has no series in the column {config.id!r}: write it, or remove the row"
        )
    values = np.column_stack([numbers(table, one) for one in (config.target, *covariates)])
    whole, local = rows_of_time(table, time, values, config)
    owner, names = _owners(ids)
    groups = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    held = [
        whole.taken(group).noted("", what=f"{what}, series {name}")
        for group, name in zip(groups, names, strict=True)
    ]
    if local:
        held = [in_zone(rows, str(config.timezone)) for rows in held]
    frequency = _common(held, config)
    series: list[Series] = []
    notes: list[str] = []
    for name, rows in zip(names, held, strict=True):
        if not np.isfinite(rows.values[:, 0]).any():
            raise DataError(f"{what}: the series {name} has no value at all: remove its rows")
        found, _ = regular_rows(rows, config, frequency)
        notes += [f"{name}: {note}" for note in found.notes]
        series.append(
            Series(
                name,
                np.ascontiguousarray(found.values[:, :1]),
                (config.target,),
                None if found.counted else ascending(found.times),
                covariates={one: found.values[:, 1 + at] for at, one in enumerate(covariates)},
            )
        )
    alias, period = season(asked(config) if whole.counted else frequency, config, what, whole.counted)
    rest = [one for one in columns if one not in used]
    if rest:
        notes.append(f"columns left out: {', '.join(rest[:8])}" + (" ..." if len(rest) > 8 else ""))
    if len(notes) > 8:
        notes = [*notes[:7], f"and {len(notes) - 7} more such notes"]
    return Read(tuple(series), alias, period, (*table.notes, *notes, *constant_note(series)))


def _owners(ids: object) -> tuple[Indices, list[str]]:
    """Number of the series of each row, and the names of the series in the order of their first rows."""
    import numpy as np
    import pandas as pd

    codes, found = pd.factorize(pd.Series(ids), sort=False)
    return np.asarray(codes, dtype=np.int64), [str(name) for name in found]


def _common(held: list[Rows], config: LongConfig) -> Frequency:
    """The frequency of all series: the given one, or that of the longest."""
    import numpy as np

    longest = max(held, key=lambda rows: len(rows.times))
    if longest.counted:
        return counting_step(longest.times)
    return asked(config) or infer_frequency(np.unique(longest.times), longest.what)
