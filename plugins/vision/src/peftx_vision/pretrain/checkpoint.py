"""Checkpoints of the pretraining run: one safetensors file whose header carries the facts as JSON.

One file and one rename, so that a run killed at any moment leaves either the old checkpoint or the new one, never
tensors of one step beside the facts of another.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from peftx.errors import ModelError


def write_atomically(path: Path, blob: bytes) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    with unfinished.open("wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write `tensors`, and `facts` in the header."""
    flat = {name: value.detach().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(flat, metadata={"facts": json.dumps(facts, sort_keys=True)}))


def read_checkpoint(path: Path, expected: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of `path`, whose facts must agree with `expected`."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a pretraining checkpoint ({error}); delete it to start anew."
        ) from error
    for name, value in expected.items():
        if facts.get(name) != value:
            raise ModelError(
                f"{path} belongs to another run: its {name} is {facts.get(name)}, this run's is {value}. "
                "Delete it, or give another --checkpoint."
            )
    return tensors, facts
