"""The folder of a run: its name, and files that are either whole or not there.

config.toml      the run, fully resolved, from the start
record.json      what happened: versions, device, data, scores of every row; from the start, rewritten after each row
metrics.jsonl    one line per optimizer step, epoch and score, appended
details.json     what stands behind the scores: bins of confidence, confusion
calibration.json what held-out samples said about answers on new files, where the task asks them
samples.json     what a page shows of single samples, where the task shows any; may be deleted
adapter/         the trained adapter
checkpoint/      where each row under way goes on; gone when the run is complete
report.html      a page about all of it
.lock            held by the process that is at work
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from peftx.errors import BusyError, RunError

__all__ = [
    "ADAPTER",
    "CALIBRATION",
    "CHECKPOINT",
    "CONFIG",
    "DETAILS",
    "LOCK",
    "METRICS",
    "RECORD",
    "REPORT",
    "SAMPLES",
    "append_line",
    "check_space",
    "clear",
    "create",
    "cut",
    "home",
    "is_run",
    "locked",
    "state_of",
    "write_text",
]

CONFIG, RECORD, METRICS, ADAPTER = "config.toml", "record.json", "metrics.jsonl", "adapter"
CHECKPOINT, DETAILS, REPORT, LOCK = "checkpoint", "details.json", "report.html", ".lock"
SAMPLES, CALIBRATION = "samples.json", "calibration.json"
_STATES = ("training", "complete", "interrupted", "failed")
_OURS = (RECORD, METRICS, ADAPTER, CHECKPOINT, DETAILS, SAMPLES, CALIBRATION, REPORT, "tensorboard", CONFIG)


def home() -> Path:
    """The folder of runs: what the variable PEFTX_RUNS names, else ``runs``."""
    return Path(os.environ.get("PEFTX_RUNS") or "runs").expanduser()


def create(out: Path | None, method: str, data: str, now: datetime | None = None) -> Path:
    """Make the folder of a new run and return it: `out`, or ``<date-time>-<method>-<data>`` in `home`.

    An unfinished run at `out` that has no checkpoint yet may be replaced, by `clear`; anything else is never touched.

    Raises:
        RunError: `out` is a file, holds a run or something that is not a run, or cannot be written.
    """
    try:
        if out is None:
            return _fresh(home(), f"{(now or datetime.now()):%Y%m%d-%H%M%S}-{_slug(method)}-{_slug(data)}")
        out = out.expanduser()
        if out.exists() and not out.is_dir():
            raise RunError(f"--out {out} is a file; name a folder")
        if out.is_dir():
            _refuse_taken(out)
        out.mkdir(parents=True, exist_ok=True)
        return out
    except OSError as error:
        raise RunError(
            f"cannot create the run folder {error.filename or out}: {error.strerror or error}"
        ) from error


def is_run(folder: Path) -> bool:
    """Whether `folder` was written by a run, finished or not."""
    return (folder / CONFIG).is_file()


def state_of(folder: Path) -> str:
    """The status its record gives a run; empty where there is no readable record."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(record.get("status", "")) if isinstance(record, dict) else ""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets it go when the process ends, however it ends.

    Raises:
        BusyError: another process is at work on it.
        RunError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"another process is at work on {folder}: wait for it, or stop it, and try again"
        ) from None
    except OSError as error:
        raise RunError(f"cannot write {folder / LOCK}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        RunError: fewer than `needed` bytes are free where `folder` is.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder} is on a disk with {free / 2**20:,.0f} MiB free, and this run needs about "
            f"{needed / 2**20:,.0f} MiB for its adapter and checkpoints: free some space, or name a folder elsewhere "
            "with --out"
        )


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
    except UnicodeEncodeError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.object[error.start]!a} in it is not UTF-8; rename the file it names"
        ) from error
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one JSON object as a line: the whole line, or nothing.

    Raises:
        RunError: the file cannot be written.
    """
    line = (json.dumps(values) + "\n").encode()
    before = None
    try:
        with path.open("ab", buffering=0) as stream:
            before = stream.tell()
            if stream.write(line) != len(line):
                raise OSError(28, "No space left on device")
    except OSError as error:
        if before is not None:
            with contextlib.suppress(OSError):
                os.truncate(path, before)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def cut(path: Path, size: int) -> None:
    """Shorten a file to `size` bytes: what was appended after a checkpoint will be appended again.

    Raises:
        RunError: the file is shorter than that, or cannot be written.
    """
    try:
        if not path.exists() and not size:
            return
        if path.stat().st_size < size:
            raise RunError(f"{path} is shorter than its checkpoint says: start the run anew")
        os.truncate(path, size)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def clear(folder: Path) -> None:
    """Remove the own files of a run that `create` would replace, and nothing else. To be called while it is `locked`:
    the run that stood there may have come to its end since `create` looked.

    Raises:
        RunError: it is no such run any more, or one cannot be removed.
    """
    try:
        _refuse_taken(folder)
        for name in _OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot clear the run folder {error.filename or folder}: {error.strerror or error}"
        ) from error


def _refuse_taken(out: Path) -> None:
    """Refuse a folder that holds anything but a run which is not worth keeping."""
    if not any(path.name != LOCK and not _is_litter(path) for path in out.iterdir()):
        return
    state = state_of(out)
    if state not in _STATES:  # a config.toml alone may be anybody's
        raise RunError(f"--out {out} is not empty and not a run: name a new or an empty folder")
    if state == "complete":
        raise RunError(f"--out {out} holds a finished run: name a new folder, or delete that run first")
    if (out / CHECKPOINT).is_dir() or (out / ADAPTER).is_dir():
        raise RunError(
            f"--out {out} holds a run that did not finish: go on with `peftx run --resume "
            f"{shlex.quote(out.as_posix())}`, name a new folder, or delete that run first"
        )


def _is_litter(path: Path) -> bool:
    """Whether `write_text` was killed over it."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


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


def _slug(name: str) -> str:
    """A data set's or method's name as part of a file name: no argument, nothing a file system minds."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.partition(":")[0]).strip("-.") or "run"
