"""What a page will show of single samples, taken while the model is there and kept without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from peftx.plugins.targets import one_line
from peftx.runs import folder as files
from peftx.runs import record as records
from peftx.tasks.contract import Task
from peftx.training.backend import Backend
from peftx.training.untouched import untouched

__all__ = ["exhibit", "keep_samples"]

#: Characters of what a row may show. A page is read in one piece.
MOST = 2**20


def exhibit(
    task: Task,
    model: nn.Module,
    scores: Mapping[str, Mapping[str, float]],
    backend: Backend,
    note: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Return what `task` shows of the samples of the test split, or of the last split that was scored: {split: ...}.

    The model, the random numbers and the scores are what they were; what goes wrong is told to `note`, and costs
    nothing else.
    """
    for split in ("test", *reversed(list(scores))):
        details = getattr(scores.get(split), "details", None)
        if not details:
            continue
        try:
            with untouched(model):
                model.eval()
                found = task.exhibit(model, split, details, device=backend.device, autocast=backend.autocast)
            size = len(json.dumps(records.clean(found), allow_nan=False))
            if size > MOST:
                raise ValueError(f"it returned {size:,} characters, and {MOST:,} are the most")
        except Exception as error:  # a picture that is missing must not cost a trained row
            note(f"no samples are shown ({one_line(error)})")
            return {}
        return {split: found} if found else {}
    return {}


def keep_samples(folder: Path, method: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write samples.json in a run's folder, whole or not at all; nothing where there is nothing to show.

    Raises:
        RunError: the file cannot be written.
    """
    if found:
        text = json.dumps({"format": 1, "rows": {method: records.clean(found)}}, allow_nan=False)
        files.write_text(folder / files.SAMPLES, text + "\n")
