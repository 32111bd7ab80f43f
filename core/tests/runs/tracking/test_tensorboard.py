"""What TensorBoard reads of a run: every figure of metrics.jsonl, and each point once, however the run stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tensorboard", reason="reads event files with tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from peftx.config.run import RunConfig
from peftx.errors import Interrupted
from peftx.plugins.registry import Registry
from peftx.runs import RunResult, execute
from peftx.runs.tracking import tensorboard
from peftx.runs.tracking.tensorboard import TensorBoard


def config(out: Path, *track: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": "toy",
            "method": {"name": "core.lora", "targets": ["glob:*fc1"], "dropout": 0.2},
            "train": {"epochs": 2},
            "device": "cpu",
            "baselines": ["core.head"],
            "efficiency": False,
            "report": False,
            "track": list(track),
            "out": out,
        }
    )


Points = dict[str, list[tuple[int, float]]]


def reader(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})


def points(folder: Path) -> Points:
    """What TensorBoard shows of a row: (step, value) of every curve."""
    events = reader(folder)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(folder: Path, row: str) -> Points:
    """The same from metrics.jsonl, told in another way."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found: Points = {}
    for line in (line for line in lines if line["row"] == row):
        for name, value in line.items():
            group = {"step": "train", "epoch": "val", "evaluated": "final/val"}[line["event"]]
            if line["event"] == "epoch":
                name = name.removeprefix("val_") if name.startswith("val_") else "n"
            if line.get("split") == "test":
                group = "test"
            if name not in ("row", "event", "step", "epoch", "split", "n"):
                point = (line["step"], pytest.approx(value, rel=1e-6))
                found.setdefault(f"{group}/{name}", []).append(point)
    return found


def assert_all_of(folder: Path) -> None:
    for row in ("core.lora", "core.head"):
        shown = points(folder / "tensorboard" / row)
        assert shown == logged(folder, row)
        assert {
            "train/loss",
            "train/lr",
            "val/accuracy",
            "final/val/accuracy",
            "test/accuracy",
        } <= shown.keys()
        assert [step for step, _ in shown["train/loss"]] == list(range(1, 13))
        assert [step for step, _ in shown["val/loss"]] == [6, 12]
        files = list((folder / "tensorboard" / row).iterdir())
        assert sum(path.stat().st_size > 0 for path in files) == 1  # not by what a reader makes of several


def test_every_figure_of_a_run_is_there(registry: Registry, tmp_path: Path) -> None:
    folder = execute(config(tmp_path / "run", "tensorboard"), registry).folder
    assert_all_of(folder)
    events = reader(folder / "tensorboard" / "core.head")
    events.Reload()
    texts = {
        tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
    }
    assert texts["run"].replace("\n    ", "\n").strip() == (folder / "config.toml").read_text().strip()
    own = json.loads(texts["row"])
    assert own["method"] == "core.head" and own["train"]["lr"] == 0.1


def test_a_run_without_it_has_no_such_folder(registry: Registry, tmp_path: Path) -> None:
    assert not (execute(config(tmp_path / "run"), registry).folder / "tensorboard").exists()


Stopped = Callable[..., Path]


@pytest.fixture
def stopped(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """A run that stopped after a step of its first row, or while it was scored on a split."""
    from peftx.runs import rows

    def stop(*track: str, step: int = 0, split: str = "") -> Path:
        fit, evaluate = rows.fit, rows.evaluate

        def fitted(*arguments: Any, stop: Any, on_step: Any, **named: Any) -> Any:
            def heard(number: int, metrics: dict[str, float]) -> None:
                on_step(number, metrics)
                stop.requested |= number == step

            return fit(*arguments, stop=stop, on_step=heard, **named)

        def evaluated(task: Any, model: Any, which: str, *arguments: Any, **named: Any) -> Any:
            if which == split:
                raise Interrupted("stopped while scoring")
            return evaluate(task, model, which, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(rows, "fit", fitted)
            patch.setattr(rows, "evaluate", evaluated)
            with pytest.raises(Interrupted):
                execute(config(tmp_path / "run", *track), registry)
        return tmp_path / "run"

    return stop


def go_on(registry: Registry, folder: Path) -> RunResult:
    return execute(config(folder, "tensorboard"), registry, resume=True)


@pytest.mark.parametrize("where", [{"step": 1}, {"step": 6}, {"step": 8}, {"step": 12}, {"split": "test"}])
def test_a_run_that_goes_on_has_every_point_once(
    registry: Registry, stopped: Stopped, where: dict[str, Any]
) -> None:
    folder = stopped("tensorboard", **where)
    before = points(folder / "tensorboard" / "core.lora")
    assert before["train/loss"]
    go_on(registry, folder)
    assert_all_of(folder)
    after = points(folder / "tensorboard" / "core.lora")
    assert after["train/loss"][: len(before["train/loss"])] == before["train/loss"]


def test_steps_that_are_trained_again_are_drawn_once(
    registry: Registry, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: the curves know of steps, and of a line, that the checkpoint does not."""
    folder = stopped("tensorboard", step=8)
    told = TensorBoard(SimpleNamespace(folder=folder), False)
    for step in (9, 10):
        told.peftx_step("core.lora", step, {"loss": 77.0, "lr": 1.0})
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"row": "core.lora", "event": "step", "step": step, "loss": 77.0}) + "\n")
    told.peftx_run_finished()
    go_on(registry, folder)
    assert_all_of(folder)


def test_a_page_that_is_being_watched_forgets_what_was_drawn_before(
    registry: Registry, stopped: Stopped
) -> None:
    folder = stopped("tensorboard", step=8)
    watching = reader(folder / "tensorboard" / "core.lora")
    watching.Reload()
    assert len(watching.Scalars("train/loss")) == 8
    go_on(registry, folder)
    watching.Reload()
    assert [e.step for e in watching.Scalars("train/loss")] == list(range(1, 13))


def test_points_keep_their_times(registry: Registry, stopped: Stopped) -> None:
    folder = stopped("tensorboard", step=8)

    def times() -> list[float]:
        events = reader(folder / "tensorboard" / "core.lora")
        events.Reload()
        return [e.wall_time for e in events.Scalars("train/lr")]

    first, now = times(), time.time()
    go_on(registry, folder)
    assert times()[:8] == first and all(later > now for later in times()[8:])


@pytest.mark.parametrize("damage", ["none were drawn", "torn", "overwritten"])
def test_curves_that_are_missing_or_damaged_are_drawn_from_the_lines(
    registry: Registry, stopped: Stopped, damage: str
) -> None:
    folder = stopped(*([] if damage == "none were drawn" else ["tensorboard"]), step=8)
    for path in (folder / "tensorboard").rglob("events*"):
        data = path.read_bytes()
        path.write_bytes(data[:-7] if damage == "torn" else data[:300] + b"\0" * 50 + data[350:])
    go_on(registry, folder)
    assert_all_of(folder)


def test_points_are_readable_at_once(tmp_path: Path) -> None:
    tracker = TensorBoard(SimpleNamespace(folder=tmp_path), False)
    tracker.peftx_step("core.lora", 1, {"loss": 0.5, "lr": 0.1, "grad_norm": math.nan})
    shown = points(tmp_path / "tensorboard" / "core.lora")
    assert shown["train/loss"] == [(1, 0.5)] and math.isnan(shown["train/grad_norm"][0][1])
    tracker.peftx_run_stopped()


def test_the_second_score_of_a_step_is_the_kept_adapters(tmp_path: Path) -> None:
    tracker = TensorBoard(SimpleNamespace(folder=tmp_path), False)
    for step, accuracy in ((3, 50.0), (6, 40.0), (6, 50.0)):
        tracker.peftx_evaluated("core.lora", "val", step, {"accuracy": accuracy, "n": 30})
    tracker.peftx_run_finished()
    assert points(tmp_path / "tensorboard" / "core.lora") == {
        "val/accuracy": [(3, 50.0), (6, 40.0)],
        "final/val/accuracy": [(6, 50.0)],
    }


@pytest.mark.parametrize("call", ["_write", "close"])
def test_a_full_disk_is_warned_about_once_and_the_run_goes_on(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    failures: list[int] = []
    real = getattr(tensorboard.EventFile, call)

    def full(self: Any, *arguments: Any) -> None:
        failures.append(1)
        if call == "close" or len(failures) > 10:
            raise OSError(28, "No space left on device")
        real(self, *arguments)

    monkeypatch.setattr(tensorboard.EventFile, call, full)
    with pytest.warns(RuntimeWarning) as warned:
        result = execute(config(tmp_path / "run", "tensorboard"), registry)
    texts = [str(one.message) for one in warned if "No space left" in str(one.message)]
    assert len(texts) == 1 and texts[0].startswith("plugin core: TensorBoard.peftx_")
    assert result.record["status"] == "complete" and len(result.rows) == 2
