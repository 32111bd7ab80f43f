"""bench.json: what a bench is and how far it is, for people, reports and the next call.

It is written whole under a lock, since several benches may work in one folder, each on its part of the grid. All it
says of finished cells can be read from their records again; without the file, the next call writes it anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peftx.bench.cells import Cell, Row
from peftx.bench.grid import Grid
from peftx.bench.states import State, read_json
from peftx.config.suite import Suite
from peftx.errors import BusyError, RunError
from peftx.runs import folder as files
from peftx.runs.record import clean
from peftx.runs.resuming import FREE

__all__ = ["FILE", "FORMAT", "Store"]

FILE, LOCK = "bench.json", ".bench.lock"
FORMAT = 1
#: Seconds to wait for another bench that is writing; it needs a moment.
PATIENCE = 30.0


@dataclass
class Store:
    """The file of one bench. `known`: what it says of each cell, by the cell's folder, as last read or written. `lost`:
    runs of the bench stand there without it."""

    out: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: bool = False

    @property
    def path(self) -> Path:
        """bench.json."""
        return self.out / FILE

    def look(self, grid: Grid) -> None:
        """Make sure that this folder can hold the bench, and read what is known of its cells. Writes nothing.

        Raises:
            RunError: it is a file, holds something else, another suite, or the same with another protocol.
        """
        out = self.out
        if out.exists() and not out.is_dir():
            raise RunError(f"--out {out} is a file; name a folder")
        if files.is_run(out) or (out / files.RECORD).is_file():
            raise RunError(f"--out {out} is the folder of a run; a bench needs one of its own")
        former = self.read()
        if former is None:
            # hidden files may be another bench's that begins at this moment
            others = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
            former = self.read() if others else None  # it may just have begun
        if former is None:
            self.lost = others and _holds(out, grid)
            if others and not self.lost:
                raise RunError(f"--out {out} is not empty and no bench: name a new or an empty folder")
            return
        self._refuse_other(former, grid)
        self.known = _by_folder(former)

    def begin(self, grid: Grid, suite: Suite, command: str, *, published: bool = False) -> None:
        """Write the file, beside the cells of former calls.

        Raises:
            RunError: it cannot be written, or another bench has made the folder its own meanwhile.
        """
        with _told(self.out):
            self.out.mkdir(parents=True, exist_ok=True)

        def change(bench: dict[str, Any]) -> None:
            if "suite" in bench:
                self._refuse_other(bench, grid)
            bench |= {"suite": grid.suite, "about": grid.about, "task": grid.task, "command": command}
            bench |= {"definition": suite.model_dump(mode="json"), "published": published}
            bench.setdefault("started", datetime.now(UTC).isoformat(timespec="seconds"))
            bench["options"] = {**bench.get("options", {}), **grid.protocol}

        self._change(change)

    def put(self, states: Iterable[tuple[Cell, State]]) -> None:
        """Write what became of cells.

        Raises:
            RunError: the file cannot be written.
        """
        entries = {cell.folder: entry_of(cell, state) for cell, state in states}

        def change(bench: dict[str, Any]) -> None:
            cells = _by_folder(bench) | entries
            bench["cells"] = list(cells.values())
            bench["options"] |= _extent(cells.values())
            self.known = cells

        self._change(change)

    def finish(
        self, rows: Iterable[tuple[Row, Mapping[str, Any]]], notes: list[str], following: list[str]
    ) -> None:
        """Write what is known of rows (what their search found, how they meet a budget), notes, and next commands.

        Raises:
            RunError: the file cannot be written.
        """
        entries = {
            row.folder: {
                "folder": row.folder,
                "data": row.data,
                "model": row.model,
                "method": row.method,
                "label": row.label,
                "trainable": row.trainable,
                "off": row.off,
                **more,
            }
            for row, more in rows
        }

        def change(bench: dict[str, Any]) -> None:
            former = {row["folder"]: row for row in bench.get("rows", ())}
            bench |= {"rows": list((former | entries).values()), "notes": notes, "next": following}

        self._change(change)

    def read(self) -> dict[str, Any] | None:
        """bench.json; None where there is none, or nothing readable in it. Cells that are none are left out.

        Raises:
            RunError: a later version wrote it.
        """
        found = read_json(self.path)
        if found is None or not isinstance(found.get("format"), int):
            return None
        if found["format"] > FORMAT:
            raise RunError(
                f"{self.path} was written by a later peftx (format {found['format']}, this one reads {FORMAT})"
            )
        if not isinstance(found.get("suite"), str) or not isinstance(found.get("options"), dict):
            return None  # somebody else's file of that name
        lists = {name: found[name] for name in ("rows", "notes", "next") if isinstance(found.get(name), list)}
        lists["rows"] = [row for row in lists.get("rows", []) if isinstance(row, dict) and "folder" in row]
        return {**found, "notes": [], "next": [], **lists, "cells": list(_by_folder(found).values())}

    def refresh(self) -> dict[str, dict[str, Any]]:
        """What is known of each cell now, that of other benches with it."""
        self.known = _by_folder(self.read() or {})
        return self.known

    def _refuse_other(self, bench: Mapping[str, Any], grid: Grid) -> None:
        if bench.get("suite") != grid.suite:
            raise RunError(f"--out {self.out} holds a bench of {bench.get('suite')}; name another --out")
        found = changes(bench["options"], grid.protocol)
        if found:
            head = f"{self.out} holds a bench with other settings; name another --out for these:"
            raise RunError("\n".join([head, *found]))

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        with _told(self.out), _locked(self.out):
            bench = self.read() or {"format": FORMAT}
            bench.setdefault("options", {})
            bench.setdefault("cells", [])
            change(bench)
            files.write_text(self.path, json.dumps(clean(bench), indent=1) + "\n")


def entry_of(cell: Cell, state: State) -> dict[str, Any]:
    """A cell as bench.json has it."""
    told = state.to_dict()
    return {
        "folder": cell.folder,
        "data": cell.data,
        "model": cell.model,
        "method": cell.method,
        "label": cell.label,
        "seed": cell.seed,
        "lr": cell.rate,
        "weight_decay": None if cell.point is None else cell.point.weight_decay,
        "search": cell.search,
        "state": told.pop("word"),
        **{
            key: value
            for key, value in told.items()
            if key in ("cause", "split", "metric", "unit", "value", "seconds")
        },
    }


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two protocols, one sentence each; settings that change no result may."""
    found: list[str] = []
    for name in sorted(now):
        before, after = clean(then.get(name)), clean(now[name])
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            keys = sorted(key for key in {*before, *after} if f"{name}.{key}" not in FREE)
            pairs = [(f"{name}.{key}", before.get(key), after.get(key)) for key in keys]
        else:
            pairs = [(name, before, after)]
        found += [f"  {key}: {_word(old)} there, {_word(new)} now" for key, old, new in pairs if old != new]
    return found


def _word(value: Any) -> str:
    return "not set" if value in (None, []) else repr(value) if isinstance(value, str) else str(value)


def _extent(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Which part of the suite all calls together asked for."""
    known = list(cells)
    return {
        "methods": list(dict.fromkeys(cell["label"] for cell in known)),
        "data": list(dict.fromkeys(cell["data"] for cell in known)),
        "models": list(dict.fromkeys(cell["model"] for cell in known)),
        "seeds": sorted({cell["seed"] for cell in known}),
    }


def _by_folder(bench: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    cells = bench.get("cells")
    wanted = {name: str for name in ("folder", "label", "data", "model", "state")} | {"seed": int}
    whole = (
        [c for c in cells if isinstance(c, dict) and all(isinstance(c.get(k), t) for k, t in wanted.items())]
        if isinstance(cells, list)
        else []
    )
    return {cell["folder"]: cell for cell in whole}


def _holds(out: Path, grid: Grid) -> bool:
    """Whether a run of the grid stands in a folder, whose bench.json was lost then."""
    cells = (cell for row in grid.rows for cell in (*row.searches(), *row.runs()))
    return any(files.is_run(out / cell.folder) for cell in cells)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / LOCK, timeout=PATIENCE):
            yield
    except Timeout:
        raise BusyError(f"another process keeps writing {out / FILE}: wait for it, and try again") from None


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
