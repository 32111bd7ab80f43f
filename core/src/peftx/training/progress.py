"""How work reports that it goes on. Library use is silent; the command line draws bars or prints lines.

Torch-free, so that the command line can subclass it at start-up.
"""

from __future__ import annotations

from typing import Protocol

from peftx.errors import Interrupted

__all__ = ["Interruptible", "Progress"]


class Progress:
    """Listener for the progress of a run; this base class stays silent.

    A run opens bars one at a time: `begin`, then `advance` once per unit, then `end`.
    """

    def stage(self, text: str) -> None:
        """A new part of the run starts (loading data, training core.lora)."""

    def begin(self, label: str, total: int) -> None:
        """A countable stretch of `total` units starts."""

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        """One unit is done; `metrics` are the figures worth showing beside the bar."""

    def end(self, summary: str = "") -> None:
        """The stretch is over, complete or not."""

    def note(self, text: str) -> None:
        """Something the user should read."""


class Wish(Protocol):
    """Something that may ask for a stop."""

    requested: bool


class Interruptible(Progress):
    """Passes on to another listener, and ends a countable stretch by `Interrupted` once a stop is asked for.

    For work that changes nothing and can be done again, such as scoring.
    """

    def __init__(self, stop: Wish, to: Progress | None = None) -> None:
        self._stop, self._to = stop, to or Progress()

    def stage(self, text: str) -> None:
        self._to.stage(text)

    def begin(self, label: str, total: int) -> None:
        self._to.begin(label, total)

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        if self._stop.requested:
            self._to.end()
            raise Interrupted("stopped while scoring")
        self._to.advance(metrics)

    def end(self, summary: str = "") -> None:
        self._to.end(summary)

    def note(self, text: str) -> None:
        self._to.note(text)
