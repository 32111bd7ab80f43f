"""Where a training that was stopped goes on: one state, written whole, never pickle."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftx.artifacts.state import load_state, save_state

__all__ = ["Checkpoint"]

#: A checkpoint is not written again before this many times its own cost has passed: 5 % of the time at most.
PAUSE = 20.0


class Checkpoint:
    """The latest state of one training, in a folder of its own (``state.json``, ``state.safetensors``).

    A new state replaces the old one by a rename, so whenever the writing stops there is the old one or the new one.
    `seconds`: time between two; 0 writes after every step. `step` is that of the state on disk, 0 for none.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.step = 0
        self._last = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time to write again."""
        if not self.seconds:
            return True
        return time.monotonic() - self._last >= max(self.seconds, PAUSE * self._cost)

    def write(self, state: Mapping[str, Any], step: int) -> None:
        """Replace the state.

        Raises:
            ArtifactError: the folder cannot be written (a full disk); the state that was there stays.
        """
        started = time.monotonic()
        save_state(state, self.folder)
        self.step, self._last = step, time.monotonic()
        self._cost = self._last - started

    def read(self) -> dict[str, Any] | None:
        """The state, None when there is none.

        Raises:
            ArtifactError: it is damaged, or of a newer release.
        """
        return load_state(self.folder) if (self.folder / "state.json").is_file() else None

    def remove(self) -> None:
        """Delete the state: its training came to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.step = 0
