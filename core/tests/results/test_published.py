"""Published rows: on the board of their data set and no other, marked, never ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peftx.config.suite import Suite
from peftx.results import Index, boards

Write = Callable[..., Path]


def suite(**changes: Any) -> Suite:
    values: dict[str, Any] = {
        "task": "toy.sorting",
        "about": "a test",
        "data": ["toy.small", {"name": "toy.small", "limit": 100}],
        "published": [
            {
                "method": "Theirs",
                "data": "toy.small limit=100",
                "value": 99.0,
                "source": "A paper, table 1",
                "model": "ViT-B",
            },
            {"method": "Others", "data": "toy.small", "value": 12.0, "source": "B paper", "trainable": 7},
        ],
    }
    return Suite.model_validate(values | changes)


@pytest.fixture
def index(tmp_path: Path, write_run: Write) -> Iterator[Index]:
    write_run(tmp_path / "a", data={"limit": 100}, fingerprint="1", test=50.0)
    write_run(tmp_path / "b", fingerprint="2", test=60.0)
    write_run(tmp_path / "c", data={"limit": 7}, fingerprint="3", test=70.0)
    with Index(tmp_path, memory=True) as found:
        yield found


def test_a_row_stands_on_the_board_of_its_data(index: Index) -> None:
    found = {board.data: board.standings for board in boards(index, suites=[suite(), suite()])}
    rows = {
        data: [(s.label, s.published) for s in standings if s.published] for data, standings in found.items()
    }
    assert rows == {
        "toy.small limit=100": [("Theirs (ViT-B)", "A paper, table 1")],
        "toy.small limit=none": [("Others", "B paper")],
        "toy.small limit=7": [],
    }
    theirs = found["toy.small limit=100"][-1]
    assert (theirs.mean, theirs.rank, theirs.n, theirs.pareto, theirs.method) == (
        99.0,
        None,
        0,
        False,
        "Theirs",
    )
    ours = found["toy.small limit=100"][0]
    assert ours.rank == 1, "a published score does not move ours"


def test_suites_of_another_task_and_other_metrics_add_nothing(index: Index) -> None:
    assert not any(s.published for b in boards(index, suites=[suite(task="other.task")]) for s in b.standings)
    assert not any(s.published for b in boards(index, suites=[suite()], metric="loss") for s in b.standings)
    assert not any(s.published for b in boards(index) for s in b.standings)
