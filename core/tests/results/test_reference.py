"""Gaps to the row that a task names as its reference: in the table of a run, on its page, and on boards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.report.board import Board, Standing
from peftx.report.results_table import results
from peftx.report.source import RunSource
from peftx.runs import record as records
from peftx.runs.result import gap_to_reference, result_table

Write = Callable[..., Path]
Row = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, write_run: Write, make_row: Row) -> Path:
    rows = make_row("core.lora", 90.0), make_row("core.head", 85.5), make_row("core.full", 84.0)
    return write_run(tmp_path / "runs" / "a", *rows, reference="core.head")


def test_the_table_of_a_run_tells_every_gap_but_the_references_own(run: Path) -> None:
    record = records.read(run)
    assert [gap_to_reference(record, row) for row in record["rows"]] == [4.5, None, -1.5]
    table = result_table(record)
    assert table.columns[-1].title == "to head"
    assert [line.split()[-1] for line in table.render().splitlines()[2:]] == ["+4.50", "-", "-1.50"]


def test_without_a_reference_there_is_no_gap(run: Path) -> None:
    record = records.read(run)
    for other in (record | {"reference": ""}, record | {"reference": "core.dora"}):
        assert [gap_to_reference(other, row) for row in other["rows"]] == [None] * 3
        assert "gap" not in {column.key for column in result_table(other).columns}


def test_the_page_of_a_run_has_the_column_unless_it_is_the_reference_itself(run: Path) -> None:
    assert "to core.head" in str(results(RunSource.read(run)))
    source = RunSource.read(run)
    source.record["reference"] = "core.lora"
    assert str(results(source)).count("to core.lora") == 1


def standing(method: str, *values: float, seeds: tuple[int, ...] = (), **more: Any) -> Standing:
    return Standing(
        method, method, seeds or tuple(range(len(values))), values, sum(values) / len(values), **more
    )


def board(*standings: Standing, reference: str = "a.plain") -> Board:
    return Board("t", "d", "m", "mse", "", False, "test", standings, reference=reference)


def test_a_gap_is_over_the_seeds_that_both_have() -> None:
    plain, other = standing("a.plain", 1.0, 2.0, 4.0), standing("a.other", 3.0, 1.0, seeds=(2, 0))
    assert board(plain, other).gap(other) == pytest.approx(((3.0 - 4.0) + (1.0 - 1.0)) / 2)
    assert board(plain, other).gap(plain) is None


def test_a_row_of_one_seed_stands_for_all() -> None:
    plain, other = standing("a.plain", 1.0), standing("a.other", 3.0, 5.0)
    assert board(plain, other).gap(other) == 3.0


def test_gaps_need_one_reference() -> None:
    plain, other = standing("a.plain", 1.0), standing("a.other", 3.0)
    printed = standing("a.printed", 2.0, published="a paper")
    assert board(plain, plain, other).gap(other) is None
    assert board(other).gap(other) is None
    assert board(plain, other, reference="").gap(other) is None
    assert board(plain, printed).gap(printed) is None
    assert board(plain, other).to_dict()["standings"][1]["gap"] == 2.0
    assert "+2" in board(plain, other).table().render()
