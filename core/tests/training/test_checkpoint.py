"""Checkpoints: when they are due, and what a writer that fails leaves."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from peftx.artifacts import state as states
from peftx.errors import ArtifactError
from peftx.training.checkpoint import PAUSE, Checkpoint


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "none", 60).read() is None


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, 0)
    for step in (1, 2):
        checkpoint.write({"steps": step, "value": torch.full((3,), float(step))}, step)
    found = Checkpoint(tmp_path, 0).read()
    assert found is not None and found["steps"] == 2 and torch.equal(found["value"], torch.full((3,), 2.0))
    assert checkpoint.step == 2
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.safetensors"}
    checkpoint.remove()
    assert not tmp_path.exists() and checkpoint.step == 0


def test_when_one_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert Checkpoint(tmp_path, 0).due()
    checkpoint = Checkpoint(tmp_path, 60)
    assert not checkpoint.due()
    now[0] += 61
    assert checkpoint.due()

    def slow(state: Any, folder: Path) -> None:
        now[0] += 10

    monkeypatch.setattr("peftx.training.checkpoint.save_state", slow)
    checkpoint.write({}, 1)
    now[0] += 61
    assert not checkpoint.due()  # it took ten seconds: more than 5 % of the time otherwise
    now[0] += PAUSE * 10
    assert checkpoint.due()


@pytest.mark.parametrize("where", ["write_bytes", "write_text", "replace"])
def test_a_full_disk_leaves_the_state_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    checkpoint = Checkpoint(tmp_path, 0)
    checkpoint.write({"steps": 1, "value": torch.ones(2)}, 1)

    def full(self: Path, *arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(states.Path, where, full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            checkpoint.write({"steps": 2, "value": torch.zeros(2)}, 2)
    assert checkpoint.step == 1
    found = checkpoint.read()
    assert found is not None and found["steps"] == 1 and torch.equal(found["value"], torch.ones(2))
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.safetensors"}
