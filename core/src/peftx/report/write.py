"""Pages onto the disk: whole or not at all, and the same bytes for the same files."""

from __future__ import annotations

import os
from pathlib import Path

from peftx.errors import RunError
from peftx.plugins.registry import Registry
from peftx.report.source import BenchSource, RunSource

__all__ = ["write_bench", "write_run"]


def write_run(
    folder: Path, registry: Registry | None = None, path: Path | None = None, *, samples: bool = True
) -> Path:
    """Write the page of the run in `folder` to `path`, or to report.html in it, and return where it is.

    `registry`: whose plugins' panels are shown; none without it. `samples`: False for a page that shows no single
    sample of the data.

    Raises:
        RunError: the folder has no readable record, or the page cannot be written.
    """
    from peftx.report.run_page import render_run

    return _write(
        path or folder / "report.html", render_run(RunSource.read(folder, samples=samples), registry)
    )


def write_bench(source: BenchSource, path: Path, registry: Registry | None = None) -> Path:
    """Write the page of a bench to `path` and return it.

    Raises:
        RunError: the page cannot be written.
    """
    from peftx.report.bench_page import render_bench

    return _write(path, render_bench(source, registry))


def _write(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return path
