"""What a bench prints while it works."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from peftx.bench.cells import Cell, Point
from peftx.bench.progress import Bars, Lines, Pace, bench_progress, told
from peftx.bench.states import DIVERGED, DONE, FAILED, State


def cell(number: int, method: str = "core.lora", **more: Any) -> Cell:
    values = {"seed": number, "point": None, "search": False, **more}
    return Cell(f"d/m/{method}/{number}", "toy.points", "toy.net", method, method, config={}, **values)


SCORED = State(DONE, split="test", metric="accuracy", unit="%", value=97.771)


def test_a_line_for_each_finished_cell() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin(3, 1, 2)
    lines.started(cell(1))
    lines.finished(cell(1), SCORED, [cell(2)])
    lines.finished(cell(2), State(FAILED, "the process ended with signal 9\nand more"), [])
    lines.note("something")
    assert stream.getvalue().splitlines() == [
        "3 cells, 1 of them stand already; 2 at a time",
        "[2/3] core.lora on toy.points, seed 1: test accuracy 97.77 %, in 0.0 s, about 0.0 s left",
        "[3/3] core.lora on toy.points, seed 2: failed (the process ended with signal 9)",
        "note: something",
    ]


def test_a_cell_of_a_search_is_called_by_its_rate() -> None:
    assert cell(0, point=Point(0.003), search=True).place == "core.lora on toy.points, search lr=0.003"
    both = cell(0, point=Point(0.003, 1e-4), search=True)
    assert both.place == "core.lora on toy.points, search lr=0.003 weight_decay=0.0001"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (SCORED, "test accuracy 97.77 %"),
        (State(DONE, split="val", metric="error", value=0.123456), "val error 0.1235"),
        (State(DONE), "done"),
        (State(DIVERGED, "the loss became nan"), "diverged (the loss became nan)"),
        (State(FAILED), "failed"),
    ],
)
def test_states_in_words(state: State, text: str) -> None:
    assert told(state) == text


def test_the_rest_is_foreseen_from_cells_of_the_same_method(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace()
    pace.jobs = 2
    assert pace.left([cell(1)]) is None
    for number, (method, took) in enumerate([("fast", 10), ("slow", 30), ("slow", 50)]):
        pace.started(cell(number, method))
        now[0] += 5  # its process starts
        pace.working(cell(number, method))
        pace.working(cell(number, method))
        now[0] += took
        assert pace.finished(cell(number, method)) == took
    assert pace.left([cell(7, "fast"), cell(8, "slow")]) == (10 + 40) / 2
    assert pace.left([cell(9, "other")]) == 30 / 2
    pace.started(cell(8, "slow"))
    now[0] += 15
    assert pace.left([cell(8, "slow")]) == (40 - 15) / 2
    now[0] += 1000
    assert pace.left([cell(8, "slow")]) == 0


def test_traces_are_for_those_who_ask() -> None:
    for traces in (False, True):
        stream = io.StringIO()
        Lines(stream, traces=traces).finished(cell(1), State(FAILED, "x"), [], "Traceback: here")
        assert ("Traceback: here" in stream.getvalue()) is traces


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with bench_progress(io.StringIO()) as progress:
        assert type(progress) is Lines
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with bench_progress(stream) as progress:
        assert isinstance(progress, Bars)
        progress.begin(2, 0, 1)
        progress.started(cell(1))
        progress.moved(cell(1), {"text": "training"})
        progress.moved(cell(1), {"done": 3, "total": 10})
        progress.returned(cell(1))
        progress.started(cell(1))
        progress.finished(cell(1), SCORED, [])
    assert "[1/2] core.lora on toy.points, seed 1: test accuracy 97.77 %" in stream.getvalue()
