"""Two processes on one run: the result of one, written once; stopped and gone on with together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from peftx.runs import folder as files

TOYPACK = Path(__file__).parent / "toypack"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]
#: 90 samples in batches of 89: the second process is left without a sample of the last one
ARGUMENTS = (
    "run toy --method core.lora --targets glob:*fc1 --baselines core.head --device cpu --seed 5 --train.epochs 3 "
    "--train.batch-size 89 --train.accumulate 2 --train.checkpoint 0 --no-efficiency --no-report"
).split()


def launch(folder: Path, processes: int, *words: str, **more: str) -> list[subprocess.Popen[str]]:
    """Start the processes as a launcher does: by their ranks in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    paths = os.pathsep.join([str(TOYPACK), os.environ.get("PYTHONPATH", "")])
    shared = {"PYTHONPATH": paths, "PEFTX_PLUGINS": "core,toy", "OMP_NUM_THREADS": "1", **more}
    if processes > 1:
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "peftx", *words],
            cwd=folder,
            env=os.environ | shared | ({"RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]


def finished(started: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    return [(p.returncode, *said) for p, said in [(p, p.communicate(timeout=120)) for p in started]]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / files.METRICS).read_text().splitlines()]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    ended = finished(launch(folder, 2, *ARGUMENTS, "--out", "run"))
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert "run folder: run" in ended[0][1] and ended[1][1] == ""  # the second one prints nothing
    assert "training core.lora" in ended[0][2] and "training" not in ended[1][2]
    return folder / "run"


def test_two_processes_train_what_one_does(together: Path, tmp_path: Path) -> None:
    assert finished(launch(tmp_path, 1, *ARGUMENTS, "--out", "run"))[0][0] == 0
    alone = tmp_path / "run"
    mine, theirs = lines(together), lines(alone)
    assert [line.keys() for line in mine] == [line.keys() for line in theirs]
    for one, two in zip(mine, theirs, strict=True):
        for name, value in one.items():
            same = (
                value == two[name]
                if isinstance(value, str)
                else value == pytest.approx(two[name], 1e-4, 1e-6)
            )
            assert same, (name, one, two)
    adapters = [load_file(run / "adapter" / "adapter.safetensors") for run in (together, alone)]
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], rtol=1e-3, atol=1e-5)
    record = json.loads((together / files.RECORD).read_text())
    assert record["environment"]["processes"] == 2 and record["status"] == "complete"


def test_killed_and_gone_on_with_by_both(together: Path, tmp_path: Path) -> None:
    started = launch(tmp_path, 2, *ARGUMENTS, "--out", "run", SLOW="0.1")
    run = tmp_path / "run"
    end = time.monotonic() + 60
    while not (run / files.CHECKPOINT / "core.lora" / "state.json").is_file():
        assert time.monotonic() < end and started[0].poll() is None
        time.sleep(0.02)
    for process in started:
        process.send_signal(signal.SIGKILL)
    finished(started)
    ended = finished(launch(tmp_path, 2, "run", "--resume", "run"))
    assert [status for status, _, _ in ended] == [0, 0], ended
    for name in (files.METRICS, "adapter/adapter.safetensors"):
        assert (run / name).read_bytes() == (together / name).read_bytes(), name


def test_asked_to_stop_they_stop_after_the_same_step(together: Path, tmp_path: Path) -> None:
    started = launch(tmp_path, 2, *ARGUMENTS, "--out", "run", SLOW="0.2")
    run = tmp_path / "run"
    end = time.monotonic() + 60
    while not (run / files.METRICS).is_file():
        assert time.monotonic() < end and started[0].poll() is None
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)  # only one of them is told
    ended = finished(started)
    assert [status for status, _, _ in ended] == [130, 130], ended
    assert files.state_of(run) == "interrupted"
    ended = finished(launch(tmp_path, 2, "run", "--resume", "run"))
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert (run / files.METRICS).read_bytes() == (together / files.METRICS).read_bytes()
