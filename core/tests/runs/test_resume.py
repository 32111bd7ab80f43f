"""A run that was stopped, however it was, goes on and comes to the result of one that was not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.config.run import RunConfig
from peftx.config.toml import read as read_toml
from peftx.errors import BusyError, DataError, Interrupted, RunError, TrainingError
from peftx.plugins.registry import Registry
from peftx.runs import execute
from peftx.runs import folder as files

TOYPACK = Path(__file__).parent / "toypack"
#: checkpoints after every step; a baseline of other length than the method, dropout, and a validation each epoch
ARGUMENTS = (
    "run toy --method core.lora --targets glob:*fc1 --dropout 0.2 --baselines core.head --device cpu --seed 5 "
    "--train.checkpoint 0 --train.epochs 4 --no-efficiency --no-report"
).split()
#: how each attempt dies; where that is depends on how far the one before came
KILLS = (
    "start:1 start:2 step:3 torn:2 swapped:2 line:4 score:2 "
    "step:6 record:1 saved:1 score:1 step:2 line:3 torn:4"
).split()


def environment(**more: str) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TOYPACK), os.environ.get("PYTHONPATH", "")]),
        "PEFTX_PLUGINS": "core,toy",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def chain(out: Path, *kills: str) -> list[str]:
    command = [sys.executable, TOYPACK / "resuming_chain.py", out, *kills, "--", *ARGUMENTS, "--out", out]
    done = subprocess.run(
        list(map(str, command)),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd=out.parent,
    )
    assert done.returncode == 0, done.stderr
    ended = [line.removeprefix("chain: ") for line in done.stdout.splitlines() if line.startswith("chain: ")]
    assert ended[-1] == "lives: exit 0", done.stdout + done.stderr
    return ended[:-1]


#: what a clock, a sampler of memory or the restart itself put into a record
VOLATILE = ("seconds", "started", "resumed", "peak_memory_bytes", "git", "next")


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in VOLATILE}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def content(run: Path) -> dict[str, Any]:
    """Everything a run leaves that is not a matter of time."""
    found: dict[str, Any] = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in (files.RECORD, files.LOCK)
    }
    record = json.loads((run / files.RECORD).read_text())
    return found | {"record": timeless(record)}


@pytest.mark.slow
def test_killed_at_fourteen_moments(tmp_path: Path) -> None:
    assert chain(tmp_path / "whole") == []
    ended = chain(tmp_path / "killed", *KILLS)
    assert ended == [f"{kill}: signal {signal.SIGKILL.value}" for kill in KILLS]  # each one was reached
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "killed" / files.METRICS).read_text().splitlines()]
    for name in ("core.lora", "core.head"):
        steps = [line["step"] for line in lines if line["row"] == name and line["event"] == "step"]
        assert steps == list(range(1, 25))


def test_a_run_killed_over_its_last_words_says_them_when_it_is_resumed(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record says complete by then, so nothing is trained again."""
    from peftx import report

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_run", killed, raising=False)
        with pytest.raises(KeyboardInterrupt):
            execute(config(tmp_path / "run", report=True), registry)
    run = tmp_path / "run"
    assert files.state_of(run) == "complete" and (run / files.CHECKPOINT).is_dir()
    with files.locked(run):  # whoever is at it finishes it
        execute(config(run, report=True), registry, resume=True)
    assert not (run / files.REPORT).exists()
    execute(config(run, report=True), registry, resume=True)
    assert (run / files.REPORT).is_file() and not (run / files.CHECKPOINT).exists()


def test_the_checkpoint_of_a_row_goes_with_the_row(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftx.runs import subject

    held: list[list[str]] = []
    attach = subject.attach

    def look(model: Any, name: str, **named: Any) -> Any:
        held.append(sorted(path.name for path in (tmp_path / "run" / files.CHECKPOINT).glob("*")))
        return attach(model, name, **named)

    monkeypatch.setattr(subject, "attach", look)
    execute(config(tmp_path / "run", baselines=["core.head", "core.full"]), registry)
    assert held == [[], [], []]


def test_a_folder_that_was_moved_names_itself(registry: Registry, half: Path, monkeypatch: Any) -> None:
    record = json.loads((half / files.RECORD).read_text())
    whole = execute(config(half.with_name("whole")), registry)
    record |= {"rows": [whole.rows[0]], "next": ["peftx eval elsewhere"]}
    (half / files.RECORD).write_text(json.dumps(record))
    done = execute(config(half.rename(half.with_name("moved here"))), registry, resume=True)
    assert done.next_commands[0] == f"peftx eval '{half.with_name('moved here')}'"


@pytest.mark.slow
def test_the_command_itself_killed_while_it_starts_and_interrupted_while_it_trains(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "peftx", *ARGUMENTS, "--out", "run"]
    first = subprocess.Popen(command, env=environment(), cwd=tmp_path)
    time.sleep(0.3)  # imports
    first.kill()
    first.wait()
    run = tmp_path / "run"
    assert not files.is_run(run)
    second = subprocess.Popen(
        command, env=environment(SLOW="0.05"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (run / files.METRICS).is_file())
    second.send_signal(signal.SIGINT)
    said = second.communicate()[1]
    assert second.returncode == 130
    assert "once more to stop at once" in said
    assert (
        said.splitlines()[-1].endswith("go on with `peftx run --resume run`") and "stopped after step" in said
    )
    assert files.state_of(run) == "interrupted"
    again = subprocess.run(
        [sys.executable, "-m", "peftx", "run", "--resume", "run"],
        env=environment(),
        cwd=tmp_path,
        check=False,
    )
    assert again.returncode == 0 and files.state_of(run) == "complete"
    assert chain(tmp_path / "whole") == []
    assert content(run) == content(tmp_path / "whole")


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- in this process


def config(out: Path, **changes: Any) -> RunConfig:
    base = {
        "task": "toy",
        "method": {"name": "core.lora", "targets": ["glob:*fc1"]},
        "train": {"epochs": 2, "checkpoint": 0},
        "device": "cpu",
        "baselines": ["core.head"],
        "efficiency": False,
        "report": False,
        "out": out,
    }
    return RunConfig.model_validate(base | changes)


@pytest.fixture
def half(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was asked to stop after the seventh of its twelve steps."""
    from peftx.runs import rows

    fit = rows.fit

    def stopped(*arguments: Any, stop: Any, on_step: Any, **named: Any) -> Any:
        def heard(step: int, metrics: dict[str, float]) -> None:
            on_step(step, metrics)
            stop.requested |= step == 7

        return fit(*arguments, stop=stop, on_step=heard, **named)

    with monkeypatch.context() as patch:
        patch.setattr(rows, "fit", stopped)
        with pytest.raises(Interrupted, match=r"stopped after step 7 of 12; go on with `peftx run --resume "):
            execute(config(tmp_path / "run"), registry)
    return tmp_path / "run"


def test_an_interrupted_run_says_so_and_goes_on(registry: Registry, half: Path, tmp_path: Path) -> None:
    record = json.loads((half / files.RECORD).read_text())
    assert record["status"] == "interrupted" and record["rows"] == []
    assert [row["method"] for row in record["plan"]] == ["core.lora", "core.head"]
    done = execute(config(half), registry, resume=True)
    assert done.record["status"] == "complete" and len(done.record["resumed"]) == 1
    whole = execute(config(tmp_path / "whole"), registry)
    assert content(half) == content(whole.folder)
    assert not (half / files.CHECKPOINT).exists()


def test_a_finished_run_is_returned_as_it_is(registry: Registry, half: Path) -> None:
    execute(config(half), registry, resume=True)
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*") if path.is_file()}
    again = execute(config(half), registry, resume=True)
    assert again.record["status"] == "complete"
    assert {path: path.stat().st_mtime_ns for path in half.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_from_its_own_file(registry: Registry, half: Path, tmp_path: Path) -> None:
    """All settings are given then, and the baseline keeps the ones its recipe gave it."""
    table = read_toml(half / files.CONFIG)
    done = execute(RunConfig.model_validate({**table, "out": half}), registry, resume=True)
    whole = execute(config(tmp_path / "whole"), registry)
    assert [row["train"] for row in done.rows] == [row["train"] for row in whole.rows]
    assert content(half) == content(whole.folder)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"seed": 1}, ["seed: 0 there, 1 now"]),
        ({"precision": "bf16"}, ["precision: 'fp32' there, 'bf16' now"]),
        (
            {"train": {"epochs": 3, "lr": 0.5}},
            ["train.epochs: 2 there, 3 now", "train.lr: 0.02 there, 0.5 now"],
        ),
        (
            {"method": {"name": "core.lora", "targets": ["glob:*fc1"], "rank": 4}},
            ["method.rank: 8 there, 4 now"],
        ),
        ({"baselines": []}, ["baselines: ['core.head'] there, [] now"]),
        ({"data": {"name": "points", "spread": 2.0}}, ["data.spread: 1.0 there, 2.0 now"]),
        ({"test": False}, ["test: True there, False now"]),
        ({"train": {"epochs": 2, "lr": None}}, ["train.lr: 0.02 there, not set now"]),
    ],
)
def test_other_settings_are_shown_and_refused(
    registry: Registry, half: Path, changes: dict[str, Any], lines: list[str]
) -> None:
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="begun with other settings") as caught:
        execute(config(half, **changes), registry, resume=True)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before


def test_what_changes_no_result_may_change(registry: Registry, half: Path) -> None:
    changed = config(half, train={"epochs": 2, "checkpoint": 60, "workers": 2}, offline=True)
    assert execute(changed, registry, resume=True).record["status"] == "complete"


def test_other_data_are_refused(registry: Registry, half: Path) -> None:
    record = json.loads((half / files.RECORD).read_text())
    record["data"]["fingerprint"] = "0" * 64
    (half / files.RECORD).write_text(json.dumps(record))
    with pytest.raises(DataError, match="begun on other data: their fingerprint was 000000000000, now it is"):
        execute(config(half), registry, resume=True)


def test_another_machine_is_named(registry: Registry, half: Path) -> None:
    from peftx.training import Progress

    record = json.loads((half / files.RECORD).read_text())
    record["versions"]["torch"] = "1.0"
    (half / files.RECORD).write_text(json.dumps(record))
    heard: list[str] = []
    progress = Progress()
    progress.note = heard.append  # type: ignore[method-assign]
    done = execute(config(half), registry, progress, resume=True)
    assert any(text.startswith("torch was 1.0, is ") for text in heard)
    assert done.record["resumed"][0]["changed"][0].startswith("torch was 1.0")


def test_a_run_at_work_is_left_alone(registry: Registry, half: Path) -> None:
    with files.locked(half), pytest.raises(BusyError, match="another process is at work on"):
        execute(config(half), registry, resume=True)


def test_where_there_is_nothing_to_resume(registry: Registry, half: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run to resume at"):
        execute(config(tmp_path / "nowhere"), registry, resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"no run to resume: it has no config\.toml"):
        execute(config(tmp_path / "empty"), registry, resume=True)
    (half / files.RECORD).write_text("{")
    with pytest.raises(RunError, match=r"record\.json is damaged"):
        execute(config(half), registry, resume=True)


@pytest.mark.parametrize(
    "damage",
    [
        {"data": None},
        {"rows": 5},
        {"rows": [{"metrics": {}}]},
        {"plan": [{"method": "core.lora"}]},
        {"environment": {}},
        {"versions": []},
        {"notes": "none"},
    ],
)
def test_a_record_that_lacks_what_is_needed_is_one_sentence(
    registry: Registry, half: Path, damage: dict[str, Any]
) -> None:
    record = json.loads((half / files.RECORD).read_text())
    (half / files.RECORD).write_text(json.dumps(record | damage))
    with pytest.raises(RunError, match=r"record\.json is damaged: it lacks what a run needs"):
        execute(config(half), registry, resume=True)


def test_a_damaged_checkpoint_says_what_to_delete(registry: Registry, half: Path, tmp_path: Path) -> None:
    state = half / files.CHECKPOINT / "core.lora" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(
        RunError, match=rf"state\.safetensors .*the checkpoint is in {half}/checkpoint/core\.lora"
    ):
        execute(config(half), registry, resume=True)
    shutil.rmtree(half / files.CHECKPOINT)
    execute(config(half), registry, resume=True)
    assert content(half) == content(execute(config(tmp_path / "whole"), registry).folder)


def test_a_failed_run_may_be_tried_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftx.runs import rows

    def failing(*arguments: Any, **named: Any) -> Any:
        raise TrainingError("too little memory")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "fit", failing)
        with pytest.raises(TrainingError):
            execute(config(tmp_path / "run"), registry)
    assert json.loads((tmp_path / "run" / files.RECORD).read_text())["error"] == "too little memory"
    done = execute(config(tmp_path / "run"), registry, resume=True)
    assert done.record["status"] == "complete" and "error" not in done.record


def test_a_begun_run_is_not_begun_again_by_mistake(registry: Registry, half: Path) -> None:
    with pytest.raises(RunError, match="did not finish: go on with `peftx run --resume"):
        execute(config(half), registry)
    assert (half / files.CHECKPOINT).is_dir()
