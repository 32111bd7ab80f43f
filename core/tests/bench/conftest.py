"""The toy pack and a pack of suites over it, installed for these tests as real distributions would be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome, Request, run
from peftx.bench.cells import Cell
from peftx.bench.progress import BenchProgress
from peftx.bench.states import State
from peftx.plugins.manager import forget, get_registry
from peftx.plugins.registry import Registry

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def packs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Core, the toy pack and the suites alone, one thread, an empty working folder."""
    for folder in (HERE.parent / "runs" / "toypack", HERE / "benchpack"):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("PEFTX_DISABLE_PLUGINS", raising=False)
    monkeypatch.setenv("PEFTX_PLUGINS", "core,toy,grid")
    monkeypatch.chdir(tmp_path)
    forget()
    yield
    forget()
    for name in ("toypack_plugin", "toypack_task", "toypack_kill", "benchpack_plugin", "benchpack_task"):
        sys.modules.pop(name, None)


@pytest.fixture
def registry(packs: None) -> Registry:
    return get_registry()


class Heard(BenchProgress):
    """Keeps what a bench tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started_cells: list[str] = []
        self.finished_cells: list[tuple[str, str]] = []

    def started(self, cell: Cell) -> None:
        self.started_cells.append(cell.folder)

    def finished(self, cell: Cell, state: State, left: Any, trace: str = "") -> None:
        self.finished_cells.append((cell.folder, state.word))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def bench(registry: Registry, heard: Heard, tmp_path: Path) -> Callable[..., Outcome]:
    """Run a bench of the pack; `heard` keeps what it told."""

    def call(suite: str = "grid/small", **values: Any) -> Outcome:
        settings = {"out": tmp_path / "out", "device": "cpu", "efficiency": False, "threads": 1, "jobs": 2}
        return run(Request.model_validate({"suite": suite, **settings, **values}), registry, heard)

    return call
