"""Which runs make a board, which a row, and every figure of a row against what was put in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftx.plugins.manager import get_registry
from peftx.report.board import Board, Standing
from peftx.results import Index, boards
from peftx.results.labels import Defaults

Write = Callable[..., Path]
Row = Callable[..., Any]


def all_boards(root: Path, **options: Any) -> list[Board]:
    with Index(root, memory=True) as index:
        return boards(index, **options)


def one_board(root: Path, **options: Any) -> Board:
    (found,) = all_boards(root, **options)
    return found


def labels(board: Board) -> list[str]:
    return [standing.label for standing in board.standings]


def row(board: Board, label: str) -> Standing:
    return next(standing for standing in board.standings if standing.label == label)


# --- a row -------------------------------------------------------------------------------------------------------


def test_a_row_over_three_seeds(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    for seed, score, seconds in ((2, 96.0, 9.0), (0, 97.0, 1.0), (1, 98.0, 2.0)):
        write_run(tmp_path / f"s{seed}", make_row("core.lora", score, seconds=seconds), seed=seed)
    board = one_board(tmp_path)
    assert (board.task, board.data, board.model, board.primary, board.unit, board.split) == (
        "toy.sorting",
        "toy.small",
        "toy.net",
        "accuracy",
        "%",
        "test",
    )
    (found,) = board.standings
    assert (found.label, found.seeds, found.values, found.n) == (
        "core.lora",
        (0, 1, 2),
        (97.0, 98.0, 96.0),
        3,
    )
    assert (found.mean, found.sd, found.rank) == (97.0, 1.0, 1)
    assert (
        found.trainable,
        found.stored_bytes,
        found.peak_memory_bytes,
        found.saved_bytes,
        found.seconds,
    ) == (
        1000,
        4000,
        2**20,
        2048,
        2.0,
    )
    assert found.metrics == {"accuracy": 97.0, "loss": 0.25} and found.lr == (0.01,)
    assert found.folders == tuple(str(tmp_path / f"s{seed}") for seed in range(3))
    assert found.settings["option.rank"] == 8 and found.settings["run.precision"] == "fp32"
    assert board.notes == ()


def test_one_seed_has_no_spread_and_the_board_says_so(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a")
    board = one_board(tmp_path)
    assert board.standings[0].sd is None and "one seed is no spread: differences may be chance" in board.notes


def test_baselines_are_rows_of_their_own_methods(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    write_run(
        tmp_path / "a", make_row("core.dora", 98.0), make_row("core.lora", 97.0), make_row("core.head", 90.0)
    )
    write_run(tmp_path / "b", make_row("core.lora", 96.0), seed=1)
    board = one_board(tmp_path)
    assert labels(board) == ["core.dora", "core.lora", "core.head"]
    assert row(board, "core.lora").values == (97.0, 96.0)
    assert any("not all rows have the same seeds" in note for note in board.notes)


def test_the_same_row_and_seed_count_once_the_newest(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    for day, score in ((1, 90.0), (3, 95.0), (2, 92.0)):
        dora = make_row("core.dora", 80.0 + day, options={"rank": day})
        write_run(
            tmp_path / f"d{day}", dora, make_row("core.head", score), started=f"2026-03-0{day}T00:00:00+00:00"
        )
    found = row(one_board(tmp_path), "core.head")
    assert found.values == (95.0,) and found.folders == (str(tmp_path / "d3"),)


def test_two_settings_are_two_rows_that_say_what_differs(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", options={"rank": 4}, train={"lr": 0.003}, test=1.0)
    write_run(tmp_path / "b", options={"rank": 4}, train={"lr": 0.01}, test=2.0)
    write_run(tmp_path / "c", options={"rank": 8}, train={"lr": 0.01}, test=3.0)
    write_run(tmp_path / "d", method="core.dora", test=4.0)
    assert labels(one_board(tmp_path)) == [
        "core.dora",
        "core.lora rank=8 lr=0.01",
        "core.lora rank=4 lr=0.01",
        "core.lora rank=4 lr=0.003",
    ]


def test_precision_is_a_setting(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", precision="bf16", test=1.0)
    write_run(tmp_path / "b", test=2.0)
    assert labels(one_board(tmp_path)) == ["core.lora precision=fp32", "core.lora precision=bf16"]


def test_what_changes_no_result_makes_no_row(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", train={"workers": 4, "checkpoint": 0.0, "eval_batch_size": 8})
    write_run(tmp_path / "b", seed=1)
    assert one_board(tmp_path).standings[0].n == 2


def test_an_option_from_before_it_existed_has_its_default(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "old", options={"rank": 8, "alpha": 16.0}, seed=0)
    write_run(
        tmp_path / "new", options={"rank": 8, "alpha": 16.0, "dropout": 0.0, "rank_pattern": {}}, seed=1
    )
    assert len(one_board(tmp_path).standings) == 2, "nobody knows the defaults"
    assert one_board(tmp_path, registry=get_registry(("all",))).standings[0].n == 2


# --- what is not counted, and what failed ------------------------------------------------------------------------


def test_runs_of_a_search_are_left_out(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "final", test=95.0)
    for rate in (0.001, 0.1):
        write_run(tmp_path / f"search{rate}", train={"lr": rate}, tested=False, test=99.0)
    write_run(tmp_path / "diverged", train={"lr": 10.0}, tested=False, status="failed", error="loss is NaN")
    board = one_board(tmp_path)
    assert (
        labels(board) == ["core.lora"] and board.standings[0].mean == 95.0 and board.standings[0].failed == 0
    )
    assert any(note.startswith("3 runs are left out") for note in board.notes)


def test_a_search_alone_makes_no_board(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "search", tested=False)
    assert all_boards(tmp_path) == []


def test_without_a_test_split_validation_counts_and_the_board_says_so(
    tmp_path: Path, write_run: Write
) -> None:
    write_run(tmp_path / "a", sizes={"train": 5, "val": 5}, test=1.0)
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    record["rows"][0]["metrics"] = {"val": {"accuracy": 88.0}}
    (tmp_path / "a" / "record.json").write_text(json.dumps(record))
    board = one_board(tmp_path)
    assert board.split == "val" and board.standings[0].mean == 88.0
    assert board.notes[0].startswith("the data have no test split")


def test_failed_runs_are_counted_with_the_cause(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, status="failed", error="loss is NaN at step 3")
    write_run(
        tmp_path / "c",
        make_row("core.dora", 1.0),
        {"method": "core.full", "error": "too little memory"},
        seed=0,
    )
    board = one_board(tmp_path)
    lora, full = row(board, "core.lora"), row(board, "core.full")
    assert (lora.n, lora.failed, lora.cause) == (1, 1, "loss is NaN at step 3")
    assert (full.n, full.mean, full.rank, full.failed, full.cause) == (0, None, None, 1, "too little memory")
    assert board.standings[-1] is full


def test_a_failure_that_was_mended_is_none(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", status="failed", error="no", started="2026-03-01T00:00:00+00:00")
    write_run(tmp_path / "b", started="2026-03-02T00:00:00+00:00")
    assert one_board(tmp_path).standings[0].failed == 0


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    own = make_row("core.lora", 1.0)
    own["metrics"]["test"]["accuracy"] = float("nan")
    write_run(tmp_path / "a", own)
    found = one_board(tmp_path).standings[0]
    assert (found.n, found.failed, found.cause) == (0, 1, "its accuracy is not finite")


def test_unfinished_runs_are_said(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, status="training")
    write_run(tmp_path / "c", method="core.dora", status="interrupted")
    board = one_board(tmp_path)
    assert labels(board) == ["core.lora"] and board.standings[0].failed == 0
    assert {"core.lora: 1 run is not finished", "core.dora: 1 run is not finished"} <= set(board.notes)


CPU = {"device": "cpu", "device_name": "x86_64", "threads": 2, "processes": 1}
GPU = {"device": "cuda", "device_name": "NVIDIA H100", "threads": 2, "processes": 1}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (CPU, CPU, True),
        (CPU, CPU | {"threads": 1}, False),
        (GPU, GPU | {"threads": 16}, True),
        (GPU, GPU | {"device_name": "NVIDIA L4"}, False),
        (GPU, GPU | {"processes": 2}, False),
    ],
)
def test_what_times_depend_on(
    tmp_path: Path, write_run: Write, one: dict[str, Any], other: dict[str, Any], alike: bool
) -> None:
    write_run(tmp_path / "a", seed=0, environment=one)
    write_run(tmp_path / "b", seed=1, environment=other)
    assert (row(one_board(tmp_path), "core.lora").seconds is not None) is alike


def test_times_of_different_devices_have_no_median(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, environment={"device": "cuda"})
    write_run(tmp_path / "c", method="core.dora", seed=0)
    board = one_board(tmp_path)
    lora, dora = row(board, "core.lora"), row(board, "core.dora")
    assert lora.seconds is None and lora.peak_memory_bytes is None and lora.trainable == 1000
    assert dora.seconds == 2.5
    assert "time and memory were measured on different hardware: cpu, 1 thread; cuda" in board.notes
    assert any("core.lora: its seeds ran on different hardware" in note for note in board.notes)


# --- which runs make a board --------------------------------------------------------------------------------------


def test_boards_are_parted_by_task_data_model_and_metric(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", data={"name": "toy.large"})
    write_run(tmp_path / "c", model={"name": "toy.net2"})
    write_run(tmp_path / "d", task={"name": "other.task"})
    write_run(tmp_path / "e", primary="loss", higher_is_better=False)
    found = all_boards(tmp_path)
    assert [(b.task, b.data, b.model, b.primary) for b in found] == [
        ("other.task", "toy.small", "toy.net", "accuracy"),
        ("toy.sorting", "toy.large", "toy.net", "accuracy"),
        ("toy.sorting", "toy.small", "toy.net", "accuracy"),
        ("toy.sorting", "toy.small", "toy.net", "loss"),
        ("toy.sorting", "toy.small", "toy.net2", "accuracy"),
    ]
    assert [b.task for b in all_boards(tmp_path, domain="other")] == ["other.task"]
    assert found[3].standings[0].mean == 0.25 and not found[3].higher_is_better


def test_options_of_data_and_model_part_boards_and_name_them(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", data={"limit": 100, "fraction": 0.2}, fingerprint="1")
    write_run(tmp_path / "b", data={"limit": 1000, "fraction": 0.2}, fingerprint="2")
    write_run(tmp_path / "c", data={"limit": 1000, "fraction": 0.2}, fingerprint="2", model={"width": 5})
    assert [(b.data, b.model) for b in all_boards(tmp_path)] == [
        ("toy.small limit=100", "toy.net width=none"),
        ("toy.small limit=1000", "toy.net width=5"),
        ("toy.small limit=1000", "toy.net width=none"),
    ]


def test_other_files_under_the_same_name_are_other_data(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", fingerprint="aaaa")
    write_run(tmp_path / "b", fingerprint="bbbb")
    assert [b.data for b in all_boards(tmp_path)] == [
        "toy.small fingerprint=aaaa",
        "toy.small fingerprint=bbbb",
    ]


def test_a_part_that_its_options_tell_apart_needs_no_fingerprint(
    tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the 800 images of a search and the 1,000 of the runs after it: other files, and other options."""
    monkeypatch.setattr(
        Defaults, "of", lambda self, section, *more: {"part": "final"} if section == "data" else None
    )
    write_run(tmp_path / "a", data={"part": "final"}, fingerprint="1")
    write_run(tmp_path / "b", data={"part": "tune"}, fingerprint="2")
    assert [b.data for b in all_boards(tmp_path)] == ["toy.small", "toy.small part=tune"]
    write_run(tmp_path / "c", data={"part": "final"}, fingerprint="3")
    assert [b.data for b in all_boards(tmp_path)] == [
        "toy.small fingerprint=1",
        "toy.small fingerprint=3",
        "toy.small part=tune",
    ]


def test_other_weights_are_another_model(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a")
    folder = write_run(tmp_path / "b")
    record = json.loads((folder / "record.json").read_text())
    record["model"] |= {"weights": "mine.pt", "sha256": "beef"}
    (folder / "record.json").write_text(json.dumps(record))
    assert [b.model for b in all_boards(tmp_path)] == [
        "toy.net weights=mine.pt beef",
        "toy.net weights=net.safetensors",
    ]


def test_only_some_folders(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "x" / "a", test=1.0)
    write_run(tmp_path / "y" / "b", test=2.0)
    with Index(tmp_path, memory=True) as index:
        (found,) = boards(index, folders=[tmp_path / "x"])
    assert found.standings[0].values == (1.0,)


# --- rank and front ------------------------------------------------------------------------------------------------


def test_ties_share_a_rank_and_the_smaller_comes_first(
    tmp_path: Path, write_run: Write, make_row: Row
) -> None:
    for name, score, size in (("core.lora", 95.0, 100), ("core.head", 95.0, 10), ("core.full", 99.0, 1000)):
        write_run(tmp_path / name, make_row(name, score, trainable=size))
    board = one_board(tmp_path)
    assert [(s.label, s.rank, s.pareto) for s in board.standings] == [
        ("core.full", 1, True),
        ("core.head", 2, True),
        ("core.lora", 2, False),
    ]


@pytest.mark.parametrize(
    ("cost", "field"),
    [
        ("stored", "stored_bytes"),
        ("memory", "peak_memory_bytes"),
        ("seconds", "seconds"),
        ("trainable", "trainable"),
    ],
)
def test_the_front_is_drawn_against_the_cost_asked_for(
    tmp_path: Path, write_run: Write, make_row: Row, cost: str, field: str
) -> None:
    write_run(tmp_path / "a", make_row("core.lora", 95.0, **{field: 9}))
    write_run(tmp_path / "b", make_row("core.dora", 96.0, **{field: 9}))
    write_run(tmp_path / "c", make_row("core.head", 90.0, **{field: 1}))
    board = one_board(tmp_path, pareto=cost)
    assert {s.method for s in board.standings if s.pareto} == {"core.dora", "core.head"}


def test_lower_is_better_where_the_record_says_so(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", test=2.0, higher_is_better=False)
    write_run(tmp_path / "b", method="core.dora", test=1.0, higher_is_better=False)
    assert labels(one_board(tmp_path)) == ["core.dora", "core.lora"]


def test_another_metric(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    lora, dora = make_row("core.lora", 99.0), make_row("core.dora", 1.0)
    dora["metrics"]["test"]["loss"] = 0.125
    dora["metrics"]["test"]["f1"] = 0.5
    write_run(tmp_path / "a", lora)
    write_run(tmp_path / "b", dora)
    board = one_board(tmp_path, metric="loss")
    assert (board.primary, board.unit, board.higher_is_better) == ("loss", "", False)
    assert [(s.method, s.mean) for s in board.standings] == [("core.dora", 0.125), ("core.lora", 0.25)]
    assert labels(one_board(tmp_path, metric="loss", higher_is_better=True)) == ["core.lora", "core.dora"]
    board = one_board(tmp_path, metric="f1")
    assert labels(board) == ["core.dora"] and "core.lora: 1 run is without a test f1" in board.notes
    assert all_boards(tmp_path, metric="wer") == []


SCORES = st.lists(
    st.tuples(st.sampled_from(["core.lora", "core.dora", "core.head"]), st.integers(0, 2), st.integers(0, 8)),
    min_size=1,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(runs=SCORES)
def test_every_figure_can_be_worked_out_from_the_runs(
    tmp_path_factory: pytest.TempPathFactory, write_run: Write, runs: list[tuple[str, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("runs")
    newest: dict[tuple[str, int], float] = {}
    for number, (method, seed, score) in enumerate(runs):
        write_run(
            root / str(number),
            method=method,
            seed=seed,
            test=float(score),
            started=f"2026-03-01T00:00:{number:02d}+00:00",
        )
        newest[method, seed] = float(score)
    board = one_board(root)
    assert {s.method for s in board.standings} == {method for method, _ in newest}
    for standing in board.standings:
        own = {seed: score for (method, seed), score in newest.items() if method == standing.method}
        assert dict(zip(standing.seeds, standing.values, strict=True)) == own
        assert standing.mean == pytest.approx(math.fsum(own.values()) / len(own))
        means = [other.mean or 0.0 for other in board.standings]
        assert standing.rank == 1 + sum(mean > (standing.mean or 0.0) + 1e-9 for mean in means)
    assert [s.rank for s in board.standings] == sorted(s.rank or 0 for s in board.standings)


# --- scores of other epochs --------------------------------------------------------------------------------------


def look(epoch: int, accuracy: float) -> dict[str, Any]:
    return {"epoch": epoch, "metrics": {"test": {"accuracy": accuracy, "loss": 0.5}}}


def test_other_epochs_scores_stand_beside_the_mean_and_rank_nothing(
    tmp_path: Path, write_run: Write, make_row: Row
) -> None:
    for seed in (0, 1):
        last, best = look(20, 90.0 + seed), look(7, 99.0 + seed)
        write_run(
            tmp_path / f"a{seed}",
            make_row("core.lora", 95.0, last_epoch=last, best_on_test=best | {"optimistic": True}),
            make_row("core.head", 96.0, last_epoch=look(20, 96.0)),
            seed=seed,
        )
    board = one_board(tmp_path)
    assert labels(board) == ["core.head", "core.lora"], "99.5 on test is no rank"
    lora, head = row(board, "core.lora"), row(board, "core.head")
    assert (lora.mean, lora.last_epoch, lora.best_on_test) == (95.0, 90.5, 99.5)
    assert (head.last_epoch, head.best_on_test) == (96.0, None)
    shown = {one["label"]: one for one in board.table().to_dict()}
    assert shown["core.lora"]["last_epoch"] == 90.5 and shown["core.lora"]["best_on_test"] == 99.5
    assert shown["core.head"]["last_epoch"] is None, "the last epoch is the one that was kept"
    assert "best on test (optimistic)" in board.table().render()


def test_a_seed_without_a_look_leaves_the_row_without_its_mean(
    tmp_path: Path, write_run: Write, make_row: Row
) -> None:
    write_run(tmp_path / "a", make_row("core.lora", 95.0, last_epoch=look(20, 90.0)), seed=0)
    write_run(tmp_path / "b", make_row("core.lora", 95.0), seed=1)
    assert row(one_board(tmp_path), "core.lora").last_epoch is None
    assert "last epoch" not in one_board(tmp_path).table().render()
