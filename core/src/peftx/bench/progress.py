"""Progress of a bench on stderr: a line for each finished cell, and on a terminal a bar for each that is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from peftx.bench.cells import Cell
from peftx.bench.states import DIVERGED, DONE, State
from peftx.report.table import seconds

__all__ = ["Bars", "BenchProgress", "Lines", "Pace", "bench_progress"]


class BenchProgress:
    """Listener for the progress of a bench; this base class stays silent."""

    def begin(self, total: int, done: int, jobs: int) -> None:
        """Training starts: `done` of `total` cells stand already."""

    def started(self, cell: Cell) -> None:
        """A process is given a cell."""

    def moved(self, cell: Cell, values: Mapping[str, Any]) -> None:
        """A cell under way came to a new stage (``text``), or further (``done`` of ``total``)."""

    def finished(self, cell: Cell, state: State, left: Iterable[Cell], trace: str = "") -> None:
        """A cell came to its end; `left` are those that are still to do."""

    def returned(self, cell: Cell) -> None:
        """A process gave a cell back: another bench is at work on it, or everything stops."""

    def note(self, text: str) -> None:
        """Something the user should read."""

    def close(self) -> None:
        """Nothing more comes."""


class Pace:
    """How long cells take, by method, and from that how long the rest will."""

    def __init__(self) -> None:
        self.jobs = 1
        self._started: dict[str, float] = {}
        self._working: set[str] = set()
        self._took: dict[str, list[float]] = {}

    def started(self, cell: Cell) -> None:
        """Its clock starts."""
        self._started[cell.folder] = time.monotonic()

    def working(self, cell: Cell) -> None:
        """Its process is there and works on it: what starting it took is no part of what the next one will."""
        if cell.folder in self._started and cell.folder not in self._working:
            self._working.add(cell.folder)
            self._started[cell.folder] = time.monotonic()

    def finished(self, cell: Cell) -> float | None:
        """Its clock stops; the seconds it took, None for a cell that never started here."""
        begun = self._started.pop(cell.folder, None)
        if begun is None:
            return None
        took = time.monotonic() - begun
        self._took.setdefault(cell.label, []).append(took)
        return took

    def left(self, cells: Iterable[Cell]) -> float | None:
        """Seconds until the last of these cells is done; None before anything was."""
        every = [took for found in self._took.values() for took in found]
        if not every:
            return None
        mean = sum(every) / len(every)
        now = time.monotonic()
        rest = 0.0
        for cell in cells:
            own = self._took.get(cell.label)
            expected = sum(own) / len(own) if own else mean
            rest += max(0.0, expected - (now - self._started.get(cell.folder, now)))
        return rest / self.jobs


class Lines(BenchProgress):
    """One line for each finished cell, with its score and the time that is left."""

    def __init__(self, stream: TextIO, *, traces: bool = False) -> None:
        self._stream, self._traces = stream, traces
        self._total = self._done = 0
        self._pace = Pace()

    def begin(self, total: int, done: int, jobs: int) -> None:
        self._total, self._done, self._pace.jobs = total, done, jobs
        kept = f", {done} of them stand already" if done else ""
        self._say(f"{total} cells{kept}; {jobs} at a time")

    def started(self, cell: Cell) -> None:
        self._pace.started(cell)

    def moved(self, cell: Cell, values: Mapping[str, Any]) -> None:
        self._pace.working(cell)

    def finished(self, cell: Cell, state: State, left: Iterable[Cell], trace: str = "") -> None:
        self._done += 1
        took, rest = self._pace.finished(cell), list(left)
        facts = [told(state)]
        if took is not None and state.word == DONE:
            facts.append(f"in {seconds(took)}")
        ahead = self._pace.left(rest)
        if ahead is not None and rest:
            facts.append(f"about {seconds(ahead)} left")
        width = len(str(self._total))
        self._say(f"[{self._done:>{width}}/{self._total}] {cell.place}: {', '.join(facts)}")
        if trace and self._traces:
            self._say(trace)

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bars(Lines):
    """The lines, and below them a bar for each cell under way and one for all."""

    def __init__(self, stream: TextIO, *, traces: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(stream, traces=traces)
        self._console = Console(file=stream)
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._all: Any = None

    def begin(self, total: int, done: int, jobs: int) -> None:
        super().begin(total, done, jobs)
        self._bars.start()
        self._all = self._bars.add_task("all", total=total, completed=done)

    def started(self, cell: Cell) -> None:
        super().started(cell)
        self._tasks[cell.folder] = self._bars.add_task(cell.place, total=None)

    def moved(self, cell: Cell, values: Mapping[str, Any]) -> None:
        super().moved(cell, values)
        if "done" in values and cell.folder in self._tasks:
            self._bars.update(
                self._tasks[cell.folder], completed=values["done"], total=values["total"] or None
            )

    def finished(self, cell: Cell, state: State, left: Iterable[Cell], trace: str = "") -> None:
        self.returned(cell)
        super().finished(cell, state, left, trace)
        if self._all is not None:
            self._bars.update(self._all, completed=self._done)

    def returned(self, cell: Cell) -> None:
        if cell.folder in self._tasks:
            self._bars.remove_task(self._tasks.pop(cell.folder))

    def close(self) -> None:
        self._bars.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def told(state: State) -> str:
    """A state in a few words: ``test accuracy 97.77 %``."""
    if state.word == DONE:
        if state.value is None:
            return "done"
        value = f"{state.value:.2f}" if state.unit == "%" else f"{state.value:.4g}"
        return f"{state.split} {state.metric} {value} {state.unit}".rstrip()
    first = state.cause.splitlines()[0] if state.cause else ""
    word = "diverged" if state.word == DIVERGED else state.word
    return f"{word} ({first})" if first else word


@contextmanager
def bench_progress(stream: TextIO | None = None, *, traces: bool = False) -> Iterator[BenchProgress]:
    """Give the progress that fits the stream, and close its bars in the end."""
    stream = stream or sys.stderr
    made = Bars(stream, traces=traces) if stream.isatty() else Lines(stream, traces=traces)
    try:
        yield made
    finally:
        made.close()
