"""Test scores beside the kept epoch's: the last epoch's always, the best on test when it is asked for."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from peftx.cli import main
from peftx.config.run import RunConfig
from peftx.errors import ConfigError, Interrupted, RunError
from peftx.plugins.registry import Registry
from peftx.runs import execute
from peftx.runs import folder as files
from peftx.runs.looks import Looks

#: overlapping classes and a rate that is too high: validation does not choose the last epoch
RESTLESS = {"epochs": 6, "lr": 0.2, "schedule": "constant", "checkpoint": 0.0}


def config(out: Path, **changes: Any) -> RunConfig:
    base = {
        "task": "toy",
        "method": {"name": "core.lora", "targets": ["glob:*fc1"], "dropout": 0.2},
        "data": {"name": "toy.points", "spread": 3.0},
        "train": RESTLESS,
        "device": "cpu",
        "seed": 1,
        "baselines": [],
        "efficiency": False,
        "report": False,
        "out": out,
    }
    return RunConfig.model_validate(base | changes)


def lines(run: Path, event: str, row: str = "core.lora") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / files.METRICS).read_text().splitlines()]
    return [line for line in found if line["event"] == event and line["row"] == row]


def test_the_last_epoch_is_scored_beside_the_chosen_one(registry: Registry, tmp_path: Path) -> None:
    result = execute(config(tmp_path / "run"), registry)
    (own,) = result.rows
    assert own["best_epoch"] < own["epochs"], "this test needs an earlier epoch that validation prefers"
    assert own["last_epoch"]["epoch"] == own["epochs"]
    (look,) = lines(result.folder, "look")
    assert look["epoch"] == own["epochs"]
    assert look["accuracy"] == own["last_epoch"]["metrics"]["test"]["accuracy"]
    assert "best_on_test" not in own and set(own["metrics"]) == {"val", "test"}
    shown = result.table.to_dict()[0]
    assert shown["last_epoch"] == own["last_epoch"]["metrics"]["test"]["accuracy"]
    assert shown["test"] == own["metrics"]["test"]["accuracy"]


def test_the_last_epochs_score_is_that_of_a_run_that_validates_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same data without their validation split: the last epoch is what is kept, so its score is the score."""
    whole = execute(config(tmp_path / "whole"), registry).rows[0]
    import toypack_task

    load = toypack_task.load_points

    def without(*arguments: Any) -> Any:
        data = load(*arguments)
        data.splits.pop("val")
        return data

    monkeypatch.setattr(toypack_task, "load_points", without)
    last = execute(config(tmp_path / "last"), registry).rows[0]
    assert last["selected_on"] == "last epoch"
    assert whole["best_epoch"] < whole["epochs"]
    assert last["metrics"]["test"] == whole["last_epoch"]["metrics"]["test"]
    assert last["last_epoch"] == {"epoch": 6, "metrics": {"test": last["metrics"]["test"]}}


def test_a_last_epoch_that_is_kept_is_not_scored_twice(registry: Registry, tmp_path: Path) -> None:
    result = execute(config(tmp_path / "run", train={**RESTLESS, "epochs": 1}), registry)
    for row in result.rows:
        assert row["best_epoch"] == row["epochs"] == 1
        assert row["last_epoch"]["metrics"]["test"] == row["metrics"]["test"]
        assert lines(result.folder, "look", row["method"]) == []
    assert "of the last epoch" not in result.table.render()


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}])
def test_best_on_test_looks_at_every_epoch_and_changes_nothing(
    registry: Registry, tmp_path: Path, more: dict[str, Any]
) -> None:
    train = {**RESTLESS, **more}
    plain = execute(config(tmp_path / "plain", train=train), registry)
    looked = execute(config(tmp_path / "looked", train=train, best_on_test=True), registry)
    volatile = ("seconds", "peak_memory_bytes", "best_on_test")
    for one, other in zip(plain.rows, looked.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in volatile} == {
            k: v for k, v in other.items() if k not in volatile
        }
    adapter = "adapter/adapter.safetensors"
    assert (plain.folder / adapter).read_bytes() == (looked.folder / adapter).read_bytes()
    for row in looked.rows:
        seen = {line["epoch"]: line["accuracy"] for line in lines(looked.folder, "look", row["method"])}
        assert list(seen) == [1, 2, 3, 4, 5, 6]
        assert seen[row["best_epoch"]] == row["metrics"]["test"]["accuracy"], "the same state, scored twice"
        best = row["best_on_test"]
        assert best["optimistic"] is True
        assert best["metrics"]["test"]["accuracy"] == max(seen.values()) == seen[best["epoch"]]
    assert "best on test (optimistic)" in looked.table.render()
    assert sum("comparable only with figures that were chosen so" in note for note in looked.notes) == 1
    assert not any("optimistic" in note for note in plain.notes)


@pytest.mark.parametrize(("look", "always"), [(1, False), (4, True)])
def test_a_run_that_was_stopped_over_a_look_goes_on_to_the_same_files(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int, always: bool
) -> None:
    asked = {"best_on_test": always}
    whole = execute(config(tmp_path / "whole", **asked), registry).folder
    real, seen = Looks.__call__, [0]

    def stopped(self: Looks, epoch: int) -> None:
        seen[0] += 1
        if seen[0] == look:
            raise Interrupted("stopped while scoring")
        real(self, epoch)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Looks, "__call__", stopped)
        with pytest.raises(Interrupted, match="go on with"):
            execute(config(run, **asked), registry)
    execute(config(run, **asked), registry, resume=True)
    for name in (files.METRICS, "adapter/adapter.safetensors", files.DETAILS):
        assert digest(run / name) == digest(whole / name), name
    rows = [json.loads((one / files.RECORD).read_text())["rows"] for one in (run, whole)]
    for one, other in zip(*rows, strict=True):
        for key in ("metrics", "last_epoch", "best_on_test", "history"):
            assert one.get(key) == other.get(key), key


def test_looks_survive_a_stop_between_two_steps(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftx.runs import rows

    whole = execute(config(tmp_path / "whole", best_on_test=True), registry)
    fit = rows.fit

    def stopped(*arguments: Any, stop: Any, on_step: Any, **named: Any) -> Any:
        def heard(number: int, metrics: dict[str, float]) -> None:
            on_step(number, metrics)
            stop.requested |= number == 17

        return fit(*arguments, stop=stop, on_step=heard, **named)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(rows, "fit", stopped)
        with pytest.raises(Interrupted):
            execute(config(run, best_on_test=True), registry)
    done = execute(config(run, best_on_test=True), registry, resume=True)
    assert digest(run / files.METRICS) == digest(whole.folder / files.METRICS)
    assert [row["best_on_test"] for row in done.rows] == [row["best_on_test"] for row in whole.rows]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_begun_without_looks_does_not_go_on_with_them(registry: Registry, tmp_path: Path) -> None:
    execute(config(tmp_path / "run"), registry)
    with pytest.raises(RunError, match="best_on_test: False there, True now"):
        execute(config(tmp_path / "run", best_on_test=True), registry, resume=True)


def test_a_run_of_an_earlier_version_that_knew_no_looks_goes_on(registry: Registry, tmp_path: Path) -> None:
    folder = execute(config(tmp_path / "run"), registry).folder
    text = (folder / files.CONFIG).read_text()
    (folder / files.CONFIG).write_text(text.replace("best_on_test = false\n", ""))
    assert execute(config(folder), registry, resume=True).record["status"] == "complete"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"test": False}, "the test is off"),
        ({"data": {"name": "toy.points", "test": False}}, "has no test split"),
    ],
)
def test_without_a_test_nothing_is_best_on_it(
    registry: Registry, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=f"--best-on-test needs the test split, and .*{why}"):
        execute(config(tmp_path / "run", best_on_test=True, **changes), registry)
    assert not (tmp_path / "run").exists()
    plain = execute(config(tmp_path / "run", **changes), registry)
    assert all("last_epoch" not in row for row in plain.rows)


def test_the_flag_is_a_switch(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = "run --best-on-test toy --baselines none --train.epochs 2 --no-efficiency --device cpu"
    assert main([*command.split(), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "best on test (optimistic)" in told.out
    assert "best on test (optimistic)" in (out / files.REPORT).read_text()


def test_the_best_of_looks() -> None:
    scores = iter([math.nan, 3.0, 5.0, 5.0, 1.0])
    told: list[int] = []
    looks = Looks(lambda: {"error": next(scores)}, lambda epoch, metrics: told.append(epoch))
    for epoch in (1, 2, 3, 4, 5, 5):
        looks(epoch)
    assert told == [1, 2, 3, 4, 5]
    assert looks.best_on_test("error", higher_is_better=True)["epoch"] == 3
    assert looks.best_on_test("error", higher_is_better=False)["epoch"] == 5
    again = Looks(lambda: {}, lambda epoch, metrics: None)
    again.go_on(looks.state())
    assert again.last_epoch(5, 2, {"error": 0.0}) == {"epoch": 5, "metrics": {"test": {"error": 1.0}}}
