"""The toy pack and a pack of suites over it, installed for these tests as real distributions would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome, Request, run
from peftx.bench.cells import Cell
from peftx.bench.executor import Event
from peftx.bench.job import carry_out
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


class Inline:
    """Carries cells out in this process, one after the other, through the JSON that processes are given."""

    jobs = 1

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.waiting: list[str] = []

    @property
    def free(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, job: Mapping[str, Any]) -> None:
        self.waiting.append(json.dumps(job))

    def poll(self, timeout: float) -> list[Event]:
        if not self.waiting:
            return []
        job = json.loads(self.waiting.pop())
        said = carry_out(job, self.registry)
        return [Event("reply", job["cell"], json.loads(json.dumps(said)))]

    def stop(self) -> None:
        self.waiting = []

    def close(self) -> None:
        self.waiting = []


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    """Cells run in this process: tests of what a bench does, not of its processes, need no other."""
    monkeypatch.setattr("peftx.bench.running.make_executor", lambda request: Inline(registry))


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Request]:
    """A request for a suite of the pack, on one thread."""

    def make(suite: str = "grid/small", **values: Any) -> Request:
        settings = {"out": tmp_path / "out", "device": "cpu", "efficiency": False, "threads": 1}
        return Request.model_validate({"suite": suite, **settings, **values})

    return make


@pytest.fixture
def bench(registry: Registry, heard: Heard, asked: Callable[..., Request]) -> Callable[..., Outcome]:
    """Run a bench of the pack; `heard` keeps what it told."""

    def call(suite: str = "grid/small", **values: Any) -> Outcome:
        heard.__init__()  # type: ignore[misc]
        return run(asked(suite, **values), registry, heard)

    return call
