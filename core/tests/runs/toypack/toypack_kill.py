"""Kills this very process, with the signal nobody can catch, at a chosen moment of a run.

``KILL=place:count``: at the count-th time of one of these. Nothing happens without the variable.

start    a model is built
step     a loss was computed, its gradients are not
line     a line was appended to metrics.jsonl
score    a batch is scored
torn     half of a checkpoint's tensors are written
swapped  a checkpoint's JSON has its final name, its tensors have not
record   record.json is about to be replaced
saved    the adapter is written, the record does not know yet
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

_PLACE, _, _COUNT = os.environ.get("KILL", ":0").partition(":")
_left = {_PLACE: int(_COUNT or 0)}
_SLOW = float(os.environ.get("SLOW", "0"))  # seconds each loss takes longer


def at(place: str) -> bool:
    """Count one more time at this place; True when it is the one to die at."""
    if place == "step":
        time.sleep(_SLOW)
    if place in _left:
        _left[place] -= 1
        return _left[place] == 0
    return False


def die() -> None:
    """End here."""
    os.kill(os.getpid(), signal.SIGKILL)


def lay() -> None:
    """Lay the traps that are not in the toy pack's own code."""
    import peftx.artifacts
    from peftx.runs import folder

    if not _PLACE:
        return
    write, replace = Path.write_bytes, Path.replace
    append, text, save = folder.append_line, folder.write_text, peftx.artifacts.save

    def write_bytes(self: Path, data: bytes) -> int:
        if self.parent.parent.name == "checkpoint" and at("torn"):
            write(self, data[: len(data) // 2])
            die()
        return write(self, data)

    def replaced(self: Path, target: Any) -> Path:
        done = replace(self, target)
        if Path(target).name == "state.json" and at("swapped"):
            die()
        return done

    def append_line(path: Path, values: Any) -> None:
        append(path, values)
        if at("line"):
            die()

    def write_text(path: Path, content: str) -> None:
        if path.name == "record.json" and at("record"):
            die()
        text(path, content)

    def saved(*arguments: Any, **named: Any) -> Any:
        done = save(*arguments, **named)
        if at("saved"):
            die()
        return done

    Path.write_bytes, Path.replace = write_bytes, replaced  # type: ignore[method-assign,assignment]
    folder.append_line, folder.write_text, peftx.artifacts.save = append_line, write_text, saved
