"""Reports: how results are shown. Tables for a terminal, and pages of one HTML file, from records alone.

The names below load on first use: a command that prints a table does not pay for the pages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from peftx.report.table import Column, Table

# Public name -> module that defines it.
_HOMES = {
    "Averages": "peftx.report.averages",
    "BenchSource": "peftx.report.source",
    "Board": "peftx.report.board",
    "Panel": "peftx.report.panel",
    "RunSource": "peftx.report.source",
    "Standing": "peftx.report.board",
    "write_bench": "peftx.report.write",
    "write_run": "peftx.report.write",
}

__all__ = [
    "Averages",
    "BenchSource",
    "Board",
    "Column",
    "Panel",
    "RunSource",
    "Standing",
    "Table",
    "write_bench",
    "write_run",
]

if TYPE_CHECKING:
    from peftx.report.averages import Averages
    from peftx.report.board import Board, Standing
    from peftx.report.panel import Panel
    from peftx.report.source import BenchSource, RunSource
    from peftx.report.write import write_bench, write_run


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftx.report' has no attribute {name!r}")
