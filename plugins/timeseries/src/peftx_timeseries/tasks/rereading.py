"""A new table for a run that is done, read as the run's own was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from peftx.errors import DataError
from peftx_timeseries.config.data import CsvConfig, LongConfig
from peftx_timeseries.config.predict import ForecastConfig
from peftx_timeseries.data.long import read_long
from peftx_timeseries.data.reading import read_table
from peftx_timeseries.data.tables import Read, read_wide
from peftx_timeseries.data.tsf import read_tsf, series_of
from peftx_timeseries.series.frequency import parse_frequency
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    from peftx_timeseries.tasks.forecasting import Forecasting

__all__ = ["SUFFIXES", "read_new"]

#: Endings of files of the Monash archive, and of all files that hold series.
_TSF = (".tsf", ".tsf.gz")
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".pq", *_TSF)


def read_new(task: Forecasting, path: Path, asked: ForecastConfig) -> tuple[Read, list[str]]:
    """Return what a new file holds, and what a reader must know of how it was read.

    The options are those of the run's own table, as far as its data set was one, unless others are asked for. A long
    table is one that has the columns of series and target, any other is wide, and of its columns those are looked at
    that the run was trained on. Files of the Monash archive say how they are to be read.

    Raises:
        DataError: what `read_table`, `read_wide`, `read_long` and `read_tsf` raise, or the rows are of another
            frequency.
    """
    card = task.data.card
    if path.name.lower().endswith((*_TSF, ".zip")):  # a folder may hold others that are packed
        read = _archive(path, card, asked)
    else:
        read = _table(task, path, asked)
    frequency = str(card.get("frequency", ""))
    if frequency and read.frequency and not _same_step(frequency, read.frequency):
        raise DataError(
            f"{path.name} has a row every {read.frequency}, and the run was trained on rows every {frequency}: give a "
            "table of that frequency"
        )
    notes = list(read.notes)
    if frequency and not read.frequency:
        notes.append(f"the rows have no times, and are taken to be those of the run, every {frequency}")
    zone = asked.data.timezone or dict(card.get("reading") or {}).get("timezone")
    if zone and any(_has_clock(one) for one in read.series):
        notes.append(f"times are UTC; those of the file are local times of {zone}, or have their own offset")
    return read, notes


def _has_clock(one: Series) -> bool:
    """Whether its times have several times of day: rows that share one are days, which no zone moves."""
    return one.times is not None and len(set(one.times - one.times.astype("datetime64[D]"))) > 1


def _archive(path: Path, card: Mapping[str, Any], asked: ForecastConfig) -> Read:
    """The series of a file of the Monash archive, one channel each; of the run's frequency where it says none."""
    header, series = read_tsf(path)
    given = asked.data.frequency or header.frequency or str(card.get("frequency", ""))
    frequency = parse_frequency(given) if given else None
    found = series_of(header, series, frequency, path.name)
    return Read(found, frequency.alias if frequency else "", int(card.get("period", 1)), ())


def _table(task: Forecasting, path: Path, asked: ForecastConfig) -> Read:
    card = task.data.card
    table = read_table(path)
    columns = [str(column) for column in table.frame.columns]
    options = _options(card, asked)
    covariates = {
        kind: tuple(name for name in card.get(kind, ()) if name in columns) for kind in ("known", "past")
    }
    ids, target = options.pop("id", "unique_id"), options.pop("target", "y")
    if {ids, target} <= set(columns):
        return read_long(table, LongConfig(path=path, id=ids, target=target, **options, **covariates))
    return _wide(task, path, table, columns, options, covariates)


def _wide(
    task: Forecasting,
    path: Path,
    table: Any,
    columns: list[str],
    options: Mapping[str, Any],
    covariates: Mapping[str, Any],
) -> Read:
    trained = tuple(task.data.card.get("channels", ()))
    absent = [name for name in trained if name not in columns]
    if absent:
        raise DataError(
            f"{path.name} has no column {absent[0]!r}, and the run was trained on {_few(trained)}: give a table with "
            f"those columns (it has {_few(columns)})"
        )
    return read_wide(table, CsvConfig(path=path, channels=trained, **options, **covariates))


def _options(card: Mapping[str, Any], asked: ForecastConfig) -> dict[str, Any]:
    """Options of reading: the run's, and over them those that are asked for.

    A frequency that nobody gave is told from the new rows, so that another one is seen.
    """
    known = ("time", "time_format", "timezone", "frequency", "regular", "duplicates", "id", "target")
    stored = card.get("reading")
    kept = {key: stored[key] for key in known if stored.get(key)} if isinstance(stored, Mapping) else {}
    given = {key: value for key, value in asked.data.model_dump().items() if value is not None}
    options = {**kept, **given}
    # a season is the run's whatever the rows say
    options["period"] = int(card.get("period", 1))
    try:
        LongConfig(path=Path("x"), **options)
    except (ValidationError, TypeError):  # a record that somebody edited
        return {**given, "period": options["period"]}
    return options


def _same_step(one: str, other: str) -> bool:
    """Whether two frequencies have the same step, wherever their weeks and years begin."""
    first, second = parse_frequency(one), parse_frequency(other)
    return (first.unit, first.count) == (second.unit, second.count)


def _few(names: Any) -> str:
    return ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")
