"""How work reports that it goes on. Library use is silent; the command line draws bars or prints lines.

Torch-free, so that the command line can subclass it at start-up.
"""

from __future__ import annotations

__all__ = ["Progress"]


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
