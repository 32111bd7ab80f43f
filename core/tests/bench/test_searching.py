"""What a bench does with the runs of a search: chosen on validation, trained for all seeds. The cells run in this
process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome
from peftx.bench.outcome import search_table
from peftx.errors import RunError
from peftx.runs import record

pytestmark = pytest.mark.usefixtures("inline")

Call = Callable[..., Outcome]
ONE = {"methods": ({"name": "core.head"},), "data": ({"name": "toy.points", "spread": 2.0},), "seeds": 1}


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "bench.json").read_text())


def test_a_search_chooses_on_validation_and_its_rate_is_that_of_all_seeds(
    bench: Call, heard: Any, tmp_path: Path
) -> None:
    outcome = bench(search=(1e-4, 1e-1), data=ONE["data"])
    rows = {row.label: told_row for row, told_row in outcome.told_rows()}
    for method, row in rows.items():
        scores = {one["rate"]: one["value"] for one in row["search"]}
        assert set(scores) == {1e-4, 1e-1}
        for rate in scores:
            run = record.read(
                tmp_path / "out" / "toy.points-spread=2" / "toy.net" / method / "search" / f"lr={rate}"
            )
            assert set(run["rows"][0]["metrics"]) == {"val"}
            assert run["rows"][0]["metrics"]["val"]["accuracy"] == scores[rate]
        assert row["lr"] == max(scores, key=scores.__getitem__) == 1e-1
    (board,) = outcome.boards
    assert {one.lr for one in board.standings} == {(1e-1,)} and {one.n for one in board.standings} == {2}
    assert any("the largest rate searched was the best" in note for note in outcome.notes)
    assert len(heard.started_cells) == 2 * 2 + 2 * 2
    bench(search=(1e-4, 1e-1), data=ONE["data"])
    assert heard.started_cells == []


def test_a_weight_decay_is_searched_with_the_rate(bench: Call, heard: Any, tmp_path: Path) -> None:
    asked = {**ONE, "search": (1e-4, 1e-1), "search_decay": (0.0, 0.5)}
    outcome = bench(**asked)
    assert len(heard.started_cells) == 4 + 1 and outcome.failed == []
    ((_, told_row),) = outcome.told_rows()
    best = max(told_row["search"], key=lambda one: one["value"])
    assert told_row["lr"] == 1e-1 and told_row["weight_decay"] in (0.0, 0.5)
    chosen = [one for one in told_row["search"] if one["value"] == best["value"]]
    assert (told_row["lr"], told_row["weight_decay"]) in [
        (one["rate"], one["weight_decay"]) for one in chosen
    ]
    run = record.read(tmp_path / "out" / outcome.cells[-1][0].folder)["rows"][0]["train"]
    assert (run["lr"], run["weight_decay"]) == (told_row["lr"], told_row["weight_decay"])
    table = search_table(outcome)
    assert table is not None
    assert [line["decay"] for line in table.to_dict()] == [0.0, 0.5], "a line for each"
    assert sum(str(value).endswith("*") for line in table.to_dict() for value in line.values()) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "weight_decay" in page.partition("validation score by learning rate")[2]
    bench(**asked)
    assert heard.started_cells == []
    with pytest.raises(RunError, match=r"search: \{'lr': .* there, \[0.0001, 0.1\] now"):
        bench(**ONE, search=(1e-4, 1e-1))


def test_a_search_on_data_of_its_own_and_its_rate_on_the_suites(
    bench: Call, heard: Any, tmp_path: Path
) -> None:
    """As VTAB-1k asks: 800 images to train and 200 to choose by, then all 1,000 at the chosen rate."""
    outcome = bench("grid/parted", search=())
    out = tmp_path / "out" / "toy.points-spread=2" / "toy.net" / "core.head"
    spread = {
        path.parent.name: json.loads((path.parent / "record.json").read_text())["data"]["fingerprint"]
        for path in out.rglob("config.toml")
    }
    assert set(spread) == {"lr=0.01", "lr=0.1", "seed0", "seed1"}
    assert spread["lr=0.01"] == spread["lr=0.1"] != spread["seed0"] == spread["seed1"]
    assert "spread = 1.5" in (out / "search" / "lr=0.1" / "config.toml").read_text()
    # the last epoch is what runs without a validation split keep, so its score chooses, whichever was the best
    searched = [(state.split, state.value) for cell, state in outcome.cells if cell.search]
    last = [
        json.loads((out / "search" / rate / "record.json").read_text())["rows"][0]["history"][-1]
        for rate in ("lr=0.01", "lr=0.1")
    ]
    assert searched == [("val", one["accuracy"]) for one in last] and {one["epoch"] for one in last} == {2}
    (board,) = outcome.boards
    assert board.data == "toy.points spread=2" and {one.n for one in board.standings} == {2}
    bench("grid/parted", search=())
    assert heard.started_cells == []


def test_search_runs_count_on_no_board_even_where_there_is_no_test_split(bench: Call) -> None:
    data = ({"name": "toy.points", "test": False},)
    (board,) = bench(data=data, methods=ONE["methods"], search=(1e-2, 1e-1)).boards
    assert board.split == "val"
    assert [(one.method, one.n) for one in board.standings] == [("core.head", 2)]


def test_a_rate_that_diverges_is_a_result(bench: Call, heard: Any, tmp_path: Path) -> None:
    outcome = bench(**ONE, search=(1e-1, 1e30))
    assert [state.word for cell, state in outcome.cells if cell.search] == ["done", "diverged"]
    assert outcome.failed == [] and outcome.told_rows()[0][1]["lr"] == 1e-1
    assert bench(**ONE, search=(1e-1, 1e30)).failed == [] and heard.started_cells == []
    # who lost bench.json does not know whether it was training that failed: it is asked again, and only it
    (tmp_path / "out" / "bench.json").unlink()
    again = bench(**ONE, search=(1e-1, 1e30))
    assert [folder.rpartition("/")[2] for folder in heard.started_cells] == ["lr=1e+30"]
    assert again.failed == [] and again.told_rows()[0][1]["lr"] == 1e-1


def test_a_row_all_of_whose_rates_diverge_failed(bench: Call, heard: Any, tmp_path: Path) -> None:
    outcome = bench(**ONE, search=(1e29, 1e30))
    assert [state.word for _, state in outcome.cells] == ["diverged", "diverged", "failed"]
    assert outcome.failed[0][1].cause.startswith("every rate diverged (the loss became")
    assert outcome.boards == []
    assert [cell["state"] for cell in told(tmp_path / "out")["cells"]] == ["diverged", "diverged", "failed"]
    bench(**ONE, search=(1e29, 1e30))
    assert heard.started_cells == []


def test_too_little_memory_is_no_result_of_a_search(
    bench: Call, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have had it: the rate was not tried."""
    import torch

    from peftx.runs import rows

    real = rows.fit

    def small(adapted: Any, task: Any, train: Any, **named: Any) -> Any:
        if train.lr == 0.05:
            raise torch.OutOfMemoryError("out of memory")
        return real(adapted, task, train, **named)

    with monkeypatch.context() as patch:
        patch.setattr(rows, "fit", small)
        outcome = bench(**ONE, search=(0.05, 0.1))
    assert [state.word for _, state in outcome.cells] == ["failed", "done", "failed"]
    assert (
        "its search is incomplete: lr=0.05 failed (training core.head does not fit"
        in outcome.failed[1][1].cause
    )
    assert bench(**ONE, search=(0.05, 0.1), resume=True).failed == []


def test_a_search_one_of_whose_runs_failed_chooses_nothing(
    bench: Call, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftx.runs import rows

    real = rows.train_row

    def failing(row: Any, *arguments: Any, **named: Any) -> Any:
        if row.train.lr == 0.05:
            raise ZeroDivisionError("by chance")
        return real(row, *arguments, **named)

    asked = {**ONE, "search": (0.05, 0.1)}
    with monkeypatch.context() as patch:
        patch.setattr("peftx.runs.rows.train_row", failing)
        outcome = bench(**asked)
    assert outcome.cells[-1][1].cause.startswith(
        "its search is incomplete: lr=0.05 failed (ZeroDivisionError"
    )
    assert len(outcome.failed) == 2
    mended = bench(**asked, resume=True)
    assert mended.failed == [] and len(heard.started_cells) == 2
