"""Progress on stderr: bars on a terminal, plain lines otherwise. Results never come here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from peftx.training.progress import Progress

__all__ = ["Bars", "Lines", "make_progress"]

#: Seconds between two plain lines of one stretch, so that a log stays short.
PAUSE = 10.0


@contextmanager
def make_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Give the progress that fits the stream, and close its bars in the end."""
    stream = stream or sys.stderr
    if os.environ.get("RANK", "0") != "0":  # one of several processes that a launcher started together
        yield Progress()
        return
    if not stream.isatty():
        yield Lines(stream)
        return
    bars = Bars(stream)
    try:
        yield bars
    finally:
        bars.close()


class Lines(Progress):
    """One line per stage, and one every ten seconds inside a long stretch."""

    def __init__(self, stream: TextIO, pause: float = PAUSE) -> None:
        self._stream, self._pause = stream, pause
        self._label, self._total, self._done, self._said = "", 0, 0, 0.0

    def stage(self, text: str) -> None:
        self._say(text)

    def begin(self, label: str, total: int) -> None:
        self._label, self._total, self._done, self._said = label, total, 0, time.monotonic()

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        self._done += 1
        if time.monotonic() - self._said >= self._pause:
            self._said = time.monotonic()
            self._say(f"  {self._label} {self._done}/{self._total} {figures(metrics)}".rstrip())

    def end(self, summary: str = "") -> None:
        if summary:
            self._say(f"  {summary}")

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bars(Progress):
    """One rich bar at a time; stages stay as lines above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=stream)
        self._bars = RichProgress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def stage(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def begin(self, label: str, total: int) -> None:
        self._bars.start()
        self._task = self._bars.add_task(label, total=total, figures="")

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        self._bars.advance(self._task)
        if metrics:
            self._bars.update(self._task, figures=figures(metrics))

    def end(self, summary: str = "") -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.stop()
        if summary:
            self.stage(f"  {summary}")

    def note(self, text: str) -> None:
        self.stage(f"note: {text}")

    def close(self) -> None:
        """Remove what is still drawn, after an error too."""
        self._bars.stop()


def figures(metrics: dict[str, float] | None) -> str:
    """``loss 0.412  lr 0.001``."""
    return "  ".join(f"{name} {value:.4g}" for name, value in (metrics or {}).items())
