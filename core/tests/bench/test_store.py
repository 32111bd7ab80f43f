"""bench.json under several benches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Request
from peftx.bench.grid import Grid, build_grid
from peftx.bench.store import Store
from peftx.config.suite import Suite
from peftx.errors import RunError
from peftx.plugins.registry import Registry

SUITE = Suite.model_validate(
    {"task": "toy.sorting", "about": "Points.", "data": ["points"], "methods": ["core.head"]}
)


@pytest.fixture
def grid(registry: Registry) -> Grid:
    return build_grid("mine", SUITE, Request.model_validate({"suite": "mine"}), registry)


def test_a_bench_that_begins_while_another_one_looks(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = Store.read, []

    def late(store: Store) -> dict[str, Any] | None:
        found = read(store)
        if not asked:
            asked.append(found)
            Store(store.out).begin(grid, SUITE, "peftx bench mine")
        return found

    monkeypatch.setattr(Store, "read", late)
    store = Store(tmp_path / "bench")
    store.look(grid)
    assert asked == [None] and not store.lost


def test_a_folder_of_something_else(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and no bench"):
        Store(tmp_path).look(grid)
