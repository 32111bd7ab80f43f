"""The page of a bench, from its folder alone: written at the end of a bench, and again by `peftx report`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from peftx.bench.averages import averages_of
from peftx.bench.standings import boards_of
from peftx.bench.store import FILE, Store
from peftx.errors import RunError
from peftx.plugins import get_registry
from peftx.plugins.registry import Registry
from peftx.report import BenchSource, write_bench
from peftx.runs import folder as files
from peftx.runs import record as records

__all__ = ["write_page"]


def write_page(folder: Path, registry: Registry | None = None, path: Path | None = None) -> Path:
    """Write the page of the bench in `folder` to `path`, or to report.html in it, and return where it is.

    Raises:
        RunError: it holds no bench, or the page cannot be written.
    """
    registry = registry or get_registry()
    bench = Store(folder).read()
    if bench is None:
        raise RunError(f"{folder} holds no bench: it has no readable {FILE}")
    boards = boards_of(folder, bench, registry)
    source = BenchSource(
        folder,
        bench,
        tuple(boards),
        {cell["folder"]: record for cell in bench["cells"] if (record := _record(folder / cell["folder"]))},
        tuple(averages_of(folder, bench, boards, registry)),
    )
    return write_bench(source, path or folder / files.REPORT, registry)


def _record(folder: Path) -> dict[str, Any] | None:
    """A record; None for a run that has none yet, or none that can be read: the cells say so."""
    with contextlib.suppress(RunError):
        return records.read(folder)
    return None
