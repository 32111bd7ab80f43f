"""Tables as files have them: CSV in its many dialects, and Parquet; cells are looked at by whoever asks for them.

A CSV file is gone through once before it is parsed: that finds its separator, its decimal comma, its blank lines and
the first line with too many or too few cells, which a parser would fill up in silence.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.data.files import is_packed, lines_of, reading
from peftx.errors import DataError
from peftx_timeseries.data.times import looks_like_times

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]

__all__ = ["Table", "frame_table", "read_table"]

_SEPARATORS = (b",", b";", b"\t", b"|")
#: Cells that stand for a missing value.
_MISSING = ["", "?", "NaN", "nan", "NA", "N/A", "n/a", "NULL", "null", "None", "none", "<NA>", "#N/A", "#NA"]
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D|$)")
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Table:
    """A table and where its rows stand in their source.

    Args:
        what: the file's name, for errors.
        frame: columns as the parser understood them; names are text, each there once.
        lines: (T,) number of each row in the source.
        word: what that number counts: line or row.
        notes: what was left out, as clauses.
    """

    what: str
    frame: pd.DataFrame
    lines: Indices
    word: str = "line"
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> Table:
    """Return the table of a file: Parquet by its name, CSV otherwise.

    Raises:
        DataError: it is empty, damaged, or no such table.
    """
    return _parquet(path) if path.suffix.lower() in _PARQUET else _csv(path)


def frame_table(frame: pd.DataFrame | pd.Series, what: str) -> Table:
    """The table of a pandas frame, or of one series; an index that has a name or holds dates becomes a column.

    Raises:
        DataError: it is none, has no rows, or two columns of the same name.
    """
    import numpy as np
    import pandas as pd

    if not isinstance(frame, pd.DataFrame | pd.Series):
        raise DataError(f"{what} is a {type(frame).__name__}, but a pandas DataFrame or Series was expected")
    if isinstance(frame, pd.Series):
        frame = frame.to_frame("value" if frame.name is None else str(frame.name))
    # a table's index is its row numbers, or what people index series by
    if isinstance(frame.index, pd.DatetimeIndex | pd.MultiIndex) or frame.index.name is not None:
        if isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None:
            frame = frame.rename_axis("date")
        elif isinstance(frame.index, pd.PeriodIndex):
            frame = frame.set_axis(frame.index.to_timestamp())
        clash = [name for name in frame.index.names if name in frame.columns]
        frame = frame.reset_index(drop=bool(clash))
    elif isinstance(frame.index, pd.PeriodIndex):
        frame = frame.set_axis(frame.index.to_timestamp()).rename_axis("date").reset_index()
    elif looks_like_times(frame.index.to_series()):
        frame = frame.rename_axis("date").reset_index()
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    _check_names([str(name) for name in frame.columns], what)
    periods = [name for name in frame.columns if isinstance(frame[name].dtype, pd.PeriodDtype)]
    frame = frame.assign(**{name: frame[name].dt.to_timestamp() for name in periods})
    # columns of Arrow answer to fewer questions than those of numpy, and pandas cannot make numbers of its texts
    arrow = [name for name in frame.columns if _of_arrow(frame[name].dtype)]
    frame = frame.assign(**{name: frame[name].astype(object) for name in arrow})
    if not len(frame):
        raise DataError(f"{what} has no rows")
    return Table(what, frame.reset_index(drop=True), np.arange(1, len(frame) + 1), "row")


def _of_arrow(dtype: Any) -> bool:
    import pandas as pd

    if isinstance(dtype, pd.StringDtype):
        return dtype.storage == "pyarrow" and dtype.na_value is pd.NA
    return isinstance(dtype, pd.ArrowDtype) and not pd.api.types.is_numeric_dtype(dtype)


def _parquet(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow to be read: pip install 'peftx-timeseries[parquet]', or save it as CSV"
        ) from error
    with reading(path):
        try:
            frame = parquet.read_table(path).to_pandas()
        except (pyarrow.ArrowException, ValueError) as error:
            cause = " ".join(str(error).split())[:160]
            raise DataError(f"{path} is no Parquet file that can be read ({cause}): get it again") from error
    return frame_table(frame, path.name)


def _csv(path: Path) -> Table:
    import numpy as np
    import pandas as pd

    with reading(path):
        shape = _scan(path)
    # dtypes are the parser's; what it leaves as text holds a cell that is no number
    with reading(path):
        try:
            frame = pd.read_csv(
                path,
                sep=shape.separator.decode(),
                decimal="," if shape.comma else ".",
                encoding=shape.encoding,
                encoding_errors="replace",
                skip_blank_lines=True,
                skipinitialspace=True,
                na_values=_MISSING,
                keep_default_na=False,
                header=None,
                names=range(len(shape.names)),
                skiprows=shape.header,
                low_memory=False,
                compression="gzip" if is_packed(path) else None,
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, ValueError) as error:
            cause = " ".join(str(error).split())[:160]
            raise DataError(f"{path.name} is no table that can be read ({cause})") from error
    lines = shape.lines
    if len(lines) != len(frame):  # a line break inside quotes: rows and lines are no longer the same
        lines, word = np.arange(1, len(frame) + 1), "row"
    else:
        word = "line"
    names: list[str] = list(shape.names)
    notes: tuple[str, ...] = ()
    nameless = [at for at, name in enumerate(names) if not name]
    # what pandas writes as its index, when not told otherwise
    if nameless == [0] and len(names) > 1 and _counts_rows(frame[0]):
        frame, names = frame.drop(columns=[0]), names[1:]
        notes = ("a first column without a name, which counts the rows, left out",)
    elif nameless == [0] and len(names) > 1:
        names[0] = "date"
    elif nameless:
        raise DataError(f"{path.name}: column {nameless[0] + 1} has no name in the header: give it one")
    _check_names(names, path.name)
    return Table(path.name, frame.set_axis(names, axis=1), lines, word, notes)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a first look at a CSV file tells. `header`: lines up to and with the header; `lines`: numbers of the lines
    that hold rows."""

    names: tuple[str, ...]
    separator: bytes
    comma: bool
    encoding: str
    header: int
    lines: Indices


def _scan(path: Path) -> _Shape:
    import csv

    import numpy as np

    names: tuple[str, ...] = ()
    separator, encoding, comma, header = b",", "utf-8-sig", False, 0
    lines: list[int] = []
    with lines_of(path) as found:
        for number, raw in enumerate(found, 1):
            line = raw.rstrip(b"\r\n")
            if number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{path.name} is encoded as UTF-16: save it as UTF-8")
                line = line.removeprefix(b"\xef\xbb\xbf")
            if b"\0" in line:
                raise DataError(f"{path.name}: line {number} holds null bytes: it is damaged, or no CSV file")
            if encoding != "latin-1" and not _utf8(line):
                encoding = "latin-1"
            if not line.strip(b" "):
                continue
            if not names:
                separator = max(_SEPARATORS, key=line.count)
                text = line.decode("utf-8" if _utf8(line) else "latin-1")
                try:
                    cells = next(csv.reader([text], delimiter=separator.decode()))
                except csv.Error as error:
                    raise DataError(
                        f"{path.name}: line {number} is no header ({error}): it is damaged"
                    ) from None
                names = tuple(name.strip() for name in cells)
                header = number
                continue
            count = line.count(separator) + 1
            if b'"' not in line and count != len(names):
                raise DataError(
                    f"{path.name}: line {number} has {count} cell{'s' * (count > 1)}, but the header has "
                    f"{len(names)}: it is cut off, or its cells are separated in another way"
                )
            comma = comma or (separator == b";" and b"," in line)
            lines.append(number)
    if not names:
        raise DataError(f"{path.name} is empty")
    if all(_number(name) or _DATE.match(name) for name in names):
        raise DataError(
            f"{path.name} has no header: its first line holds dates and numbers alone; write the names of the columns "
            "there"
        )
    if not lines:
        raise DataError(f"{path.name} has a header and no rows")
    return _Shape(names, separator, comma, encoding, header, np.asarray(lines, dtype=np.int64))


def _utf8(line: bytes) -> bool:
    if line.isascii():
        return True
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _counts_rows(column: pd.Series) -> bool:
    import numpy as np
    import pandas as pd

    if not pd.api.types.is_integer_dtype(column.dtype):
        return False
    return bool((column.to_numpy() - int(column.iloc[0]) == np.arange(len(column))).all())


def _check_names(names: list[str], what: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{what} has two columns called {twice!r}: rename or remove one")
