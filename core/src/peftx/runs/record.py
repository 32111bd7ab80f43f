"""record.json: enough to judge a score, to repeat the run, and to notice when a repetition differs.

Torch-free, because tables of results are read from many records and should not wait for torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftx.errors import RunError
from peftx.runs import folder as files

__all__ = ["FORMAT", "clean", "read", "write"]

#: Raised when a reader of the old layout would misread the new one.
FORMAT = 1


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write record.json atomically. Figures that are not finite become null: JSON has no NaN."""
    text = json.dumps(clean(record), indent=1, allow_nan=False, default=str)
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


def clean(value: Any) -> Any:
    """The value as JSON can hold it: figures that are not finite become null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
