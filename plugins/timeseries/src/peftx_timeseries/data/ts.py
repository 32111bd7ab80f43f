"""Files of labelled series, ``.ts``: a header of ``@`` lines, then one sample on each line, as the UEA and UCR archives
of time series classification have them.

    @problemName JapaneseVowels                 A. Bagnall et al., "The UEA multivariate time series classification
    @timeStamps false                           archive, 2018", arXiv:1811.00075; the format as aeon and sktime
    @missing false                              have written it down
    @univariate false
    @dimensions 12
    @equalLength false
    @classLabel true 1 2 3 4 5 6 7 8 9
    @data
    1.86,1.89,1.93:-0.20,-0.19,-0.23: ... :1        dimensions between colons, values between commas, the class last

``?`` and ``NaN`` are missing values. Steps at the end of a sample that are missing in all dimensions are padding, and
not part of it. A header that says less than this, or in another spelling of its tags, is read; what it does say is held
against the samples, and the first that differs is named with its line.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.files import lines_of, reading
from peftx.errors import DataError, near_matches
from peftx_timeseries.data.values import what_is_wild, wild

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["TsFile", "TsHeader", "TsSample", "parse_ts", "read_ts"]

_TAGS = (
    "problemname", "timestamps", "missing", "univariate", "dimensions", "equallength", "serieslength", "classlabel",
    "targetlabel", "data",
)  # fmt: skip
_FLAGS = ("timestamps", "missing", "univariate", "equallength")


@dataclass(frozen=True, slots=True)
class TsHeader:
    """What the ``@`` lines say; None where they say nothing.

    `classes`: names of the classes, in the order of the header; empty where samples have none. `labelled`: whether they
    have one.
    """

    name: str = ""
    missing: bool | None = None
    univariate: bool | None = None
    dimensions: int | None = None
    equal_length: bool | None = None
    length: int | None = None
    labelled: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TsSample:
    """One sample: values (T, M) with NaN for what is missing, the index of its class (None without), its line."""

    values: Values
    label: int | None
    line: int


@dataclass(frozen=True, slots=True)
class TsFile:
    """A whole file. `notes`: where samples are not what the header says, as clauses."""

    header: TsHeader
    samples: tuple[TsSample, ...]
    notes: tuple[str, ...] = ()

    @property
    def dimensions(self) -> int:
        """Dimensions of every sample, M."""
        return int(self.samples[0].values.shape[1])


def read_ts(path: Path) -> TsFile:
    """Return header and samples of a file, ``.ts`` or ``.ts.gz``.

    Raises:
        DataError: it is damaged, has time stamps, or holds targets of a regression; the sentence names the line.
    """
    with reading(path), lines_of(path) as lines:
        return parse_ts(lines, path.name)


def parse_ts(lines: Iterable[bytes], what: str) -> TsFile:
    """Return header and samples of the lines of a file; `what` names it in errors.

    Raises:
        DataError: as `read_ts`.
    """
    numbered = _text(lines, what)
    header = _header(numbered, what)
    samples = tuple(_samples(numbered, header, what))
    if not samples:
        raise DataError(f"{what} has no sample after @data: it is cut off")
    return TsFile(header, samples, _notes(header, samples))


def _text(lines: Iterable[bytes], what: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers; comments begin with ``#`` or ``%``."""
    for number, raw in enumerate(lines, 1):
        if b"\0" in raw:
            raise DataError(f"{what}: line {number} holds null bytes: it is damaged, or no .ts file")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")  # descriptions in older files
        text = text.strip()
        if text and text[0] not in "#%":
            yield number, text


def _header(lines: Iterator[tuple[int, str]], what: str) -> TsHeader:
    found: dict[str, tuple[int, list[str]]] = {}
    for number, line in lines:
        if not line.startswith("@"):
            raise DataError(
                f"{what}: line {number} stands before @data and does not begin with @: it is no .ts file, or its "
                "header is damaged"
            )
        key, *words = line[1:].split() or [""]
        key = key.lower()
        key = "dimensions" if key == "dimension" else key
        if key not in _TAGS:
            raise DataError(
                f"{what}: line {number} has the unknown tag @{key[:40]}.{near_matches(key, _TAGS)}"
            )
        if key == "data":
            break
        if key in found and key != "problemname":
            raise DataError(f"{what}: line {number} says @{key} again, after line {found[key][0]}")
        found[key] = (number, words)
    else:
        raise DataError(f"{what} has no @data line: it is cut off, or no .ts file")
    flags = {key: _truth(found, key, what) for key in _FLAGS}
    if flags["timestamps"]:
        raise DataError(
            f"{what}: line {found['timestamps'][0]} says that values have time stamps, which are not read: write the "
            "values alone, with @timeStamps false"
        )
    if "targetlabel" in found and _first(found, "targetlabel", what).lower() != "false":
        raise DataError(
            f"{what}: line {found['targetlabel'][0]} declares targets of a regression, and classes are needed"
        )
    classes = _classes(found, what)
    univariate, dimensions = flags["univariate"], _whole(found, "dimensions", what)
    if univariate and dimensions not in (None, 1):
        raise DataError(
            f"{what}: line {found['dimensions'][0]} says {dimensions} dimensions, and line {found['univariate'][0]} "
            "that it is univariate"
        )
    return TsHeader(
        name=" ".join(found["problemname"][1]) if "problemname" in found else "",
        missing=flags["missing"],
        univariate=univariate,
        dimensions=1 if univariate else dimensions,
        equal_length=flags["equallength"],
        length=_whole(found, "serieslength", what),
        labelled=bool(classes),
        classes=classes,
    )


def _classes(found: dict[str, tuple[int, list[str]]], what: str) -> tuple[str, ...]:
    if "classlabel" not in found:
        return ()
    number, words = found["classlabel"]
    if not _truth({"classlabel": (number, words[:1])}, "classlabel", what):
        return ()
    names = tuple(words[1:])
    if not names:
        raise DataError(f"{what}: line {number} says that samples have classes and names none")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{what}: line {number} names the class {twice!r} twice")
    return names


def _first(found: dict[str, tuple[int, list[str]]], key: str, what: str) -> str:
    number, words = found[key]
    if not words:
        raise DataError(f"{what}: line {number} is @{key} and says nothing behind it")
    return words[0]


def _truth(found: dict[str, tuple[int, list[str]]], key: str, what: str) -> bool | None:
    if key not in found:
        return None
    word = _first(found, key, what)
    if word.lower() not in ("true", "false"):
        raise DataError(f"{what}: line {found[key][0]} has @{key} {word[:40]!r}, expected true or false")
    return word.lower() == "true"


def _whole(found: dict[str, tuple[int, list[str]]], key: str, what: str) -> int | None:
    if key not in found:
        return None
    word = _first(found, key, what)
    if not (word.isascii() and word.isdigit() and 0 < int(word) < 2**31):
        raise DataError(
            f"{what}: line {found[key][0]} has @{key} {word[:40]!r}, expected a whole number from 1 on"
        )
    return int(word)


def _samples(lines: Iterator[tuple[int, str]], header: TsHeader, what: str) -> Iterator[TsSample]:
    import numpy as np

    places = {name: index for index, name in enumerate(header.classes)}
    dimensions = header.dimensions
    first: tuple[int, int] | None = None
    for number, line in lines:
        where = f"{what}: line {number}"
        if line.startswith("("):
            raise DataError(f"{where} has time stamps, which are not read: write the values alone")
        fields = line.split(":")
        label = None
        if header.labelled:
            name = fields.pop().strip()
            if name not in places:
                raise DataError(
                    f"{where} ends in the class {name[:40]!r}, which is none of the header's "
                    f"({', '.join(header.classes[:8])}{' ...' if len(places) > 8 else ''}): it is cut off, or damaged"
                )
            label = places[name]
        dimensions = dimensions or len(fields)
        if len(fields) != dimensions:
            said = "the header says" if header.dimensions else "the first sample has"
            raise DataError(f"{where} has {len(fields)} dimensions, and {said} {dimensions}: it is damaged")
        counts = [field.count(",") + 1 for field in fields]
        odd = next((at for at, count in enumerate(counts) if count != counts[0]), None)
        if odd is not None:
            raise DataError(
                f"{where} has {counts[0]} values in its first dimension and {counts[odd]} in number {odd + 1}: "
                "all dimensions of a sample need the same"
            )
        values = _numbers(fields, counts[0], where).reshape(dimensions, counts[0]).T
        first = first or (number, counts[0])
        # in a file of equal lengths a shorter line is a line that was cut
        if header.equal_length and counts[0] != first[1]:
            raise DataError(
                f"{where} has {counts[0]} values, and line {first[0]} has {first[1]}, while the header says that all "
                "lengths are equal: it is cut off, or the header is wrong"
            )
        seen = np.flatnonzero(np.isfinite(values).any(1))
        if not len(seen):
            raise DataError(f"{where} has no value at all: remove it")
        yield TsSample(np.ascontiguousarray(values[: seen[-1] + 1]), label, number)


def _numbers(fields: Sequence[str], count: int, where: str) -> Values:
    import numpy as np

    text = ",".join(fields).replace("?", "nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of text that is no number: seen by the count
        try:
            found = np.fromstring(text, dtype=np.float64, sep=",")
        except ValueError:
            found = np.empty(0)
    if len(found) != count * len(fields):
        for dimension, field in enumerate(fields, 1):
            for place, cell in enumerate(field.split(","), 1):
                if not _number(cell):
                    raise DataError(
                        f"{where}, dimension {dimension}: value {place} is {cell.strip()[:40]!r}, which is no number: "
                        "correct it, or write ? if it is missing"
                    )
        found = np.array([_float(cell) for field in fields for cell in field.split(",")], dtype=np.float64)
    odd = wild(found)
    if odd.any():
        at = int(np.argmax(odd))
        dimension, place = divmod(at, count)
        raise DataError(
            f"{where}, dimension {dimension + 1}: value {place + 1} is {what_is_wild(found[at])}: correct it, or write "
            "? if it is missing"
        )
    return found


def _float(cell: str) -> float:
    return float("nan") if cell.strip() == "?" else float(cell)


def _number(cell: str) -> bool:
    try:
        return _float(cell) is not None
    except ValueError:
        return False


def _notes(header: TsHeader, samples: Sequence[TsSample]) -> tuple[str, ...]:
    """What the header says and the samples are not, where that is no sign of damage."""
    import numpy as np

    notes = []
    lengths = {len(one.values) for one in samples}
    if header.missing is False and any(np.isnan(one.values).any() for one in samples):
        notes.append("values are missing, and the header says that none is")
    if header.length is not None and header.equal_length and lengths != {header.length}:
        notes.append(f"the header says {header.length} steps, and the longest sample has {max(lengths)}")
    return tuple(notes)
