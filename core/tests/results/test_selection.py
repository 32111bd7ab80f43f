"""A run whose validation cannot give the primary metric: what selected there decides there, and the primary on test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench.states import state_of
from peftx.report import RunSource
from peftx.report.order import decides
from peftx.report.results_table import metrics, results
from peftx.results import Index, boards, compare
from peftx.runs import record as records
from peftx.runs.result import result_table

SELECTS = {"primary": "f1", "units": {}, "selects": "residual", "selects_higher_is_better": False}


def scored(method: str, f1: float | None, residual: float) -> dict[str, Any]:
    found = {"val": {"residual": residual}} | ({} if f1 is None else {"test": {"f1": f1}})
    return {
        "method": method,
        "options": {},
        "train": {"lr": 0.01},
        "trainable": 10,
        "seconds": 1.0,
        "epochs": 2,
        "best_epoch": 1,
        "history": [{"epoch": 1, "residual": residual}, {"epoch": 2, "residual": residual + 1}],
        "metrics": found,
    }


@pytest.fixture
def tested(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    rows = scored("core.lora", 0.5, 3.0), scored("core.head", 0.75, 4.0)
    return write_run(tmp_path / "runs" / "a", *rows, **SELECTS)


@pytest.fixture
def untested(write_run: Callable[..., Path], tmp_path: Path) -> Path:
    rows = scored("core.lora", None, 3.0), scored("core.head", None, 4.0)
    return write_run(tmp_path / "runs" / "a", *rows, **SELECTS, sizes={"train": 10, "val": 5})


def test_a_record_without_it_is_decided_by_its_primary_metric_everywhere() -> None:
    record = {"primary": "accuracy", "higher_is_better": True}
    assert decides(record, "val") == decides(record, "test") == ("accuracy", True)
    assert decides(record | SELECTS, "val") == ("residual", False)
    assert decides(record | SELECTS, "test") == ("f1", True)


def test_the_table_shows_each_split_by_its_metric(tested: Path) -> None:
    table = result_table(records.read(tested))
    assert [column.title for column in table.columns][-2:] == ["val residual", "test f1"]
    assert [(row["val"], row["test"]) for row in table.rows] == [(3.0, 0.5), (4.0, 0.75)]


def test_a_search_chooses_by_what_selects_and_in_its_direction(tested: Path, untested: Path) -> None:
    found = state_of(untested)
    assert (found.split, found.metric, found.value, found.higher) == ("val", "residual", 3.0, False)
    assert state_of(untested, last_epoch=True).value == 4.0


def test_a_tested_cell_counts_by_the_primary_metric(tested: Path) -> None:
    found = state_of(tested)
    assert (found.split, found.metric, found.value, found.higher) == ("test", "f1", 0.5, True)


def test_a_page_compares_on_test_and_shows_both(tested: Path) -> None:
    source = RunSource.read(tested)
    assert (source.primary, source.higher_is_better, source.metric("val")) == ("f1", True, "residual")
    assert source.score(source.rows[0]) == 0.5
    text = str(results(source))
    assert "validation residual" in text and "test f1" in text and "validation f1" not in text
    assert "residual" in str(metrics(source))


def test_a_page_without_test_scores_compares_by_what_selected(untested: Path) -> None:
    source = RunSource.read(untested)
    assert (source.primary, source.higher_is_better) == ("residual", False)
    assert source.score(source.rows[0]) == 3.0


def test_the_index_finds_and_sorts_by_it(tested: Path) -> None:
    with Index(tested.parent, memory=True) as index:
        own, other = index.entries(sort=["-val"])[::-1]
        assert (own.method, own.score("val"), own.score("test")) == ("core.lora", 3.0, 0.5)
        assert (own.decides("val"), own.decides("test")) == (("residual", False), ("f1", True))
        assert [entry.method for entry in index.entries(["val>3.5"])] == [other.method] == ["core.head"]


def test_boards_rank_on_test_by_the_primary_metric(tested: Path) -> None:
    with Index(tested.parent, memory=True) as index:
        (board,) = boards(index)
        assert (board.split, board.primary, board.higher_is_better) == ("test", "f1", True)
        assert [(one.method, one.rank) for one in board.standings] == [("core.head", 1), ("core.lora", 2)]


def test_boards_of_data_without_test_rank_by_what_selected(untested: Path) -> None:
    with Index(untested.parent, memory=True) as index:
        (board,) = boards(index)
        assert (board.split, board.primary, board.higher_is_better) == ("val", "residual", False)
        assert [(one.method, one.rank) for one in board.standings] == [("core.lora", 1), ("core.head", 2)]


def test_asked_for_by_name_it_keeps_its_direction(untested: Path) -> None:
    with Index(untested.parent, memory=True) as index:
        (board,) = boards(index, metric="residual")
        assert board.higher_is_better is False  # its name says nothing of a loss or an error


def test_comparisons_begin_with_what_decides(write_run: Callable[..., Path], tmp_path: Path) -> None:
    folders = []
    for name, residual in (("a", 3.0), ("b", 2.0)):
        row = scored("core.lora", 0.5, residual)
        row["metrics"]["val"]["another"] = 1.0
        folders.append(write_run(tmp_path / name, row, **SELECTS))
    scores = compare(folders).scores
    assert list(dict.fromkeys((one.split, one.metric) for one in scores)) == [
        ("test", "f1"),
        ("val", "residual"),
        ("val", "another"),
    ]
