"""The M4 competition: 100,000 univariate series in six groups, each with a horizon of its own.

S. Makridakis, E. Spiliotis, V. Assimakopoulos, "The M4 Competition: 100,000 time series and 61 forecasting methods",
International Journal of Forecasting 36 (2020). Read from the competition's own CSVs (``Yearly-train.csv``: a header,
then a name and the values of one series on each line, and ``Yearly-test.csv`` the same with the values to forecast),
or from the file of the Monash archive, which holds the two joined.

Test is what the competition asks for, val the same number of values before. The season is the competition's: 1 for
weeks and days.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.data.files import lines_of, reading
from peftx.errors import DataError, near_matches
from peftx_timeseries.config.data import M4Config
from peftx_timeseries.data.borders import at_horizon, cut
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.tables import constant_note
from peftx_timeseries.data.tsf import read_tsf, series_of
from peftx_timeseries.series.frequency import parse_frequency
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["GROUPS", "Group", "load", "locate"]

_SOURCE = "https://github.com/Mcompetitions/M4-methods"
#: Folders below a data root, beside the root itself.
_PLACES = ("m4", "M4", "M4-methods", "timeseries/m4", "")
_HALVES = {"train": ("", "Train", "Dataset/Train"), "test": ("", "Test", "Dataset/Test")}
_MONASH = ("monash", "timeseries/monash", "")


@dataclass(frozen=True, slots=True)
class Group:
    """One of the six: `series`: how many; `horizon`: values to forecast; `period`: rows of a season."""

    series: int
    horizon: int
    period: int
    frequency: str


#: The groups by name.
GROUPS: Mapping[str, Group] = {
    "yearly": Group(23_000, 6, 1, "YS"),
    "quarterly": Group(24_000, 8, 4, "QS"),
    "monthly": Group(48_000, 18, 12, "MS"),
    "weekly": Group(359, 13, 1, "W"),
    "daily": Group(4_227, 14, 1, "D"),
    "hourly": Group(414, 48, 24, "h"),
}


def locate(config: M4Config, ctx: DataContext) -> None:
    """Find the files of the group.

    Raises:
        DataError: there is no such group, or they are not there.
    """
    _find(config.path, ctx)


def load(config: M4Config, ctx: DataContext) -> Dataset:
    """Return the group; its series come without times.

    Raises:
        DataError: a file is damaged, the two do not fit together, and what `locate` raises.
    """
    found = _find(config.path, ctx)
    group = GROUPS[config.path]
    series = tuple(_joined(*found, group.horizon)) if len(found) == 2 else _monash(found[0])
    borders = {len(one.values): at_horizon(len(one.values), group.horizon) for one in series}
    said = f"test is the {group.horizon} values of the competition, val the {group.horizon} before"
    parts = cut(series, borders, config, config.too_short, group.horizon, said)
    name = f"timeseries.m4:{config.path}"
    published = Published({split: group.series for split in parts.splits}, source=_SOURCE)
    return make_dataset(
        name,
        parts.splits,
        frequency=group.frequency,
        period=config.period or group.period,
        source=_SOURCE,
        licence="none stated",
        note="; ".join(
            (*parts.notes, f"from {', '.join(path.name for path in found)}", *constant_note(series))
        ),
        verified=False,
        published=published,
        copy=compare_copy(
            published, {split: len(held) for split, held in parts.splits.items()}, None, unit="series"
        ),
        horizon=group.horizon,
        scaler=parts.scaler,
    )


def _find(name: str, ctx: DataContext) -> tuple[Path, ...]:
    """The two CSVs, or the one file of the Monash archive."""
    if name not in GROUPS:
        hint = near_matches(name, GROUPS) or f" Groups are {', '.join(GROUPS)}."
        raise DataError(f"M4 has no group {name!r}.{hint}")
    root = ctx.checked_root()
    bases = ([root / place for place in _PLACES] if root else []) + [ctx.cache / "timeseries.m4"]
    for base in bases:
        pair = [
            next((base / part / file for part in parts if (base / part / file).is_file()), None)
            for file, parts in ((f"{name.title()}-{half}.csv", _HALVES[half]) for half in _HALVES)
        ]
        if pair[0] and pair[1]:
            return pair[0], pair[1]
        if pair[0] or pair[1]:
            there, lacks = ("train", "test") if pair[0] else ("test", "train")
            raise DataError(
                f"{base} has {name.title()}-{there}.csv and no {name.title()}-{lacks}.csv: get it from {_SOURCE}, "
                "folder Dataset, and put it beside"
            )
    for place in _MONASH if root else ():
        for ending in (".tsf", ".tsf.gz", ".zip"):
            path = Path(str(root)) / place / f"m4_{name}_dataset{ending}"
            if path.is_file():
                return (path,)
    raise DataError(
        f"timeseries.m4:{name}: {name.title()}-train.csv and {name.title()}-test.csv are not there and are brought by "
        f"hand: get them from {_SOURCE}, folder Dataset, and put them at {bases[0]}"
        + ("" if root else ", or in the folder m4 of a --data-root")
    )


def _joined(train: Path, test: Path, horizon: int) -> Iterator[Series]:
    """Series of the two CSVs, joined by name."""
    import numpy as np

    ahead = dict(_lines(test))
    for name, values in _lines(train):
        future = ahead.pop(name, None)
        if future is None:
            raise DataError(
                f"{train.name} has the series {name}, and {test.name} does not: they do not belong together"
            )
        if len(future) != horizon:
            raise DataError(
                f"{test.name}: the series {name} has {len(future)} values, but the competition asks for {horizon}"
            )
        yield Series(name, np.concatenate([values, future])[:, None], ("value",))
    if ahead:
        raise DataError(f"{test.name} has the series {next(iter(ahead))}, and {train.name} does not")


def _lines(path: Path) -> Iterator[tuple[str, Values]]:
    """Name and values of each line behind the header; what follows the last value is left empty in these files."""
    import numpy as np

    seen: set[str] = set()
    with reading(path), lines_of(path) as lines:
        rows = csv.reader(line.decode("utf-8", "replace") for line in lines)
        for number, row in enumerate(_parsed(rows, path), 1):
            if number == 1 or not row:
                continue
            name, cells = row[0], row[1:]
            while cells and cells[-1].strip() in ("", "NA"):
                cells.pop()
            if name in seen or not name or not cells:
                raise DataError(
                    f"{path.name}: line {number} has the series {name!r} twice, no name, or no values"
                )
            seen.add(name)
            try:
                values = np.array(
                    [float(cell) if cell.strip() not in ("", "NA") else np.nan for cell in cells]
                )
            except ValueError as error:
                raise DataError(f"{path.name}: line {number}, series {name}: {error}") from None
            yield name, values
    if not seen:
        raise DataError(f"{path} holds no series")


def _parsed(rows: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise DataError(
            f"{path.name} is no table that can be read ({error}): get it again from {_SOURCE}"
        ) from None


def _monash(path: Path) -> tuple[Series, ...]:
    header, series = read_tsf(path)
    frequency = parse_frequency(header.frequency) if header.frequency else None
    return series_of(header, series, frequency, path.name)
