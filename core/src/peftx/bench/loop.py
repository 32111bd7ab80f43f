"""The bench's loop: which cell next, what came of it, and which rate a row's search chose. Torch-free.

Seeds are the outer loop, so that an unfinished bench has whole tables of its first seeds. A row's runs wait for its
search. A cell another bench is at work on is left to it and looked at again.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftx.bench.cells import Cell, Row
from peftx.bench.executor import Event, Executor
from peftx.bench.job import BUSY, INTERRUPTED, job_of
from peftx.bench.progress import BenchProgress
from peftx.bench.search import Choice, choose
from peftx.bench.states import DIVERGED, DONE, FAILED, WAITING, State, is_free, mark_failed, state_of
from peftx.bench.store import Store
from peftx.errors import Interrupted
from peftx.runs import folder as files
from peftx.training.stopping import Stop

__all__ = ["Loop"]

#: Seconds to wait for a word before the stop and other benches are looked at.
PAUSE = 0.2
#: Seconds between two looks at the cells of another bench.
LOOK = 1.0


class Loop:
    """All cells of a bench, and what became of them.

    `states` and `cells` are by the cell's folder; `choices` by the row's, for rows that are searched. `retry`: cells
    that failed are tried again.
    """

    def __init__(
        self, out: Path, rows: Sequence[Row], store: Store, progress: BenchProgress, *, retry: bool = False
    ) -> None:
        self.out, self.rows, self.store, self.progress = out, rows, store, progress
        self.states: dict[str, State] = {}
        self.cells: dict[str, Cell] = {}
        self.choices: dict[str, Choice] = {}
        self._row_of: dict[str, Row] = {}
        self._order = {row.folder: number for number, row in enumerate(rows)}
        self._retry = retry
        self._ready: list[tuple[int, int, float, str]] = []
        self._under: set[str] = set()
        self._elsewhere: set[str] = set()
        self._looked = 0.0
        self._waits = False
        for row in rows:
            for cell in row.searches() if row.points else row.runs():
                self._add(row, cell)
            if row.points:
                self._conclude(row)

    @property
    def total(self) -> int:
        """Number of cells, those that wait for a search with them."""
        return sum(len(row.points) + row.seeds for row in self.rows)

    @property
    def settled(self) -> int:
        """Number of cells nothing is left to do for."""
        return sum(state.settled for name, state in self.states.items() if name not in self._waiting)

    @property
    def open(self) -> bool:
        """Whether there is work left."""
        return bool(self._ready or self._under or self._elsewhere)

    def row_of(self, cell: Cell) -> Row:
        """The row a cell belongs to."""
        return self._row_of[cell.folder]

    def run(self, executor: Executor, stop: Stop) -> None:
        """Carry out every cell that is not settled.

        Raises:
            Interrupted: a stop was asked for; every run under way has written its checkpoint.
            RunError: no process can be started, or bench.json cannot be written.
        """
        while self.open:
            if stop.requested:
                self._wind_up(executor)
                raise Interrupted(f"stopped: {self.settled} of {self.total} cells are done")
            while executor.free and self._ready:
                self._submit(heapq.heappop(self._ready)[-1], executor)
            if self._elsewhere and not self._under and not self._waits:
                self._waits = True
                self.progress.note(
                    f"waiting for another bench, which is at work on {len(self._elsewhere)} of the cells"
                )
            for event in executor.poll(PAUSE):
                self._hear(event)
            self._look_elsewhere()

    # --- cells ----------------------------------------------------------------------------------------------
    @property
    def _waiting(self) -> set[str]:
        return {entry[-1] for entry in self._ready} | self._under | self._elsewhere

    def _add(self, row: Row, cell: Cell) -> None:
        name = cell.folder
        self.cells[name], self._row_of[name] = cell, row
        state = self.states[name] = self._state(cell)
        if not state.settled or (state.word == FAILED and self._retry):
            self._make_ready(cell)

    def _state(self, cell: Cell) -> State:
        known = self.store.known.get(cell.folder, {})
        point = cell.point
        if (known.get("lr"), known.get("weight_decay")) != (point or (None, None)):
            known = {}  # it was said before the row's search came to its point
        state = self._read(cell, known)
        if cell.search and state.word == FAILED and known.get("state") not in (FAILED, DIVERGED):
            return State(WAITING)  # nobody said whether its rate was too high: it goes on, and tells again
        return state

    def _read(self, cell: Cell, known: Mapping[str, Any] | None = None) -> State:
        """What a cell's folder says. A search on data of its own validates what the row's runs train on: those cannot
        choose an epoch and keep the last, so it is the last epoch's score that chooses."""
        own = bool(cell.search and self._row_of[cell.folder].search)
        return state_of(self.out / cell.folder, known, last_epoch=own)

    def _make_ready(self, cell: Cell) -> None:
        place = -1 if cell.search else cell.seed
        heapq.heappush(
            self._ready,
            (place, self._order[self._row_of[cell.folder].folder], cell.rate or 0.0, cell.folder),
        )

    def _submit(self, name: str, executor: Executor) -> None:
        cell, folder = self.cells[name], self.out / name
        if not is_free(folder):
            self._elsewhere.add(name)
            return
        state = self._state(cell)
        if state.word == FAILED and not self._retry:  # another bench tried it meanwhile
            self._settle(name, state)
            return
        executor.submit(job_of(cell, self.out))
        self._under.add(name)
        self.progress.started(cell)

    def _hear(self, event: Event) -> None:
        name = event.cell
        if name not in self._under:
            return
        if event.kind in ("stage", "moved"):
            self.progress.moved(self.cells[name], event.values)
            return
        self._under.discard(name)
        if event.kind == "died":
            mark_failed(self.out / name, event.cause)
            self._settle(name, State(FAILED, event.cause))
            return
        word, cause = event.values["state"], event.values["cause"]
        if word in (BUSY, INTERRUPTED):  # another bench has it, or somebody stopped this one process
            self.progress.returned(self.cells[name])
            self._elsewhere.add(name)
        elif word == DONE:
            self._settle(name, self._read(self.cells[name]))
        else:
            self._settle(name, State(word, cause), event.values.get("trace", ""))

    def _settle(self, name: str, state: State, trace: str = "") -> None:
        cell, row = self.cells[name], self._row_of[name]
        self.states[name] = state
        self.store.put([(cell, state)])
        found = self._conclude(row) if cell.search else []
        self.progress.finished(cell, state, self._left(), trace)
        if found:
            self.store.put((one, self.states[one.folder]) for one in found)
            self._tell(row, found)

    def _left(self) -> list[Cell]:
        """Every cell that is still to do, those with it that wait for a search."""
        waiting = [row for row in self.rows if row.points and self.choices[row.folder].open]
        return [
            *(self.cells[name] for name in self._waiting),
            *(cell for row in waiting for cell in row.runs()),
        ]

    # --- the search -----------------------------------------------------------------------------------------
    def _conclude(self, row: Row) -> list[Cell]:
        """Choose a row's rate once its search is through, and let its runs begin; returns the runs, if it is."""
        waits = self._waiting
        states = {
            cell.point: State(WAITING) if cell.folder in waits else self.states[cell.folder]
            for cell in row.searches()
            if cell.point is not None
        }
        choice = self.choices[row.folder] = choose(states)
        if choice.open:
            return []
        runs = row.runs(choice.point)
        for cell in runs:
            if choice.why_not:
                self.cells[cell.folder], self._row_of[cell.folder] = cell, row
                self.states[cell.folder] = State(FAILED, choice.why_not)
            else:
                self._add(row, cell)
        return runs

    def _tell(self, row: Row, runs: Sequence[Cell]) -> None:
        """Say what a search came to."""
        choice = self.choices[row.folder]
        if choice.point is None:
            for cell in runs:
                self.progress.finished(cell, self.states[cell.folder], self._left())
            return
        best = choice.states[choice.point]
        self.progress.note(
            f"{row.label} on {row.data}: {choice.point} of {len(choice.states)}, "
            f"val {best.metric} {best.value:.6g}"
        )

    # --- other benches --------------------------------------------------------------------------------------
    def _look_elsewhere(self) -> None:
        if not self._elsewhere or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self.store.refresh()
        for name in sorted(self._elsewhere):
            cell, folder = self.cells[name], self.out / name
            if not is_free(folder):
                continue
            self._elsewhere.discard(name)
            state = self._state(cell)
            if state.settled and files.is_run(folder):
                self._settle(name, state)
            else:
                self._make_ready(cell)

    def _wind_up(self, executor: Executor) -> None:
        """Let every process write its checkpoint and end, and note how far the cells are."""
        executor.stop()
        while self._under:
            for event in executor.poll(PAUSE):
                if event.kind in ("reply", "died") and event.cell in self._under:
                    self._under.discard(event.cell)
                    cell = self.cells[event.cell]
                    if event.kind == "reply" and event.values["state"] in (FAILED, DIVERGED):
                        state = State(event.values["state"], event.values["cause"])
                    else:
                        state = self._read(cell)
                    self.states[event.cell] = state
                    self.store.put([(cell, state)])
                    self.progress.returned(cell)
