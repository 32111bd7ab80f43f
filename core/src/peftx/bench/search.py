"""The search for a learning rate, and for a weight decay, alike for every row: the same points, the first seed,
validation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftx.bench.cells import Point
from peftx.bench.states import DIVERGED, DONE, FAILED, State

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a search came to: the point, or in one sentence why there is none. `states`: of the runs, by point."""

    states: Mapping[Point, State]
    point: Point | None = None
    why_not: str = ""

    @property
    def open(self) -> bool:
        """Whether runs of the search are still to come."""
        return self.point is None and not self.why_not

    @property
    def rate(self) -> float | None:
        """The chosen learning rate."""
        return None if self.point is None else self.point.lr

    @property
    def at_edge(self) -> str:
        """``smallest`` or ``largest`` where the chosen rate is that of several: a better one may lie beyond."""
        rates = sorted({point.lr for point in self.states})
        if self.rate is None or len(rates) < 2:
            return ""
        return {rates[0]: "smallest", rates[-1]: "largest"}.get(self.rate, "")

    def to_dict(self) -> list[dict[str, Any]]:
        """For bench.json and ``--json``: what each point came to."""
        return [
            {"rate": point.lr, "weight_decay": point.weight_decay}
            | {"value": state.value, "state": state.word, "cause": state.cause}
            for point, state in sorted(self.states.items(), key=lambda pair: pair[0])
        ]


def choose(states: Mapping[Point, State]) -> Choice:
    """The point with the best validation score; of equal ones that with the lower validation loss, then the smaller
    rate, then the smaller weight decay.

    A rate that made training stop itself is out: that is a result. A run that failed otherwise leaves the search
    incomplete, and a rate chosen among the others would have been searched less than those of the other rows.
    """
    if not all(state.settled for state in states.values()):
        return Choice(states)
    broken = sorted(point for point, state in states.items() if state.word == FAILED)
    if broken:
        why = f"its search is incomplete: {broken[0]} failed ({states[broken[0]].cause})"
        return Choice(states, why_not=why)
    scored = {
        point: state for point, state in states.items() if state.word == DONE and state.value is not None
    }
    if not scored:
        causes = [state.cause for state in states.values() if state.word == DIVERGED]
        if not causes:
            return Choice(states, why_not="its search has no validation score to choose by")
        return Choice(states, why_not=f"every rate diverged ({_first(causes)})")
    best = min(scored, key=lambda point: _order(point, scored[point]))
    return Choice(states, best)


def _order(point: Point, state: State) -> tuple[float, float, Point]:
    value = state.value
    assert value is not None
    loss = float("inf") if state.loss is None else state.loss
    return (-value if state.higher else value, loss, point)


def _first(causes: Sequence[str]) -> str:
    return causes[0].partition(": try ")[0]
