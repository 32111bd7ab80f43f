"""A small table as data, rendered as aligned plain text. Torch-free.

The figures stay numbers (`to_dict`, for ``--json``); only `render` turns them into text with units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Column", "Table", "byte_size", "count", "percent", "seconds"]

MISSING = "-"


def count(value: Any) -> str:
    """12345 -> 12,345."""
    return f"{int(value):,}"


def byte_size(value: Any) -> str:
    """Bytes in binary units, three significant digits or so: 300072 -> 293 KiB."""
    size, units = float(value), ["B", "KiB", "MiB", "GiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    unit = units[0]
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def seconds(value: Any) -> str:
    """Seconds with one decimal below a minute, else minutes and seconds."""
    value = float(value)
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {int(value % 60):02d} s"


def percent(value: Any) -> str:
    """Two decimals."""
    return f"{float(value):.2f}"


@dataclass(frozen=True, slots=True)
class Column:
    """`key` in the rows, `title` in the heading, `show` turns a value into text; text columns align left."""

    key: str
    title: str
    show: Callable[[Any], str] = str
    left: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of named values under columns; a value that is absent or None shows as a dash."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def render(self) -> str:
        """Return aligned text: a heading, a rule, one line per row; no trailing blanks."""
        cells = [[column.title for column in self.columns]]
        for row in self.rows:
            values = [row.get(column.key) for column in self.columns]
            cells.append(
                [MISSING if v is None else c.show(v) for c, v in zip(self.columns, values, strict=True)]
            )
        widths = [max(len(line[i]) for line in cells) for i in range(len(self.columns))]
        lines = [self._line(line, widths) for line in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(lines)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the rows with the columns' keys only, values untouched."""
        return [{column.key: row.get(column.key) for column in self.columns} for row in self.rows]

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(cells, widths, self.columns, strict=True)
        ]
        return "  ".join(padded).rstrip()
