"""Where a run came from: versions, device, git state, data; what record.json says of all that."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from peftx.data.contract import Dataset
from peftx.plugins.registry import Registry
from peftx.training.backend import Backend

__all__ = ["data_card", "environment", "git_state", "now", "versions"]

_LIBRARIES = ("torch", "accelerate", "numpy", "safetensors", "timm", "torchvision", "transformers", "pillow")


def versions(registry: Registry) -> dict[str, str]:
    """Versions of python, of peftx and its kernels and packs, and of the libraries whose numerics matter."""
    found = {"python": platform.python_version()}
    for name in (
        "peftx",
        "peftx-kernels",
        *(i.distribution for i in registry.plugins if i.status == "ok"),
        *_LIBRARIES,
    ):
        if name and name not in found:
            version = _version(name)
            if version:
                found[name] = version
    return found


def environment(backend: Backend) -> dict[str, Any]:
    """Where the run ran."""
    device = backend.device
    found: dict[str, Any] = {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "processes": backend.processes,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
    return found


def git_state(where: Path | None = None) -> dict[str, Any] | None:
    """Commit of the working folder and whether it has uncommitted changes; None outside a repository."""
    commit = _git(where, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_git(where, "status", "--porcelain", "--untracked-files=no"))}


def data_card(data: Dataset, name: str) -> dict[str, Any]:
    """Name, sizes and what they count, classes, fingerprint, card and, for published data, what copy of them was read.

    `name`: what the data set was called when it was asked for; a copy that is not the published whole adds that to it.
    """
    copy = {} if data.copy is None else {"copy": {"kind": data.copy.kind, "detail": data.copy.detail}}
    return {
        "name": name if data.copy is None else data.copy.titled(name),
        "sizes": {name: split.extent for name, split in data.splits.items()},
        "unit": data.splits["train"].unit,
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "card": dict(data.card),
        **copy,
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(where: Path | None, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=where, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
