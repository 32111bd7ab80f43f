"""A pandas frame in Python as a data set: the same options, checks and splits as a file.

from_frame(frame, known=("holiday",))                   # an index of times, or a column called date
from_long(frame, horizon=24, too_short="drop")          # unique_id, ds, y
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from peftx.data.contract import Dataset
from peftx.errors import ConfigError
from peftx_timeseries.config.data import CsvConfig, LongConfig
from peftx_timeseries.data.long import read_long
from peftx_timeseries.data.reading import frame_table
from peftx_timeseries.data.tables import dataset_of, read_wide

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_frame", "from_long"]


def from_frame(frame: pd.DataFrame | pd.Series, *, name: str = "frame", **options: Any) -> Dataset:
    """Return the data set of a wide frame, one row for each time and one column for each channel, or of one series.

    Times are its DatetimeIndex or PeriodIndex, or a column as in a file. `options`: those of `CsvConfig`, without
    `path`. Rows in errors are counted from 1.

    Raises:
        ConfigError: there is no such option, or it refuses a value.
        DataError: what `read_wide` raises, or too few rows to split.
    """
    config = _config(CsvConfig, name, options)
    return dataset_of(
        read_wide(frame_table(frame, name), config), config, f"timeseries.csv:{name}", "a pandas frame"
    )


def from_long(frame: pd.DataFrame, *, name: str = "frame", **options: Any) -> Dataset:
    """Return the data set of a long frame: ``unique_id, ds, y``, also with the series as its index.

    `options`: those of `LongConfig`, without `path`.

    Raises:
        ConfigError: there is no such option, or it refuses a value.
        DataError: what `read_long` raises, or too few rows to split.
    """
    config = _config(LongConfig, name, options)
    return dataset_of(
        read_long(frame_table(frame, name), config), config, f"timeseries.long:{name}", "a pandas frame"
    )


def _config(schema: Any, name: str, options: dict[str, Any]) -> Any:
    from peftx.config.errors import problems

    if "path" in options:
        raise ConfigError("path: a frame has none; name= says what it is called")
    try:
        return schema(path=Path(name), **options)
    except ValidationError as error:
        known = [field for field in schema.model_fields if field != "path"]
        spelled = {option: option for option in options}
        raise ConfigError("\n".join(problems(error, spelled=spelled, known=known))) from None
