"""Cells on a Ray cluster: the same results, one sentence where there is none, stops. Skipped where there is no Ray."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Outcome, Request, run
from peftx.bench.cluster import Cluster
from peftx.errors import ConfigError, Interrupted
from peftx.plugins.registry import Registry
from peftx.runs import record

POINTS = ({"name": "toy.points", "spread": 2.0},)


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ConfigError, match="--executor ray needs Ray, which is not installed: `pip install ray`"
    ):
        Cluster(1)


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{port} "):
        Cluster(1)
    assert time.monotonic() - started < 15


@pytest.mark.slow
def test_a_cluster_gives_what_processes_give_and_can_be_stopped(
    bench: Callable[..., Outcome],
    asked: Callable[..., Request],
    registry: Registry,
    heard: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    values = {"data": POINTS, "seeds": 1, "jobs": 2}
    local = bench(**values)
    remote = bench(**values, executor="ray", out=tmp_path / "ray")
    assert [state.word for _, state in remote.cells] == ["done", "done"] and len(heard.started_cells) == 2
    for cell, _ in local.cells:
        one, two = (record.read(tmp_path / folder / cell.folder)["rows"][0] for folder in ("out", "ray"))
        assert one["metrics"] == two["metrics"] and one["history"] == two["history"]
        one, two = (
            (tmp_path / folder / cell.folder / "adapter" / "adapter.safetensors").read_bytes()
            for folder in ("out", "ray")
        )
        assert one == two

    # a worker that dies, and a stop while another is at work
    slowly = {"suite": "grid/slow", "methods": ({"name": "grid.deadly"}, {"name": "core.head"}), "jobs": 2}
    out = tmp_path / "stopped"
    head = out / "toy.points-spread=2" / "toy.net" / "core.head" / "seed0"

    def interrupt() -> None:
        limit = time.monotonic() + 120
        deadly = head.parent.parent / "grid.deadly" / "seed0" / "record.json"
        while time.monotonic() < limit:
            if (head / "checkpoint").is_dir() and '"failed"' in (
                deadly.read_text() if deadly.is_file() else ""
            ):
                break
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match="stopped: 1 of 2 cells are done"):
        run(
            asked(**slowly, executor="ray", out=out, train={"epochs": 2000}),
            registry,
            heard,
        )
    assert record.read(head)["status"] == "interrupted" and (head / "checkpoint").is_dir()
    assert record.read(head.parent.parent / "grid.deadly" / "seed0")["error"].startswith("the process ended")
