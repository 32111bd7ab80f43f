"""What record.json says: enough to judge a score, to repeat the run, and to notice when a repetition
differs."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from peftx.data.contract import Dataset
from peftx.errors import RunError
from peftx.plugins.registry import Registry
from peftx.runs import folder as files

__all__ = ["FORMAT", "data_card", "environment", "git_state", "read", "versions", "write"]

#: Raised when a reader of the old layout would misread the new one.
FORMAT = 1

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


def environment(device: torch.device) -> dict[str, Any]:
    """Where the run ran."""
    found: dict[str, Any] = {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
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


def data_card(data: Dataset) -> dict[str, Any]:
    """Name, sizes, classes, fingerprint and card of a data set."""
    return {
        "name": data.name,
        "sizes": {name: len(split) for name, split in data.splits.items()},
        "classes": list(data.classes),
        "fingerprint": data.fingerprint,
        "card": dict(data.card),
    }


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write record.json atomically. Figures that are not finite become null: JSON has no NaN."""
    text = json.dumps(_clean(record), indent=1, allow_nan=False, default=str)
    files.write_text(folder / files.RECORD, text + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Read record.json.

    Raises:
        RunError: `folder` is no run, its record is missing or damaged, or it was written by a later version.
    """
    path = folder / files.RECORD
    if not folder.is_dir():
        raise RunError(f"no run folder at {folder}")
    if not path.is_file():
        what = "the run did not finish" if files.is_run(folder) else "this is not a run folder"
        raise RunError(f"{folder} has no {files.RECORD}: {what}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        written = int(record["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if written > FORMAT:
        raise RunError(
            f"{path} was written by a later peftx (record format {written}, this one reads {FORMAT})"
        )
    return record


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
