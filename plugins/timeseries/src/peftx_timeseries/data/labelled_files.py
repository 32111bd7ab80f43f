"""The files of labelled sets, layout by layout.

    csv        train.csv, test.csv, test_label.csv, as PSM: a column of times, which is left out, then the channels;
               labels are the last column of the third file
    npy        NAME_train.npy (T, M), NAME_test.npy (T', M), NAME_test_label.npy (T',), as MSL, SMAP and SMD in TSLib
    swat       swat_train2.csv, swat2.csv, as SWaT in TSLib: channels, and labels as the last column
    machines   train/X.txt, test/X.txt, test_label/X.txt, as SMD by its authors: rows of numbers with commas, no header;
               a series for each file

Labels are 0 or 1 (true and false, ``Normal`` and ``Attack`` in tables). Arrays are read without pickle.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.files import lines_of, reading
from peftx.errors import DataError
from peftx_timeseries.data.reading import Table, read_table
from peftx_timeseries.data.tables import numbers
from peftx_timeseries.data.values import wild

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Labels = NDArray[np.int8]

__all__ = ["LAYOUTS", "Pair", "filled", "is_time", "layout_of", "read_pairs"]

#: What each layout is, for errors and notes.
LAYOUTS = {
    "csv": "train.csv, test.csv and test_label.csv",
    "npy": "NAME_train.npy, NAME_test.npy and NAME_test_label.npy",
    "swat": "swat_train2.csv and swat2.csv",
    "machines": "train/*.txt, test/*.txt and test_label/*.txt",
}
_TIME = re.compile(r"(timestamp|datetime|date|time|ds|index)(?![a-z0-9])", re.IGNORECASE)
_WORDS = {"normal": 0, "attack": 1, "false": 0, "true": 1, "anomaly": 1, "anomalous": 1}


@dataclass(frozen=True, slots=True)
class Pair:
    """Normal rows (T, M), test rows (T', M) and their labels (T',) of one series."""

    name: str
    channels: tuple[str, ...]
    train: Values
    test: Values
    labels: Labels


def layout_of(folder: Path, asked: str | None) -> str:
    """The layout of a folder.

    Raises:
        DataError: it is in none of them, in several and none was asked for, or lacks files of the one asked for.
    """
    arrays = sorted(path.name.removesuffix("_train.npy") for path in folder.glob("*_train.npy"))
    there = {
        "csv": [
            name for name in ("train.csv", "test.csv", "test_label.csv") if not (folder / name).is_file()
        ],
        "npy": [
            f"{name}_{end}.npy"
            for name in arrays or ["NAME"]
            for end in ("train", "test", "test_label")
            if not (folder / f"{name}_{end}.npy").is_file()
        ],
        "swat": [name for name in ("swat_train2.csv", "swat2.csv") if not (folder / name).is_file()],
        "machines": [
            f"{name}/*.txt"
            for name in ("train", "test", "test_label")
            if not any((folder / name).glob("*.txt"))
        ],
    }
    if asked is not None:
        if there[asked]:
            raise DataError(
                f"{folder} lacks {', '.join(there[asked])}: the layout {asked} is {LAYOUTS[asked]}"
            )
        return asked
    found = [layout for layout, lacking in there.items() if not lacking]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{folder} has the files of several layouts ({', '.join(found)}): choose one with --data.layout"
        )
    whole = {"csv": 3, "npy": 3 * max(len(arrays), 1), "swat": 2, "machines": 3}
    begun = [layout for layout, lacking in there.items() if len(lacking) < whole[layout]]
    if begun:
        near = min(begun, key=lambda layout: len(there[layout]))
        raise DataError(f"{folder} lacks {', '.join(there[near])}: expected {LAYOUTS[near]}")
    raise DataError(
        f"{folder} is in none of the layouts of labelled series: " + "; or ".join(LAYOUTS.values())
    )


def read_pairs(folder: Path, layout: str, *, zero: bool) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Return the series of a folder and what was done, as clauses. Missing values become 0, or the last value before.

    Raises:
        DataError: a file is damaged, files do not fit each other, or a label is neither 0 nor 1.
    """
    pairs = {"csv": _csv, "npy": _npy, "swat": _swat, "machines": _machines}[layout](folder)
    done: list[Pair] = []
    gaps = 0
    for pair in pairs:
        _fits(pair)
        train, first = filled(pair.train, pair.channels, pair.name, "training", zero=zero)
        test, second = filled(pair.test, pair.channels, pair.name, "test", zero=zero)
        gaps += first + second
        done.append(Pair(pair.name, pair.channels, train, test, pair.labels))
    how = "0" if zero else "the last value before"
    return tuple(done), ((f"{gaps:,} missing values became {how}",) if gaps else ())


def _fits(pair: Pair) -> None:
    if pair.train.shape[1] != pair.test.shape[1]:
        raise DataError(
            f"{pair.name} has {pair.train.shape[1]} channels to train on and {pair.test.shape[1]} to test on: "
            "both need the same"
        )
    if len(pair.labels) != len(pair.test):
        raise DataError(
            f"{pair.name} has {len(pair.test):,} test rows and {len(pair.labels):,} labels: each row needs one"
        )


def filled(
    values: Values, channels: tuple[str, ...], name: str, what: str, *, zero: bool = False
) -> tuple[Values, int]:
    """Values (T, M) with each missing one replaced by the last one before it (the first one after it, at the start), or
    by 0; and how many there were.

    Raises:
        DataError: a value is infinite or too large (`peftx_timeseries.data.values`), or a channel has none at all.
    """
    import numpy as np

    odd = wild(values)
    if odd.any():
        row, channel = np.argwhere(odd)[0]
        raise DataError(
            f"{name}: {what} row {row + 1} of {channels[channel]!r} is {values[row, channel]:g}, too large for a "
            "measurement: correct it"
        )
    gone = np.isnan(values)
    if not gone.any():
        return values, 0
    if gone.all(0).any():
        channel = channels[int(np.argmax(gone.all(0)))]
        raise DataError(f"{name}: no {what} row of {channel!r} has a value: leave the channel out")
    if zero:
        return np.where(gone, 0.0, values), int(gone.sum())
    place = np.maximum.accumulate(np.where(gone, -1, np.arange(len(values))[:, None]), axis=0)
    place = np.where(place < 0, np.argmin(gone, axis=0), place)
    return np.take_along_axis(values, place, 0), int(gone.sum())


def is_time(column: str) -> bool:
    """Whether a column is called as columns of times are: timestamp, ``timestamp_(min)``, date, time."""
    return bool(_TIME.match(column.strip("_ ")))


# --- tables ---------------------------------------------------------------------------------------------------


def _csv(folder: Path) -> list[Pair]:
    train, channels = _channels(read_table(folder / "train.csv"))
    test, other = _channels(read_table(folder / "test.csv"))
    if channels != other:
        odd = next((one for one in (*other, *channels) if (one in channels) != (one in other)), other[0])
        raise DataError(
            f"{folder}: train.csv and test.csv have other columns, or another order of them (such as {odd!r}): both "
            "need the same"
        )
    table = read_table(folder / "test_label.csv")
    labels = _labels(table, str(table.frame.columns[-1]))
    return [Pair(folder.name, channels, train, test, labels)]


def _channels(table: Table) -> tuple[Values, tuple[str, ...]]:
    import numpy as np

    columns = [str(column) for column in table.frame.columns]
    # a first column without a name, which counts the rows, is gone already
    if not table.notes:
        if not is_time(columns[0]):
            raise DataError(
                f"{table.what}: the first column has to be the time of a row and is called {columns[0]!r}: add a "
                "column timestamp in front of the channels, or rename it"
            )
        columns = columns[1:]
    if not columns:
        raise DataError(f"{table.what} has no channel beside its times")
    return np.column_stack([numbers(table, one) for one in columns]), tuple(columns)


def _labels(table: Table, column: str) -> Labels:
    import numpy as np
    import pandas as pd

    held = table.frame[column]
    if pd.api.types.is_numeric_dtype(held.dtype) or pd.api.types.is_bool_dtype(held.dtype):
        found = held.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        words = held.astype(str).str.strip().str.lower()
        found = words.map(_WORDS).fillna(pd.to_numeric(words, errors="coerce")).to_numpy(dtype=np.float64)
    wrong = ~np.isin(found, (0.0, 1.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{table.what}: {table.word} {int(table.lines[row])} has {str(held.iloc[row])[:40]!r} as its label in the "
            f"column {column!r}, and a label is 0 or 1"
        )
    return found.astype(np.int8)


def _swat(folder: Path) -> list[Pair]:
    import numpy as np

    train, test = read_table(folder / "swat_train2.csv"), read_table(folder / "swat2.csv")
    columns = [[str(column) for column in table.frame.columns] for table in (train, test)]
    for table, own in zip((train, test), columns, strict=True):
        if len(own) < 2:
            raise DataError(f"{table.what} has one column, and needs channels and, as the last, labels")
    first, second = ([name.strip() for name in own[:-1]] for own in columns)
    if first != second and sorted(first) == sorted(second):
        odd = next(name for name, other in zip(second, first, strict=True) if name != other)
        raise DataError(
            f"{test.what} has the columns of {train.what} in another order (such as {odd!r}): both need the same"
        )
    normal = _labels(train, columns[0][-1])
    if normal.any():
        raise DataError(
            f"{train.what}: {train.word} {int(train.lines[int(np.argmax(normal))])} is labelled as anomalous, and "
            "training rows have to be normal: take it out"
        )
    rows = [
        np.column_stack([numbers(table, one) for one in own[:-1]])
        for table, own in zip((train, test), columns, strict=True)
    ]
    return [Pair(folder.name, tuple(columns[0][:-1]), rows[0], rows[1], _labels(test, columns[1][-1]))]


# --- arrays and text ------------------------------------------------------------------------------------------


def _npy(folder: Path) -> list[Pair]:
    names = sorted(path.name.removesuffix("_train.npy") for path in folder.glob("*_train.npy"))
    found = []
    for name in names:
        train, test = (_matrix(folder / f"{name}_{end}.npy") for end in ("train", "test"))
        labels = _flags(_array(folder / f"{name}_test_label.npy"), f"{name}_test_label.npy")
        channels = tuple(f"c{number}" for number in range(1, train.shape[1] + 1))
        found.append(Pair(name, channels, train, test, labels))
    return found


def _array(path: Path) -> NDArray[np.generic]:
    import numpy as np

    with reading(path):
        try:
            # mapped: a header cannot ask for more memory than the file has bytes
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, EOFError):
            raise
        except Exception as error:  # a damaged header fails in whatever way its parser does
            cause = " ".join(str(error).split())[:120] or type(error).__name__
            raise DataError(
                f"{path} is no array that can be read ({cause}): it is damaged, or holds pickled objects, which are "
                "not loaded; save it as a plain array of numbers"
            ) from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise DataError(f"{path} holds no array of numbers")
    return found


def _matrix(path: Path) -> Values:
    import numpy as np

    found = _array(path)
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(f"{path} has the shape {found.shape}: rows by channels were expected")
    return found.astype(np.float64)


def _flags(found: NDArray[np.generic], what: str) -> Labels:
    import numpy as np

    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise DataError(f"{what} has the shape {found.shape}: one label for each row was expected")
    values = found.astype(np.float64)
    wrong = ~np.isin(values, (0.0, 1.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{what}: row {row + 1} is labelled {values[row]:g}, and a label is 0 or 1")
    return values.astype(np.int8)


def _machines(folder: Path) -> list[Pair]:
    names = {
        part: {path.stem for path in (folder / part).glob("*.txt")}
        for part in ("train", "test", "test_label")
    }
    every = set.union(*names.values())
    for part, own in names.items():
        if own != every:
            lost = min(every - own)
            raise DataError(
                f"{folder} has no {part}/{lost}.txt: each machine needs train, test and test_label"
            )
    found: list[Pair] = []
    for name in sorted(every, key=_by_number):
        train, test = (_text(folder / part / f"{name}.txt") for part in ("train", "test"))
        labels = _flags(_text(folder / "test_label" / f"{name}.txt"), f"test_label/{name}.txt")
        channels = tuple(f"c{number}" for number in range(1, train.shape[1] + 1))
        if found and channels != found[0].channels:
            raise DataError(
                f"{folder}: {name} has {len(channels)} channels and {found[0].name} {len(found[0].channels)}: all "
                "machines need the same"
            )
        found.append(Pair(name, channels, train, test, labels))
    return found


def _by_number(name: str) -> list[tuple[int, str]]:
    """Machines in the order of their numbers: 1-2 before 1-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _text(path: Path) -> Values:
    """Rows of numbers with commas."""
    import numpy as np

    rows: list[list[float]] = []
    with reading(path), lines_of(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append([float(cell) for cell in line.split(b",")])
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number} holds a cell that is no number: correct it"
                ) from error
            if len(rows[-1]) != len(rows[0]):
                raise DataError(
                    f"{path}: line {number} has {len(rows[-1])} cells, and the first has {len(rows[0])}: it is cut off"
                )
    if not rows:
        raise DataError(f"{path} is empty")
    return np.asarray(rows, dtype=np.float64)
