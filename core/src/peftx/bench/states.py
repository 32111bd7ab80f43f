"""What became of a cell, read from its run folder: the record is the truth, bench.json repeats it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftx.errors import BusyError, RunError
from peftx.report.order import decides
from peftx.runs import folder as files
from peftx.runs import record as records

__all__ = [
    "DIVERGED",
    "DONE",
    "FAILED",
    "UNFINISHED",
    "WAITING",
    "State",
    "is_free",
    "mark_failed",
    "state_of",
]

WAITING, UNFINISHED, DONE, FAILED = "waiting", "unfinished", "done", "failed"
#: A run of the search whose rate was too high: that is what the search found out, nothing went wrong.
DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class State:
    """`word`: waiting, unfinished, done, failed or diverged; `cause`: one sentence where it failed or diverged.

    `split`, `metric`, `value`: the score that counts, test where it was taken, else validation; `loss` and `higher` are
    what a search also needs.
    """

    word: str = WAITING
    cause: str = ""
    split: str = ""
    metric: str = ""
    unit: str = ""
    value: float | None = None
    loss: float | None = None
    higher: bool = True
    seconds: float | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self.word in (DONE, FAILED, DIVERGED)

    def to_dict(self) -> dict[str, Any]:
        """For bench.json."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


def state_of(folder: Path, known: Mapping[str, Any] | None = None, *, last_epoch: bool = False) -> State:
    """The state of the cell in `folder`; with `last_epoch`, its score is the last epoch's on validation data, whichever
    epoch was kept.

    `known`: what bench.json says of it. Two things stand there alone: the cause of a failure that came before the run
    had a record, and whether a failure of the search was one of training.
    """
    known = known or {}
    if not (folder / files.RECORD).is_file():
        if known.get("state") == FAILED:
            return State(FAILED, str(known.get("cause", "")))
        return State(UNFINISHED if files.is_run(folder) else WAITING)
    try:
        record = records.read(folder)
    except RunError as error:
        return State(FAILED, str(error))
    status = record.get("status")
    if status == "complete":
        return _scored(record, last_epoch=last_epoch)
    if status == "failed":
        cause = str(record.get("error", ""))
        diverged = known.get("state") == DIVERGED and known.get("cause") == cause
        return State(DIVERGED if diverged else FAILED, cause)
    return State(UNFINISHED)


def is_free(folder: Path) -> bool:
    """Whether no process is at work on a run."""
    if not (folder / files.LOCK).is_file():
        return True
    try:
        with files.locked(folder):
            return True
    except BusyError:
        return False


def mark_failed(folder: Path, cause: str) -> None:
    """Say in a run's record that its process died, unless another process is already going on with it.

    Raises:
        RunError: the record cannot be written.
    """
    if not (folder / files.RECORD).is_file():
        return
    try:
        with files.locked(folder):
            record = records.read(folder)
            if record.get("status") == "training":
                records.write(folder, {**record, "status": "failed", "error": cause})
    except BusyError:
        return


def _scored(record: Mapping[str, Any], *, last_epoch: bool) -> State:
    row = record["rows"][0]
    split = "test" if "test" in row["metrics"] and not last_epoch else "val"
    metric, higher = decides(record, split)
    scores = row["metrics"].get(split, {})
    if last_epoch and row["history"]:  # the last epoch is always validated
        scores = row["history"][-1]
    return State(
        DONE,
        split=split if scores else "",
        metric=metric,
        unit=str(record["units"].get(metric, "")),
        value=_number(scores.get(metric)),
        loss=_number(scores.get("loss")),
        higher=higher,
        seconds=_number(record.get("seconds")),
    )


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is no file, or nothing readable in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
