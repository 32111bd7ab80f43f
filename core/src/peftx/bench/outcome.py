"""What a bench came to: boards, what its searches found, what failed, what must be said beside the tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.bench.cells import Cell, Row
from peftx.bench.search import Choice
from peftx.bench.states import DONE, FAILED, State
from peftx.bench.store import entry_of
from peftx.report.averages import Averages
from peftx.report.board import Board
from peftx.report.table import Column, Table, count, percent
from peftx.runs.resuming import FREE

if TYPE_CHECKING:
    from peftx.bench.running import Bench

__all__ = ["Outcome", "outcome_of", "search_table", "size_of", "size_table"]


@dataclass
class Outcome:
    """The end of a bench. `notes`: what a reader of the boards must know; `next`: what one would type now."""

    folder: Path
    suite: str
    about: str
    rows: tuple[Row, ...]
    choices: Mapping[str, Choice]
    cells: list[tuple[Cell, State]]
    boards: list[Board] = field(default_factory=list)
    averages: list[Averages] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    page: Path | None = None

    @property
    def failed(self) -> list[tuple[Cell, State]]:
        """Cells that failed."""
        return [(cell, state) for cell, state in self.cells if state.word == FAILED]

    def told_rows(self) -> list[tuple[Row, dict[str, Any]]]:
        """Rows with what their search found."""
        found = []
        for row in self.rows:
            choice = self.choices.get(row.folder)
            told: dict[str, Any] = {}
            if choice is not None:
                decay = None if choice.point is None else choice.point.weight_decay
                told = {"lr": choice.rate, "weight_decay": decay, "search": choice.to_dict()}
            found.append((row, told))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "suite": self.suite,
            "about": self.about,
            "boards": [board.to_dict() for board in self.boards],
            "averages": [one.to_dict() for one in self.averages],
            "rows": [
                {
                    "data": row.data,
                    "model": row.model,
                    "method": row.method,
                    "label": row.label,
                    "options": row.values["method"],
                    "trainable": row.trainable,
                    "off": row.off,
                    **told,
                }
                for row, told in self.told_rows()
            ],
            "cells": [entry_of(cell, state) for cell, state in self.cells],
            "notes": self.notes,
            "next": self.next,
            "report": None if self.page is None else str(self.page),
        }


def outcome_of(bench: Bench) -> Outcome:
    """Read the boards of a bench off its runs; the cells of former calls in its folder count as well."""
    from peftx.bench.averages import averages_of
    from peftx.bench.standings import boards_of

    loop = bench.loop
    outcome = Outcome(
        bench.out,
        bench.grid.suite,
        bench.grid.about,
        bench.grid.rows,
        dict(loop.choices),
        [(cell, loop.states[name]) for name, cell in loop.cells.items()],
    )
    told = bench.store.read()
    if told is not None:
        outcome.boards = boards_of(bench.out, told, bench.registry)
        outcome.averages = averages_of(bench.out, told, outcome.boards, bench.registry)
        outcome.notes = [
            *_override_notes(bench),
            *(f"{row.label} on {row.data}: {row.off}" for row in outcome.rows if row.off),
            *_search_notes(outcome),
            *_failure_notes(told["cells"]),
        ]
    outcome.next = _next(bench, outcome)
    return outcome


def search_table(outcome: Outcome) -> Table | None:
    """Validation score by rate for every row that was searched, a line for each weight decay; the chosen one is
    marked."""
    searched = [(row, outcome.choices[row.folder]) for row in outcome.rows if row.folder in outcome.choices]
    if not searched:
        return None
    rates = sorted({point.lr for _, choice in searched for point in choice.states})
    decays = any(point.weight_decay is not None for _, choice in searched for point in choice.states)
    several = len({(row.data, row.model) for row, _ in searched}) > 1
    columns = [Column("method", "method", left=True)]
    columns += [Column("place", "on", left=True)] if several else []
    columns += [Column("decay", "weight_decay", "{:g}".format)] if decays else []
    columns += [Column(f"{rate}", f"lr={rate:g}") for rate in rates]
    rows: list[dict[str, Any]] = []
    for row, choice in searched:
        lines: dict[float | None, dict[str, Any]] = {}
        for point, state in choice.states.items():
            line = lines.setdefault(
                point.weight_decay,
                {"method": row.label, "place": f"{row.data}, {row.model}", "decay": point.weight_decay},
            )
            mark = "*" if point == choice.point else " "
            line[f"{point.lr}"] = f"{_figure(state)}{mark}"
        rows += lines.values()
    return Table(columns, rows)


def size_table(rows: tuple[Row, ...]) -> Table:
    """How each row meets a budget of trained parameters."""
    columns = [
        Column("method", "method", left=True),
        Column("place", "on", left=True),
        Column("options", "size", left=True),
        Column("trainable", "trainable", count),
        Column("off", "against the budget", left=True),
    ]
    return Table(
        columns,
        [
            {
                "method": row.label,
                "place": f"{row.data}, {row.model}",
                "options": size_of(row),
                "trainable": row.trainable,
                "off": row.off or None,
            }
            for row in rows
        ],
    )


def size_of(row: Row) -> str:
    """The size a row was given, in words."""
    name = row.plan.method.spec.size
    options = row.values["method"]
    if not name or name not in options:
        return "as it is"
    size = f"{name}={options[name]}"
    own = options.get(f"{name}_pattern") or {}
    return f"{size}, {name}={next(iter(own.values()))} at some sites" if own else size


def _figure(state: State) -> str:
    if state.word == DONE and state.value is not None:
        return percent(state.value) if state.unit == "%" else f"{state.value:.4g}"
    return state.word


def _override_notes(bench: Bench) -> list[str]:
    """What of the suite's protocol, as its `about` tells it, is not so here."""
    given = {key: value for key, value in bench.request.train.items() if f"train.{key}" not in FREE}
    told = ", ".join(f"{key}={value}" for key, value in given.items())
    return [f"the training is not the suite's: {told} was asked for"] if told else []


def _search_notes(outcome: Outcome) -> list[str]:
    found = []
    for row in outcome.rows:
        choice = outcome.choices.get(row.folder)
        if choice is not None and choice.at_edge:
            found.append(
                f"{row.label} on {row.data}: the {choice.at_edge} rate searched was the best, lr={choice.rate:g}; a "
                "better one may lie beyond"
            )
    return found


def _failure_notes(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every row with failed cells once, with its first cause."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["state"] == FAILED:
            found.setdefault((cell["label"], cell["data"], cell["model"]), []).append(cell.get("cause", ""))
    notes = []
    for (label, data, _), causes in found.items():
        times = f" ({len(causes)} runs)" if len(causes) > 1 else ""
        first = causes[0].splitlines()[0] if causes[0] else "nobody said why"
        notes.append(f"{label} on {data} failed{times}: {first}")
    return notes


def _next(bench: Bench, outcome: Outcome) -> list[str]:
    name = shlex.quote(bench.out.as_posix())
    found = [f"peftx leaderboard --root {name}"]
    best = _best_two(outcome)
    if best:
        found.append("peftx compare " + " ".join(shlex.quote(folder) for folder in best))
    if outcome.failed:
        found.append(f"{bench.request.command} --resume")
    return found


def _best_two(outcome: Outcome) -> list[str]:
    """The folders of the two best rows of the first board that has two."""
    for board in outcome.boards:
        ranked = [one for one in board.standings if one.rank is not None and one.folders]
        if len(ranked) > 1:
            return [Path(one.folders[0]).parent.as_posix() for one in ranked[:2]]
    return []
