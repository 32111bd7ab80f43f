"""What tests of several rooms share: run folders that were never run, for everything that only reads records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from peftx.config.toml import dumps

TRAIN = {"epochs": 5, "batch_size": 16, "eval_batch_size": 256, "lr": 0.01, "workers": 0, "checkpoint": 60.0}


def row(method: str, test: float | None, val: float | None = None, **changes: Any) -> dict[str, Any]:
    """A row as a record has it; without `val` the validation score is the test score."""
    metrics: dict[str, dict[str, float | None]] = {
        "val": {"accuracy": test if val is None else val, "loss": 0.5}
    }
    if test is not None:
        metrics["test"] = {"accuracy": test, "loss": 0.25}
    options = {"core.lora": {"rank": 8, "alpha": 16.0}, "core.dora": {"rank": 8}}.get(method, {})
    return {
        "method": method,
        "options": options,
        "train": dict(TRAIN),
        "trainable": 1000,
        "stored_bytes": 4000,
        "peak_memory_bytes": 2**20,
        "peak_memory_how": "resident set",
        "seconds": 2.5,
        "steps": 100,
        "epochs": 5,
        "best_epoch": 3,
        "history": [],
        "metrics": metrics,
        "efficiency": {"saved_bytes": 2048, "saved_batch": 16},
        **changes,
    }


def write(
    folder: Path,
    *rows: dict[str, Any],
    method: str = "core.lora",
    test: float = 97.0,
    seed: int = 0,
    status: str = "complete",
    started: str = "2026-03-01T10:00:00+00:00",
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    fingerprint: str = "f00d",
    sizes: Mapping[str, int] | None = None,
    tested: bool = True,
    config: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a run folder: `rows` as `row` makes them, the first is the run's own; or a method's name and a score."""
    named = {"task": {"name": "toy.sorting"}, "data": {"name": "toy.small"}, "model": {"name": "toy.net"}}
    named |= {k: {**named[k], **v} for k, v in (("task", task), ("data", data), ("model", model)) if v}
    if not rows:
        own = row(method, test if tested else None, val=test)
        rows = (own,) if status == "complete" else ()
    else:
        own = rows[0]
    own["options"] = {**own.get("options", {}), **(options or {})}
    own["train"] = {**own.get("train", TRAIN), **(train or {})}
    record = {
        "format": 1,
        "status": status,
        "started": started,
        "task": named["task"]["name"],
        "method": own["method"],
        "primary": "accuracy",
        "higher_is_better": True,
        "units": {"accuracy": "%"},
        "seed": seed,
        "precision": "fp32",
        "eval_batch_size": 256,
        "versions": {},
        "environment": {"device": "cpu", "threads": 1},
        "git": None,
        "data": {
            "name": named["data"]["name"],
            "sizes": dict(sizes or {"train": 10, "val": 5, "test": 5}),
            "classes": ["a", "b"],
            "fingerprint": fingerprint,
            "card": {},
        },
        "model": {"name": named["model"]["name"], "weights": "net.safetensors"},
        "plan": [
            {key: one[key] for key in ("method", "options", "train") if key in one}
            for one in (own, *rows[1:])
        ],
        "rows": list(rows),
        "next": [],
        "notes": [],
        "seconds": 3.0,
        **changes,
    }
    resolved = {
        "seed": seed,
        "device": "auto",
        "precision": "fp32",
        "test": tested,
        **named,
        "method": {"name": own["method"], **own["options"]},
        "train": own["train"],
        **(config or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "config.toml").write_text(dumps(resolved))
    return folder


@pytest.fixture(scope="session")
def make_row() -> Callable[..., dict[str, Any]]:
    """`row` of this file."""
    return row


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """`write` of this file."""
    return write
