"""Files of the Monash forecasting archive, ``.tsf``: a header of ``@`` lines, then one series on each line.

    @relation M3                                        R. Godahewa et al., "Monash Time Series Forecasting Archive",
    @attribute series_name string                       arXiv:2105.06643
    @attribute start_timestamp date
    @frequency monthly
    @horizon 18
    @data
    T1:1990-01-01 00-00-00:2640,2640,?,4200

Lines are read as they come, so that a file need not fit in memory twice; ``?`` is a missing value; text is UTF-8, or
else Latin-1. A file holds train and test together: the last `@horizon` values of each series are its test part.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset
from peftx.data.files import bounded_lines, find_file, lines_of, reading
from peftx.errors import DataError
from peftx_timeseries.config.data import TsfConfig
from peftx_timeseries.data.borders import divide
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.tables import constant_note, season
from peftx_timeseries.data.values import what_is_wild, wild
from peftx_timeseries.series.frequency import Frequency, parse_frequency
from peftx_timeseries.series.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["TsfHeader", "TsfSeries", "header_notes", "load", "locate", "parse_tsf", "read_tsf", "series_of"]

_KINDS = ("string", "numeric", "date")


@dataclass(frozen=True, slots=True)
class TsfHeader:
    """What the ``@`` lines say. `attributes`: type of each attribute of a series, in order; the rest is empty or None
    where the file does not say."""

    relation: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    frequency: str = ""
    horizon: int | None = None
    missing: bool | None = None
    equal_length: bool | None = None


@dataclass(frozen=True, slots=True)
class TsfSeries:
    """One line: values of its attributes by name (text, float or datetime; None for ``?``), and its values (T,)."""

    attributes: Mapping[str, str | float | datetime | None]
    values: Values
    line: int


def locate(config: TsfConfig, ctx: DataContext) -> None:
    """Make sure that the file is there; DataError otherwise."""
    find_file(config.path, ctx.checked_root(), ".tsf file")


def load(config: TsfConfig, ctx: DataContext) -> Dataset:
    """Return the data set of a .tsf file, split at its horizon unless the options say otherwise.

    Raises:
        DataError: there is no such file, it is damaged, nothing says its frequency, or series are too short to split.
    """
    path = find_file(config.path, ctx.checked_root(), ".tsf file")
    header, series = read_tsf(path)
    given = config.frequency or header.frequency
    frequency = parse_frequency(given) if given else None
    made = series_of(header, series, frequency, path.name)
    alias, period = season(frequency, config, path.name)
    parts = divide(made, config, header.horizon)
    return make_dataset(
        f"timeseries.tsf:{config.path}",
        parts.splits,
        frequency=alias,
        period=period,
        source=str(path),
        licence="CC BY 4.0 for files of the Monash archive, by its authors' word",
        note="; ".join((*parts.notes, *header_notes(header, made), *constant_note(made))),
        horizon=parts.horizon,
        scaler=parts.scaler,
    )


def read_tsf(path: Path) -> tuple[TsfHeader, list[TsfSeries]]:
    """Return header and series of a file: .tsf, .tsf.gz, or .zip with one .tsf inside.

    Raises:
        DataError: it is damaged; the sentence names the line.
    """
    with reading(path), _lines(path) as lines:
        header, series = parse_tsf(lines, path.name)
        return header, list(series)


def parse_tsf(lines: Iterable[bytes], what: str) -> tuple[TsfHeader, Iterator[TsfSeries]]:
    """Return the header of a file, and an iterator that parses a series each time it is asked for one.

    Raises:
        DataError: the file is damaged; by the iterator where a series is.
    """
    numbered = _text(lines, what)
    header = _header(numbered, what)
    return header, _series(numbered, header, what)


def series_of(
    header: TsfHeader, series: Iterable[TsfSeries], frequency: Frequency | None, what: str
) -> tuple[Series, ...]:
    """The series in memory: one channel, called value; times from the start and the frequency where both are known.

    Raises:
        DataError: a series has no value at all, or begins on another day or in another month than the frequency
            states; there is none.
    """
    import numpy as np

    made: list[Series] = []
    seen: set[str] = set()
    for one in series:
        if not np.isfinite(one.values).any():
            raise DataError(f"{what}: the series on line {one.line} has no value at all: remove it")
        name = _name(one, header)
        if name in seen:
            name = f"{name} (line {one.line})"
        seen.add(name)
        start = next((value for value in one.attributes.values() if isinstance(value, datetime)), None)
        times = None
        if start is not None and frequency is not None:
            first = np.datetime64(start, "s")
            if not frequency.keeps(np.array([first]))[0]:
                alone = replace(frequency, anchor="", end=False).alias
                raise DataError(
                    f"{what}: the series on line {one.line} begins at {start:%Y-%m-%d}, but the given frequency "
                    f"{frequency.alias} wants rows {frequency.place}: give --data.frequency {alone}, which takes the "
                    "day and month of each first row"
                )
            times = frequency.times(first, np.arange(len(one.values)))
        made.append(Series(name, one.values[:, None], ("value",), times))
    if not made:
        raise DataError(f"{what} has no series after @data")
    return tuple(made)


def header_notes(header: TsfHeader, series: Sequence[Series]) -> tuple[str, ...]:
    """Clauses for a card: what the file calls itself, and where its values are not what its header says of them."""
    import numpy as np

    notes = [f"{header.relation} by its header"] if header.relation else []
    missing = sum(int(np.isnan(one.values).sum()) for one in series)
    if header.missing is False and missing:
        notes.append(
            f"the header says that no value is missing, but {missing:,} {'is' if missing == 1 else 'are'}"
        )
    lengths = [len(one.values) for one in series]
    if header.equal_length and min(lengths) != max(lengths):
        notes.append(
            f"the header says that all series are equally long, but they have {min(lengths):,} to {max(lengths):,} rows"
        )
    return tuple(notes)


def _name(one: TsfSeries, header: TsfHeader) -> str:
    named = one.attributes.get("series_name")
    if isinstance(named, str):
        return named
    parts = [str(value) for name, value in one.attributes.items() if header.attributes[name] == "string"]
    return " ".join(parts) or f"T{one.line}"


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[bytes]]:
    if path.suffix.lower() != ".zip":
        with lines_of(path) as lines:
            yield lines
        return
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.lower().endswith(".tsf")]
            if len(inside) != 1:
                raise DataError(f"{path} holds {len(inside)} .tsf files, expected one: give the file itself")
            with archive.open(inside[0]) as member:
                yield bounded_lines(member, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise DataError(
            f"cannot read {path} ({cause}): it is damaged; get it again from its source"
        ) from error


def _text(lines: Iterable[bytes], what: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    for number, raw in enumerate(lines, 1):
        if b"\0" in raw:
            raise DataError(f"{what}: line {number} holds null bytes: it is damaged, or no .tsf file")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")  # the M3 files of the archive
        text = text.strip()
        if text and not text.startswith("#"):
            yield number, text


def _header(lines: Iterator[tuple[int, str]], what: str) -> TsfHeader:
    found: dict[str, str] = {}
    attributes: dict[str, str] = {}
    for number, line in lines:
        if not line.startswith("@"):
            raise DataError(
                f"{what}: line {number} stands before @data and does not begin with @: it is no .tsf file, or its "
                "header is damaged"
            )
        key, *words = line[1:].split() or [""]
        key = key.lower()
        if key == "data":
            if not attributes:
                raise DataError(
                    f"{what} declares no @attribute before @data (line {number}): its header is damaged"
                )
            return TsfHeader(
                relation=found.get("relation", ""),
                attributes=attributes,
                frequency=found.get("frequency", ""),
                horizon=_whole(found, what),
                missing=_truth(found, "missing", what),
                equal_length=_truth(found, "equallength", what),
            )
        if key == "attribute":
            if len(words) != 2 or words[1].lower() not in _KINDS:
                raise DataError(
                    f"{what}: line {number} is {line[:60]!r}, expected @attribute NAME and one of {', '.join(_KINDS)}"
                )
            attributes[words[0]] = words[1].lower()
        elif key in ("relation", "frequency", "horizon", "missing", "equallength"):
            if key != "relation" and len(words) != 1:
                raise DataError(f"{what}: line {number} is {line[:60]!r}, expected @{key} and one word")
            found[key] = " ".join(words)
        else:
            raise DataError(f"{what}: line {number} has the unknown tag @{key[:40]}")
    raise DataError(f"{what} has no @data line: it is cut off, or no .tsf file")


def _whole(found: Mapping[str, str], what: str) -> int | None:
    if "horizon" not in found:
        return None
    if not found["horizon"].isdigit() or int(found["horizon"]) < 1:
        raise DataError(f"{what}: @horizon is {found['horizon'][:40]!r}, expected a whole number from 1 on")
    return int(found["horizon"])


def _truth(found: Mapping[str, str], key: str, what: str) -> bool | None:
    if key not in found:
        return None
    if found[key].lower() not in ("true", "false"):
        raise DataError(f"{what}: @{key} is {found[key][:40]!r}, expected true or false")
    return found[key].lower() == "true"


def _series(lines: Iterator[tuple[int, str]], header: TsfHeader, what: str) -> Iterator[TsfSeries]:
    for number, line in lines:
        *given, values = line.split(":")
        if len(given) != len(header.attributes):
            raise DataError(
                f"{what}: line {number} has {len(given)} attributes before its values, but the header declares "
                f"{len(header.attributes)} ({', '.join(header.attributes)}): it is damaged"
            )
        attributes = {
            name: _attribute(text, kind, f"{what}: line {number}", name)
            for (name, kind), text in zip(header.attributes.items(), given, strict=True)
        }
        yield TsfSeries(attributes, _values(values, what, number), number)


def _attribute(text: str, kind: str, where: str, name: str) -> str | float | datetime | None:
    text = text.strip()
    if text == "?":
        return None
    if kind == "string":
        return text
    try:
        if kind == "numeric":
            return float(text)
        # a day alone, or with its time, whose parts a colon cannot part here
        return datetime.strptime(text, "%Y-%m-%d %H-%M-%S" if " " in text else "%Y-%m-%d")
    except ValueError:
        expected = "a number" if kind == "numeric" else "a time such as 1990-01-01 00-00-00"
        raise DataError(f"{where} has the {name} {text[:40]!r}, expected {expected}") from None


def _values(text: str, what: str, number: int) -> Values:
    import numpy as np

    cells = text.split(",")
    if cells[-1].strip() == "":  # a comma at the end, or nothing at all
        cells.pop()
    if not cells:
        raise DataError(f"{what}: the series on line {number} has no values")
    try:
        found = np.array([np.nan if cell.strip() == "?" else float(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        place, cell = next((at, cell) for at, cell in enumerate(cells, 1) if not _number(cell))
        raise DataError(
            f"{what}: value {place} of the series on line {number} is {cell.strip()[:40]!r}, which is no number: "
            "correct it, or write ? if it is missing"
        ) from None
    odd = wild(found)
    if odd.any():
        at = int(np.argmax(odd))
        raise DataError(f"{what}: value {at + 1} of line {number} is {what_is_wild(found[at])}")
    return found


def _number(text: str) -> bool:
    try:
        return text.strip() == "?" or float(text) is not None
    except ValueError:
        return False
