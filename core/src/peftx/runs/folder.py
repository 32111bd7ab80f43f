"""The folder of a run: its name, and files that are either whole or not there.

config.toml      the run, fully resolved
record.json      what happened: versions, device, data, scores of every row
metrics.jsonl    one line per optimizer step and epoch, appended
adapter/         the trained adapter
"""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from peftx.errors import RunError

__all__ = ["ADAPTER", "CONFIG", "METRICS", "RECORD", "append_line", "create", "is_run", "write_text"]

CONFIG, RECORD, METRICS, ADAPTER = "config.toml", "record.json", "metrics.jsonl", "adapter"
_OURS = (CONFIG, RECORD, METRICS, ADAPTER)


def create(out: Path | None, method: str, data: str, now: datetime | None = None) -> Path:
    """Make the folder of a new run and return it: `out`, or ``runs/<date-time>-<method>-<data>``.

    A run at `out` that never came to its end is replaced; a finished one is never touched.

    Raises:
        RunError: `out` is a file, holds a finished run or something that is not a run, or cannot be written.
    """
    try:
        if out is None:
            return _fresh(
                Path("runs"), f"{(now or datetime.now()):%Y%m%d-%H%M%S}-{_slug(method)}-{_slug(data)}"
            )
        out = out.expanduser()
        if out.exists() and not out.is_dir():
            raise RunError(f"--out {out} is a file; name a folder")
        if out.is_dir() and any(out.iterdir()):
            if not is_run(out):
                raise RunError(f"--out {out} is not empty and not a run: name a new or an empty folder")
            if _finished(out):
                raise RunError(
                    f"--out {out} holds a finished run: name a new folder, or delete that run first"
                )
            _clear(out)
        out.mkdir(parents=True, exist_ok=True)
        return out
    except OSError as error:
        raise RunError(
            f"cannot create the run folder {error.filename or out}: {error.strerror or error}"
        ) from error


def is_run(folder: Path) -> bool:
    """Whether `folder` was written by a run, finished or not."""
    return (folder / CONFIG).is_file()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new and nothing between.

    Raises:
        RunError: the file cannot be written (full disk, no permission); what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one JSON object as a line.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps(values) + "\n")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _fresh(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _finished(folder: Path) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("status") == "complete"


def _clear(folder: Path) -> None:
    """Remove a former run's own files and nothing else."""
    for name in _OURS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _slug(name: str) -> str:
    """A data set's or method's name as part of a file name: no argument, nothing a file system minds."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.partition(":")[0]).strip("-.") or "run"
