"""What a run writes as it goes: its lines, its record, its details. Only the first of several processes writes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftx.errors import RunError
from peftx.runs import folder as files
from peftx.runs import record as records

__all__ = ["Ledger"]


class Ledger:
    """The files of one run. `record` is what record.json says; change it, then `save`.

    `writes`: False in all processes but the first, which then only keep the record in memory.
    """

    def __init__(self, folder: Path, record: dict[str, Any], *, writes: bool = True) -> None:
        self.folder, self.record, self.writes = folder, record, writes
        self._metrics = folder / files.METRICS
        self._before = float(record.get("seconds", 0.0))
        self._started = time.perf_counter()

    def save(self, **changes: Any) -> None:
        """Change the record and write it.

        Raises:
            RunError: the file cannot be written.
        """
        self.record |= changes | {"seconds": self._before + time.perf_counter() - self._started}
        if self.writes:
            records.write(self.folder, self.record)

    def log(self, values: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl.

        Raises:
            RunError: the file cannot be written; it ends with the line before, then.
        """
        if self.writes:
            files.append_line(self._metrics, records.clean(values))

    def logged(self) -> int:
        """Bytes of metrics.jsonl that are safe on the disk."""
        try:
            with self._metrics.open("rb") as stream:
                os.fsync(stream.fileno())
                return os.fstat(stream.fileno()).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RunError(f"cannot write {self._metrics}: {error.strerror or error}") from error

    def cut(self, size: int) -> None:
        """Forget the lines after the first `size` bytes."""
        if self.writes:
            files.cut(self._metrics, size)

    def cut_to_rows(self) -> None:
        """Forget the lines of rows that are not in the record: they are trained again from their start."""
        if not self.writes or not self._metrics.is_file():
            return
        done = {row["method"] for row in self.record["rows"]}
        size = 0
        with self._metrics.open("rb") as stream:
            for line in stream:
                try:
                    if json.loads(line)["row"] not in done or not line.endswith(b"\n"):
                        break
                except (ValueError, KeyError, TypeError):
                    break
                size += len(line)
        files.cut(self._metrics, size)

    def add_details(self, method: str, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Write what stands behind a row's scores, where the task says anything about them.

        Raises:
            RunError: the file cannot be written.
        """
        found = {split: dict(getattr(values, "details", {})) for split, values in scores.items()}
        found = {split: details for split, details in found.items() if details}
        if not self.writes or not found:
            return
        path = self.folder / files.DETAILS
        try:
            held = json.loads(path.read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            held = {}
        text = json.dumps({"format": 1, "rows": records.clean({**held, method: found})}, allow_nan=False)
        files.write_text(path, text + "\n")
