"""Benches in real processes: workers that die, benches that are stopped and killed, two benches in one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from peftx.bench import Outcome
from peftx.bench.processes import Processes, how_it_ended, visible_gpus
from peftx.errors import RunError
from peftx.runs import record

HERE = Path(__file__).parent
POINTS = ({"name": "toy.points", "spread": 2.0},)
TIMEOUT = 240.0
slow = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `peftx bench` as a process of its own."""
    begun: list[subprocess.Popen[str]] = []

    def go(*words: str, **variables: str) -> subprocess.Popen[str]:
        packs = (HERE.parent / "runs" / "toypack", HERE / "benchpack")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*map(str, packs), *filter(None, sys.path)]),
            "PEFTX_PLUGINS": "core,toy,grid",
            **variables,
        }
        command = [sys.executable, "-m", "peftx", "bench", *words, "--device", "cpu", "--no-efficiency"]
        process = subprocess.Popen(
            [*command, "--threads", "1", "--out", str(tmp_path / "out")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield go
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], Any], what: str) -> Any:
    limit = time.monotonic() + TIMEOUT
    while time.monotonic() < limit:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The bench's worker processes."""
    return psutil.Process(process.pid).children()


def steps_in(out: Path) -> dict[str, int]:
    """Lines about steps by cell."""
    return {
        path.parent.relative_to(out).as_posix(): path.read_text().count('"event": "step"')
        for path in out.rglob("metrics.jsonl")
    }


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_processes_give_what_one_process_gives(
    bench: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = bench(data=POINTS, jobs=2, seeds=1)
    assert [state.word for _, state in outcome.cells] == ["done", "done"]
    with monkeypatch.context() as patch:
        from peftx.bench.job import carry_out, job_of
        from peftx.plugins import get_registry

        patch.setenv("OMP_NUM_THREADS", "1")
        for cell, _ in outcome.cells:
            assert carry_out(job_of(cell, tmp_path / "here"), get_registry())["state"] == "done"
    for cell, _ in outcome.cells:
        one, two = (record.read(tmp_path / folder / cell.folder) for folder in ("out", "here"))
        assert one["rows"][0]["metrics"] == two["rows"][0]["metrics"]
        assert one["environment"]["threads"] == 1
        one, two = (
            (tmp_path / folder / cell.folder / "adapter" / "adapter.safetensors").read_bytes()
            for folder in ("out", "here")
        )
        assert one == two


def test_a_worker_that_dies_takes_its_own_cell_and_nothing_else(
    bench: Callable[..., Outcome], heard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"data": POINTS, "methods": ({"name": "grid.deadly"}, {"name": "core.head"}), "seeds": 1}
    outcome = bench(**asked)
    (deadly, failed), (_, done) = outcome.cells
    assert (failed.word, failed.cause, done.word) == ("failed", "the process ended with signal 9", "done")
    told = record.read(tmp_path / "out" / deadly.folder)
    assert (told["status"], told["error"]) == ("failed", "the process ended with signal 9")
    assert [one.method for one in outcome.boards[0].standings] == ["core.head", "grid.deadly"]
    assert len(bench(**asked).failed) == 1 and heard.started_cells == []
    monkeypatch.setenv("SPARED", "1")
    assert bench(**asked, resume=True).failed == [] and heard.started_cells == [deadly.folder]


def test_a_worker_that_cannot_start_is_one_sentence(
    bench: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    (broken / "torch").mkdir(parents=True)
    (broken / "torch" / "__init__.py").write_text("raise ImportError('no torch today')\n")
    monkeypatch.syspath_prepend(str(broken))
    with pytest.raises(
        RunError, match=r"could not start: the process ended with status 1, saying: ImportError: no t"
    ):
        bench(data=POINTS, seeds=1)


@slow
def test_a_bench_that_is_stopped_writes_checkpoints_and_goes_on(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    words = ("grid/slow", "--jobs", "2", "--seeds", "2")
    process = start(*words)
    out = tmp_path / "out"
    until(lambda: len(steps_in(out)) >= 2 and min(steps_in(out).values()) >= 3, "two runs under way")
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130 and printed == ""
    assert "stopping: every run under way writes its checkpoint; once more to stop at once" in told
    assert (
        "stopped: 0 of 4 cells are done; go on with `peftx bench grid/slow --device cpu --no-efficiency"
        in told
    )
    assert "--seeds 2 --jobs 2 --threads 1 --out " in told
    assert gone(workers)
    before = steps_in(out)
    for folder in before:
        assert record.read(out / folder)["status"] == "interrupted" and (out / folder / "checkpoint").is_dir()
    states = {cell["folder"]: cell["state"] for cell in json.loads((out / "bench.json").read_text())["cells"]}
    assert sorted(states.values()) == ["unfinished"] * 2 + ["waiting"] * 2
    again = start(*words)
    printed, told = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, told
    assert steps_in(out) == dict.fromkeys(states, 30), "no step is told twice, none is missing"
    assert all(record.read(out / folder).get("resumed") for folder in before)


@slow
def test_a_second_signal_ends_everything_at_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("grid/slow", "--jobs", "1", "--train.epochs", "5000")
    until(lambda: steps_in(tmp_path / "out"), "a run under way")
    (worker,) = workers_of(process)
    worker.suspend()  # it will never answer
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None, "the first signal waits for the run"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and told.rstrip().endswith("interrupted")
    assert gone([worker])


@slow
def test_a_bench_that_is_killed_leaves_no_process_and_goes_on(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start("grid/slow", "--jobs", "2")
    until(lambda: len(steps_in(out)) == 2 and min(steps_in(out).values()) >= 3, "two runs under way")
    workers = workers_of(process)
    process.kill()
    process.communicate()
    until(lambda: gone(workers), "the end of the workers")
    assert {record.read(path.parent)["status"] for path in out.rglob("record.json")} == {"interrupted"}
    again = start("grid/slow", "--jobs", "2")
    printed, told = again.communicate(timeout=TIMEOUT)
    assert again.returncode == 0, told
    assert "core.lora" in printed and set(steps_in(out).values()) == {30}


@slow
def test_two_benches_share_one_folder(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    words = ("grid/slow", "--seeds", "2", "--json")
    one, two = start(*words), start(*words)
    results = []
    for process in (one, two):
        printed, told = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, told
        results.append((json.loads(printed), told))
    out = tmp_path / "out"
    assert steps_in(out) == {
        f"toy.points-spread=2/toy.net/{method}/seed{seed}": 30
        for method in ("core.head", "core.lora")
        for seed in (0, 1)
    }, "every cell was trained once"
    assert not any(record.read(path.parent).get("resumed") for path in out.rglob("record.json"))
    assert results[0][0]["boards"] == results[1][0]["boards"]
    for found, told in results:
        assert [cell["state"] for cell in found["cells"]] == ["done"] * 4
        assert told.count("[4/4]") == 1, "each tells of all cells, whoever trained them"


PROGRAM = """
import sys
from peftx.cli import main
status = main(sys.argv[1:])
print(status, *sorted({"torch", "numpy", "accelerate", "rich"} & set(sys.modules)), file=sys.stderr)
"""


def test_the_process_that_waits_for_others_imports_no_torch(tmp_path: Path) -> None:
    packs = (HERE.parent / "runs" / "toypack", HERE / "benchpack")
    words = [
        "grid/slow",
        "--device",
        "cpu",
        "--no-efficiency",
        "--methods",
        "core.head",
        "--train.epochs",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "bench", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, packs), *filter(None, sys.path)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "0", done.stderr
    assert (tmp_path / "runs" / "bench" / "grid.slow" / "report.html").is_file()
    assert "core.head" in done.stdout and "peftx leaderboard --root runs/bench/grid.slow" in done.stdout


def test_how_processes_end_in_words() -> None:
    assert how_it_ended(-9) == "the process ended with signal 9"
    assert how_it_ended(3) == "the process ended with status 3"


def test_cores_are_divided_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftx.bench.processes.cores", lambda: 8)
    assert [Processes(jobs).threads for jobs in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert Processes(2, threads=7).threads == 7


def test_gpus_are_those_that_were_left_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
