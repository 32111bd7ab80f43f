"""What a bench does with its cells: run, keep, refuse, go on, retry. The cells run in this process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome, Request, prepare
from peftx.bench.progress import BenchProgress
from peftx.config.run import RunConfig
from peftx.errors import Interrupted, RunError
from peftx.plugins.registry import Registry
from peftx.runs import execute, record

pytestmark = pytest.mark.usefixtures("inline")

Call = Callable[..., Outcome]
ONE = {"methods": ({"name": "core.head"},), "data": ({"name": "toy.points", "spread": 2.0},), "seeds": 1}


def states(outcome: Outcome) -> dict[str, str]:
    return {cell.folder: state.word for cell, state in outcome.cells}


def told(out: Path) -> dict[str, Any]:
    return json.loads((out / "bench.json").read_text())


def test_every_cell_is_an_ordinary_run_with_the_result_it_would_have_alone(
    bench: Call, registry: Registry, tmp_path: Path
) -> None:
    outcome = bench()
    out = tmp_path / "out"
    assert states(outcome) == {
        f"{data}/toy.net/{method}/seed{seed}": "done"
        for data in ("toy.points-spread=2", "toy.points-classes=4-spread=2")
        for method in ("core.head", "core.lora")
        for seed in (0, 1)
    }
    alone = execute(
        RunConfig.model_validate(
            {
                "task": {"name": "grid.sorting"},
                "method": {"name": "core.lora"},
                "data": {"name": "toy.points", "spread": 2.0, "classes": 4},
                "train": {"epochs": 2, "batch_size": 16},
                "seed": 1,
                "device": "cpu",
                "baselines": [],
                "out": tmp_path / "alone",
            }
        ),
        registry,
    )
    cell = out / "toy.points-classes=4-spread=2" / "toy.net" / "core.lora" / "seed1"
    assert record.read(cell)["rows"][0]["metrics"] == alone.record["rows"][0]["metrics"]
    saved = "adapter/adapter.safetensors"
    assert (cell / saved).read_bytes() == (tmp_path / "alone" / saved).read_bytes()
    assert not (cell / "report.html").exists() and not (cell / "checkpoint").exists()


def test_boards_say_how_methods_stand(bench: Call, tmp_path: Path) -> None:
    outcome = bench()
    assert [board.data for board in outcome.boards] == [
        "toy.points spread=2",
        "toy.points classes=4 spread=2",
    ]
    for board, folder in zip(
        outcome.boards, ("toy.points-spread=2", "toy.points-classes=4-spread=2"), strict=True
    ):
        assert board.split == "test" and {one.method for one in board.standings} == {"core.head", "core.lora"}
        for one in board.standings:
            runs = [
                record.read(tmp_path / "out" / folder / "toy.net" / one.method / f"seed{k}") for k in (0, 1)
            ]
            assert one.seeds == (0, 1)
            assert one.values == tuple(run["rows"][0]["metrics"]["test"]["accuracy"] for run in runs)
    assert outcome.page == tmp_path / "out" / "report.html" and "Points, twice." in outcome.page.read_text()
    assert outcome.next[0].startswith("peftx leaderboard --root ")
    assert outcome.next[1].startswith("peftx compare ") and outcome.next[1].count("/toy.net/") == 2


def test_the_file_says_what_the_bench_is_and_how_far(bench: Call, tmp_path: Path) -> None:
    bench(command="peftx bench grid/small", data=ONE["data"])
    found = told(tmp_path / "out")
    assert (found["format"], found["suite"], found["about"]) == (1, "grid.small", "Points, twice.")
    assert found["command"] == "peftx bench grid/small" and found["task"] == "grid.sorting"
    assert found["options"]["methods"] == ["core.head", "core.lora"] and found["options"]["seeds"] == [0, 1]
    assert found["options"]["train"] == {"epochs": 3, "batch_size": 16}
    assert [cell["state"] for cell in found["cells"]] == ["done"] * 4
    first = found["cells"][0]
    assert first["metric"] == "accuracy" and first["split"] == "test" and first["value"] > 60
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_seeds_are_the_outer_loop(bench: Call, heard: Any) -> None:
    bench(data=ONE["data"])
    assert [folder.rpartition("seed")[2] for folder in heard.started_cells] == list("0011")


def test_settings_over_the_suites_are_a_note(bench: Call) -> None:
    """The suite's own words about its protocol stand above the table."""
    asked = {"epochs": 1, "checkpoint": 5.0}
    assert bench(**ONE, train=asked).notes == ["the training is not the suite's: epochs=1 was asked for"]


def test_the_same_again_keeps_everything(bench: Call, heard: Any) -> None:
    first = bench(data=ONE["data"])
    again = bench(data=ONE["data"])
    assert heard.started_cells == []
    assert [board.to_dict() for board in again.boards] == [board.to_dict() for board in first.boards]
    assert states(again) == states(first)


def test_a_bench_whose_file_was_lost_is_found_in_its_records(bench: Call, heard: Any, tmp_path: Path) -> None:
    bench(data=ONE["data"])
    before = told(tmp_path / "out")
    (tmp_path / "out" / "bench.json").unlink()
    bench(data=ONE["data"])
    after = told(tmp_path / "out")
    assert heard.started_cells == []
    for one in (before, after):
        one.pop("started")
        one["cells"].sort(key=lambda cell: cell["folder"])
    assert after == before
    assert heard.notes[0].startswith(
        f"{tmp_path / 'out' / 'bench.json'} was lost: runs that stand there are kept"
    )


@pytest.mark.parametrize(("first", "second"), [((1e-2, 1e-1), None), (None, (1e-2, 1e-1))])
def test_a_search_is_told_from_none_without_the_file(
    bench: Call, heard: Any, tmp_path: Path, first: Any, second: Any
) -> None:
    bench(**ONE, search=first)
    (tmp_path / "out" / "bench.json").unlink()
    with pytest.raises(RunError, match=r"was searched for its|was trained without a search"):
        bench(**ONE, search=second)
    assert heard.started_cells == []
    assert bench(**ONE, search=first).failed == [] and heard.started_cells == []


def test_more_seeds_and_methods_join_what_is_there(bench: Call, heard: Any, tmp_path: Path) -> None:
    bench(**ONE)
    outcome = bench(**{**ONE, "seeds": 2, "methods": ({"name": "core.lora"}, {"name": "core.head"})})
    assert len(heard.started_cells) == 3
    bench(**{**ONE, "methods": ({"name": "core.full"},)})
    assert len(heard.started_cells) == 1
    assert len(told(tmp_path / "out")["cells"]) == 5, "cells of former calls stay known"
    assert {one.method for one in bench(**ONE).boards[0].standings} == {"core.head", "core.lora", "core.full"}
    assert len(outcome.boards[0].standings) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"epochs": 4}}, "train.epochs: 3 there, 4 now"),
        ({"precision": "bf16"}, "precision: 'fp32' there, 'bf16' now"),
        ({"device": "auto"}, "device: 'cpu' there, 'auto' now"),
        ({"search": (0.1,)}, r"search: not set there, \[0.1\] now"),
        ({"budget": 100}, "budget: not set there, 100 now"),
    ],
)
def test_another_protocol_needs_another_folder(
    bench: Call, heard: Any, change: dict[str, Any], message: str
) -> None:
    bench(**ONE)
    with pytest.raises(
        RunError, match=f"holds a bench with other settings; name another --out.*\n.*{message}"
    ):
        bench(**ONE, **change)
    assert heard.started_cells == []


def test_a_cell_that_was_run_otherwise_is_refused_without_the_file_too(
    bench: Call, heard: Any, tmp_path: Path
) -> None:
    bench(**ONE)
    (tmp_path / "out" / "bench.json").unlink()
    with pytest.raises(
        RunError, match=r"seed0 was run with other settings.*\n  train.epochs: 3 there, 4 now\nname"
    ):
        bench(**{**ONE, "methods": ({"name": "core.lora"}, {"name": "core.head"})}, train={"epochs": 4})
    assert heard.started_cells == []
    assert not (tmp_path / "out" / "bench.json").exists(), "a refused bench writes nothing"


def test_what_changes_no_score_may_change(bench: Call, heard: Any, tmp_path: Path) -> None:
    bench(**ONE)
    bench(**ONE, offline=True, data_root=tmp_path, efficiency=True, jobs=2)
    assert heard.started_cells == []
    bench(**ONE, train={"checkpoint": 5.0, "workers": 1})
    assert heard.started_cells == []


def test_a_cell_that_fails_is_told_and_left_alone_until_it_is_asked_for(
    bench: Call, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**ONE, "methods": ({"name": "grid.raising"}, {"name": "core.head"})}
    outcome = bench(**asked, command="peftx bench grid/small")
    assert [state.word for _, state in outcome.cells] == ["failed", "done"]
    assert outcome.failed[0][1].cause == "ValueError: no luck today"
    assert "grid.raising on toy.points spread=2 failed: ValueError: no luck today" in outcome.notes
    assert outcome.next[-1] == "peftx bench grid/small --resume"
    again = bench(**asked)
    assert heard.started_cells == [] and len(again.failed) == 1
    import benchpack_task

    monkeypatch.setattr(benchpack_task.Raising, "check", lambda self, plan, config: None)
    mended = bench(**asked, resume=True)
    assert [folder.split("/")[2] for folder in heard.started_cells] == ["grid.raising"]
    assert mended.failed == [] and not any("no luck" in note for note in mended.notes)
    assert bench(**asked).failed == []


def test_the_best_on_test_is_told_and_ranks_nothing(bench: Call, tmp_path: Path) -> None:
    outcome = bench(**ONE, best_on_test=True, search=(1e-1,))
    (standing,) = outcome.boards[0].standings
    assert standing.best_on_test is not None and standing.best_on_test >= (standing.mean or 0.0)
    assert "best on test (optimistic)" in outcome.boards[0].table().render()
    searched = next((tmp_path / "out").rglob("search/*/record.json"))
    assert "best_on_test" not in json.loads(searched.read_text())["rows"][0], "a search sees no test"
    with pytest.raises(RunError, match="best_on_test: True there, False now"):
        bench(**ONE, search=(1e-1,))


def test_training_that_stops_itself_is_a_failed_cell_with_a_record(bench: Call, tmp_path: Path) -> None:
    outcome = bench(**ONE, train={"lr": 1e30})
    assert "the loss became" in outcome.failed[0][1].cause
    folder = tmp_path / "out" / outcome.failed[0][0].folder
    assert record.read(folder)["status"] == "failed"
    assert (
        outcome.boards[0].standings[0].failed == 1 and "loss became" in outcome.boards[0].standings[0].cause
    )


def test_an_interrupted_bench_says_how_to_go_on_and_does(
    asked: Callable[..., Request],
    bench: Call,
    registry: Registry,
    heard: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def finished(self: Any, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        patch.setattr(BenchProgress, "finished", finished)
        from peftx.bench import run

        run(asked(command="peftx bench grid/small --jobs 2", data=ONE["data"]), registry, BenchProgress())
    assert str(caught.value) == "stopped: 1 of 4 cells are done; go on with `peftx bench grid/small --jobs 2`"
    assert signal.getsignal(signal.SIGINT) is before
    outcome = bench(data=ONE["data"])
    assert len(heard.started_cells) == 3 and set(states(outcome).values()) == {"done"}


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(
    bench: Call, heard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench(**ONE, train={"checkpoint": 0.0})
    folder = tmp_path / "out" / whole.cells[0][0].folder
    expected = (folder / "adapter" / "adapter.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "out")
    with monkeypatch.context() as patch:
        from peftx.training.engine import Training

        real = Training._step

        def dying(self: Any, group: Any) -> None:
            if self.result.steps == 8:
                raise SystemExit  # nothing more is written, as if the process were gone
            real(self, group)

        patch.setattr(Training, "_step", dying)
        with pytest.raises(SystemExit):
            bench(**ONE, train={"checkpoint": 0.0})
    assert record.read(folder)["status"] == "interrupted"
    outcome = bench(**ONE, train={"checkpoint": 0.0})
    assert states(outcome) == {whole.cells[0][0].folder: "done"}
    assert (folder / "adapter" / "adapter.safetensors").read_bytes() == expected
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert record.read(folder)["resumed"], "it went on, it was not begun anew"
    assert [line["step"] for line in steps if line["event"] == "step"] == list(range(1, 19))


# --- folders --------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_hold_a_bench(
    asked: Callable[..., Request], registry: Registry, bench: Call, tmp_path: Path
) -> None:
    def refused(out: Path) -> str:
        with pytest.raises(RunError) as caught:
            prepare(asked(**{**ONE, "out": out}), registry)
        return str(caught.value)

    (tmp_path / "file").write_text("x")
    assert refused(tmp_path / "file") == f"--out {tmp_path / 'file'} is a file; name a folder"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    assert "is not empty and no bench" in refused(tmp_path / "full")
    bench(**ONE)
    cell = tmp_path / "out" / "toy.points-spread=2" / "toy.net" / "core.head" / "seed0"
    assert "is the folder of a run" in refused(cell)
    file = tmp_path / "out" / "bench.json"
    file.write_text(json.dumps(told(tmp_path / "out") | {"suite": "grid.other"}))
    assert f"--out {tmp_path / 'out'} holds a bench of grid.other; name another --out" == refused(
        tmp_path / "out"
    )
    file.write_text(json.dumps(told(tmp_path / "out") | {"format": 99}))
    assert "was written by a later peftx (format 99, this one reads 1)" in refused(tmp_path / "out")


@pytest.mark.parametrize(
    "text", ['{"format": 1}', '{"format": 1, "suite": "grid.small", "options": 4}', "[]", "{"]
)
def test_a_file_of_somebody_else_is_left_alone(
    asked: Callable[..., Request], registry: Registry, tmp_path: Path, text: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bench.json").write_text(text)
    with pytest.raises(RunError, match="is not empty and no bench"):
        prepare(asked(**ONE), registry)
    assert (tmp_path / "out" / "bench.json").read_text() == text


def test_parts_that_are_none_are_left_out(bench: Call, tmp_path: Path) -> None:
    bench(**ONE)
    whole = told(tmp_path / "out")
    broken = {"cells": [*whole["cells"], 3, {"folder": 3}], "rows": [None, {}], "notes": 4, "next": None}
    (tmp_path / "out" / "bench.json").write_text(json.dumps(whole | broken))
    bench(**ONE)
    assert told(tmp_path / "out")["cells"] == whole["cells"] and len(told(tmp_path / "out")["rows"]) == 1


def test_a_damaged_file_is_written_anew(bench: Call, heard: Any, tmp_path: Path) -> None:
    bench(**ONE)
    (tmp_path / "out" / "bench.json").write_text('{"format": 1, "cel')
    bench(**ONE)
    assert heard.started_cells == [] and told(tmp_path / "out")["cells"][0]["state"] == "done"


def test_a_folder_that_cannot_be_written_is_one_sentence(
    asked: Callable[..., Request], registry: Registry, tmp_path: Path
) -> None:
    from peftx.bench import run

    (tmp_path / "taken").write_text("x")
    with pytest.raises(RunError, match=r"cannot write|is a file"):
        run(asked(**{**ONE, "out": tmp_path / "taken" / "out"}), registry)


def test_a_damaged_record_is_a_failed_cell_with_its_cause(bench: Call, heard: Any, tmp_path: Path) -> None:
    outcome = bench(**ONE)
    (tmp_path / "out" / outcome.cells[0][0].folder / "record.json").write_text("{")
    again = bench(**ONE)
    assert heard.started_cells == [] and "record.json is damaged" in again.failed[0][1].cause
