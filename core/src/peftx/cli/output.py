"""How commands print: JSON, or tables that are aligned plain text when piped and drawn by rich on a
terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftx.report.table import MISSING, Column, Table

__all__ = ["csv_text", "heading", "json_text", "note", "print_csv", "print_json", "print_table", "table"]


def table(columns: Sequence[str | Column], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of text columns; a plain string is both key and title."""
    return Table(
        [c if isinstance(c, Column) else Column(c, c, _text, left=True) for c in columns], list(rows)
    )


def print_table(what: Table) -> None:
    """Print to stdout: plain when piped, wrapped and coloured on a terminal."""
    if not sys.stdout.isatty():
        print(what.render())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in what.columns:
        drawn.add_column(column.title, justify="left" if column.left else "right", overflow="fold")
    for row in what.rows:
        values = [row.get(column.key) for column in what.columns]
        cells = (MISSING if v is None else c.show(v) for c, v in zip(what.columns, values, strict=True))
        drawn.add_row(*(Text(cell) for cell in cells))  # Text: brackets in a cell are no markup
    Console().print(drawn)


def print_json(value: Any) -> None:
    """Print JSON to stdout, see `json_text`."""
    print(json_text(value), end="")


def json_text(value: Any) -> str:
    """JSON of several lines; dataclasses become tables, paths text, tuples lists, figures that are not finite null."""
    # JSON has no NaN, which Python writes all the same
    known = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
    return json.dumps(known, indent=2) + "\n"


def print_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print CSV with a heading; what is missing stays empty."""
    print(csv_text(names, rows), end="")


def csv_text(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a heading; what is missing stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def heading(text: str) -> None:
    """Print a section's name."""
    print(f"{text}:")


def note(text: str) -> None:
    """Print something worth reading that is no result, to stderr."""
    print(text, file=sys.stderr)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or MISSING
    return str(value) or MISSING


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
