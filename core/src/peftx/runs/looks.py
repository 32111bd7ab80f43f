"""Test scores of epochs other than the kept one: the last epoch's, and on request the best of all.

A run is scored by the epoch its validation chose. Papers often print the last epoch's score, or the best one on the
test data themselves: the first compares as honestly as ours, the second is chosen by what it is scored on. Neither is
ever ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Looks"]


class Looks:
    """Scores the test split at the end of epochs, and says what came of it.

    Args:
        score: the metrics of the test split of the model as it stands.
        log: told each new one, with its epoch.
    """

    def __init__(
        self, score: Callable[[], Mapping[str, float]], log: Callable[[int, Mapping[str, float]], None]
    ) -> None:
        self._score, self._log = score, log
        self._seen: dict[int, dict[str, float]] = {}

    def __call__(self, epoch: int) -> None:
        """Score an epoch, unless it was scored before."""
        if epoch not in self._seen:
            self._seen[epoch] = dict(self._score())
            self._log(epoch, self._seen[epoch])

    def state(self) -> list[dict[str, Any]]:
        """What was seen, for a checkpoint."""
        return [{"epoch": epoch, "metrics": metrics} for epoch, metrics in self._seen.items()]

    def go_on(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from a checkpoint."""
        self._seen = {one["epoch"]: dict(one["metrics"]) for one in state}

    def last_epoch(self, epochs: int, kept: int, test: Mapping[str, float]) -> dict[str, Any]:
        """The last epoch's scores, for the record; `test` are those of epoch `kept`."""
        metrics = dict(test) if kept == epochs else self._seen[epochs]
        return {"epoch": epochs, "metrics": {"test": metrics}}

    def best_on_test(self, primary: str, *, higher_is_better: bool) -> dict[str, Any]:
        """The scores of the best epoch on the test split, for the record; the earliest of equal ones."""
        sign = 1.0 if higher_is_better else -1.0
        # a score that is no number is never the best
        order = {
            epoch: sign * value if (value := metrics[primary]) == value else float("-inf")
            for epoch, metrics in self._seen.items()
        }
        epoch = max(order, key=order.__getitem__)
        return {"epoch": epoch, "metrics": {"test": self._seen[epoch]}, "optimistic": True}
