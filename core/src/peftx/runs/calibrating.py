"""What held-out samples say about answers on new files, measured while the data are there and kept without them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from peftx.plugins.targets import one_line
from peftx.runs import folder as files
from peftx.runs import record as records
from peftx.tasks.contract import Task
from peftx.training.backend import Backend
from peftx.training.untouched import untouched

__all__ = ["calibrate", "keep_calibration", "read_calibration"]

#: Characters that a run keeps at most.
MOST = 2**23


def calibrate(
    task: Task, model: nn.Module, splits: Sequence[str], backend: Backend, note: Callable[[str], None]
) -> dict[str, Any]:
    """Return what `task` measures on the splits that were scored, {} for nothing.

    The model, the random numbers and the scores are what they were; what goes wrong is told to `note`, and costs
    nothing else.
    """
    try:
        with untouched(model):
            model.eval()
            found = task.calibrate(model, splits, device=backend.device, autocast=backend.autocast)
        size = len(json.dumps(records.clean(found), allow_nan=False))
        if size > MOST:
            raise ValueError(f"it returned {size:,} characters, and {MOST:,} are the most")
    except Exception as error:  # an interval that is missing must not cost a trained row
        note(f"answers on new files are not calibrated ({one_line(error)})")
        return {}
    return found


def keep_calibration(folder: Path, found: Mapping[str, Any]) -> None:
    """Write calibration.json in a run's folder, whole or not at all; nothing where there is nothing to keep.

    Raises:
        RunError: the file cannot be written.
    """
    if found:
        text = json.dumps({"format": 1, "calibration": records.clean(found)}, allow_nan=False)
        files.write_text(folder / files.CALIBRATION, text + "\n")


def read_calibration(folder: Path) -> dict[str, Any]:
    """What `keep_calibration` wrote; {} where there is no such file, or none that can be read: an answer without it is
    an answer still."""
    try:
        held = json.loads((folder / files.CALIBRATION).read_text(encoding="utf-8"))["calibration"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return held if isinstance(held, dict) else {}
